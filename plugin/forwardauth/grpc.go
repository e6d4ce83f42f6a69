package forwardauth

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"slices"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// checkGRPC answers one call of Check.
func (h *Handler) checkGRPC(w http.ResponseWriter, r *http.Request) {
	message, err := extauthz.Receive(w, r)
	if err != nil {
		h.Log.WarnContext(r.Context(), "call by Envoy failed", "error", err)
		return
	}
	v := h.verdict(r.Context(), func() (guard.Request, error) { return readCheck(message) })
	extauthz.Reply(w, appendVerdict(make([]byte, 0, 1024), v))
}

// readCheck answers the original request out of a CheckRequest. The client's address is the one that Envoy believes (S15).
func readCheck(message []byte) (guard.Request, error) {
	c, err := extauthz.Read(message)
	if err != nil {
		return guard.Request{}, errWords.Because(err)
	}
	out := guard.Request{Method: c.Method, Host: c.Host, Header: c.Header}
	if out.Addr, err = netip.ParseAddr(c.Address); err != nil || out.Addr.Zone() != "" {
		return out, unreadable("source.address is not an address")
	}
	out.Addr = out.Addr.Unmap()
	if lengths := c.Header["content-length"]; c.Body != "" || len(lengths) == 1 && lengths[0] == "0" {
		out.Body = sentBody{c.Body, slices.Contains(c.Header[partial], "true")}
	}
	return out, complete(&out, c.Path)
}

// partial is the header in which Envoy tells whether the body goes on behind what it has sent of it.
const partial = "x-envoy-auth-partial-body"

// sentBody is what Envoy has sent of a body (guard.Body).
type sentBody struct {
	text   string
	goesOn bool
}

func (b sentBody) Body(context.Context) ([]byte, error) {
	if b.goesOn {
		return nil, guard.ErrBodyBuffered.Because(errors.New("max_request_bytes of with_request_body is smaller than it"))
	}
	return []byte(b.text), nil
}

// appendVerdict encodes a CheckResponse.
func appendVerdict(b []byte, v guard.Verdict) []byte {
	if v.Forward {
		return extauthz.Pass{Set: v.SetHeaders, Respond: v.Respond}.Append(b)
	}
	return extauthz.Refusal{Status: v.Status, Header: v.Header, Body: v.Body}.Append(b)
}
