package forwardauth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// RefusalPath is where NGINX fetches the answer to a request that was refused. auth_request knows two refusals, 401 and 403,
// and drops their bodies. So the whole answer goes to NGINX as one header, and NGINX sends it back here to have it unpacked;
// nothing is kept in between, and any of several processes can do it.
const RefusalPath = "/refusal"

const (
	headerRefusal = "X-Gatehouse-Refusal"
	headerStatus  = "X-Gatehouse-Status" // what the client gets, for a configuration or a log that wants to know

	// maxRefusal bounds the header, in bytes, so that it fits with the others into a proxy_buffer_size of 16k.
	maxRefusal = 12 << 10
)

// allow answers 200 with the headers that the proxy sets on the request, the empty ones too: they overwrite (S54). Those for
// the client's answer are beside them.
func (h *Handler) allow(w http.ResponseWriter, v guard.Verdict) {
	set := w.Header()
	for name, value := range v.Respond {
		set[http.CanonicalHeaderKey(name)] = []string{value}
	}
	var empty []string
	for name, value := range v.SetHeaders {
		set[http.CanonicalHeaderKey(name)] = []string{value}
		if value == "" {
			empty = append(empty, strings.ToLower(name))
		}
	}
	if h.Proxy == Envoy { // which removes these whatever it is told to copy
		set.Set("X-Envoy-Auth-Headers-To-Remove", strings.Join(empty, ","))
	}
	set["Content-Length"] = []string{"0"}
	w.WriteHeader(http.StatusOK)
}

// deny answers as the proxy wants to be told that the request shall not pass.
func (h *Handler) deny(w http.ResponseWriter, v guard.Verdict) {
	if h.Proxy != NGINX {
		answer(w, v)
		return
	}
	set := w.Header()
	set.Set(headerStatus, strconv.Itoa(v.Status))
	packed, err := pack(v)
	if err != nil {
		h.Log.Error("refusal goes without its body", "status", v.Status, "error", err)
		v.Body = nil
		if packed, err = pack(v); err != nil {
			packed = "" // NGINX's own page for 401 or 403
		}
	}
	set.Set(headerRefusal, packed)
	if v.Status != http.StatusUnauthorized {
		v.Status = http.StatusForbidden
	}
	answer(w, v)
}

// refusal unpacks what deny has packed. Without it NGINX has refused the request of its own: its word stands.
func (h *Handler) refusal(w http.ResponseWriter, r *http.Request) {
	values := r.Header[headerRefusal]
	if len(values) == 1 && values[0] != "" {
		if v, err := unpack(values[0]); err == nil {
			answer(w, v)
			return
		}
	}
	answer(w, h.refuse(r.Context(), guard.Request{Method: r.Method}, errRefused))
}

var errRefused = fault.New(fault.Forbidden, "You may not do this.").Named("forbidden")

func answer(w http.ResponseWriter, v guard.Verdict) {
	for name, value := range v.Header {
		w.Header()[http.CanonicalHeaderKey(name)] = []string{value}
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(v.Body)))
	w.WriteHeader(v.Status)
	_, _ = w.Write(v.Body) // the proxy is gone; there is nobody to tell
}

// packed is a refusal on its way through NGINX.
type packed struct {
	Status int               `json:"s"`
	Header map[string]string `json:"h"`
	Body   []byte            `json:"b"`
}

var errPacked = errors.New("not a refusal that fits into a header")

func pack(v guard.Verdict) (string, error) {
	text, err := json.Marshal(packed{v.Status, v.Header, v.Body})
	if err != nil {
		return "", err
	}
	if base64.RawURLEncoding.EncodedLen(len(text)) > maxRefusal {
		return "", errPacked
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}

// unpack trusts nothing in it: were the line missing that makes NGINX set the header, it would be the client's word.
func unpack(s string) (guard.Verdict, error) {
	if len(s) > maxRefusal {
		return guard.Verdict{}, errPacked
	}
	text, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return guard.Verdict{}, errPacked
	}
	var p packed
	if err := json.Unmarshal(text, &p); err != nil || p.Status < 300 || p.Status > 599 {
		return guard.Verdict{}, errPacked
	}
	for name, value := range p.Header {
		lower := strings.ToLower(name)
		if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) || strings.HasPrefix(lower, "x-accel-") || lower == "content-length" || lower == "transfer-encoding" {
			return guard.Verdict{}, errPacked
		}
	}
	return guard.Verdict{Status: p.Status, Header: p.Header, Body: p.Body}, nil
}
