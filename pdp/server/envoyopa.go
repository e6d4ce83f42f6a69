package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
)

var (
	errUndefined = fault.New(fault.Unavailable, "No decision could be made.").Named("undefined")
	errNoAnswer  = fault.New(fault.Unavailable, "No decision could be made.").Named("result_unusable")
)

// checkDocument answers a CheckResponse by a document of the operator's, as opa-envoy-plugin does: its input, and its boolean and
// object results. Where the plug-in fails a call, so that it is Envoy's failure_mode_allow that decides, this refuses.
func (d *envoyDoor) checkDocument(ctx context.Context, message []byte) []byte {
	input, err := opaInput(message)
	if err != nil {
		return d.refusal(ctx, "", nil, errCheck.Because(err))
	}
	headers := under(input, "attributes", "request", "http", "headers")
	if id, ok := web.ParseTraceparent(textOf(headers, "traceparent")); ok {
		ctx = web.WithTraceID(ctx, id)
	}
	doc, err := d.askDocument(ctx, apiEnvoy, dataapi.Question{Path: d.document, Input: input, HasInput: true}, d.Now())
	switch {
	case err != nil:
		return d.refusal(ctx, doc.DecisionID, nil, err)
	case !doc.Defined:
		return d.refusal(ctx, doc.DecisionID, nil, errUndefined)
	}
	answer, err := answerOf(doc.Value)
	if err != nil {
		return d.refusal(ctx, doc.DecisionID, nil, errNoAnswer.Because(err))
	}
	if answer.Metadata == nil {
		answer.Metadata = map[string]any{}
	}
	answer.Metadata["decision_id"] = doc.DecisionID
	if answer.Allowed {
		answer.HTTP = identified(answer.HTTP, doc.DecisionID)
	}
	return answer.Append(nil)
}

// identified sees to it that no identity header of the request is the client's own word (S54): it is the policy's, or gone.
func identified(h *extauthz.HTTP, decision string) *extauthz.HTTP {
	if h == nil {
		h = &extauthz.HTTP{}
	}
	told := map[string]bool{}
	for i, header := range h.Headers {
		name := strings.ToLower(header.Name)
		if told[name] {
			continue // another value of the same
		}
		for _, identity := range principal.IdentityHeaders() {
			if strings.EqualFold(identity, name) {
				h.Headers[i].Overwrite, told[name] = true, true
			}
		}
	}
	for _, identity := range principal.IdentityHeaders() {
		if name := strings.ToLower(identity); !told[name] && identity != principal.HeaderDecision {
			h.Remove = append(h.Remove, name)
		}
	}
	h.Headers = slices.DeleteFunc(h.Headers, func(header extauthz.Header) bool { return strings.EqualFold(header.Name, principal.HeaderDecision) })
	h.Headers = append(h.Headers, extauthz.Header{Name: strings.ToLower(principal.HeaderDecision), Value: decision, Overwrite: true})
	return h
}

// answerOf reads a document's value as opa-envoy-plugin does: a boolean, or an object whose allowed is one. A part that is there and
// cannot be what it says is an error, if the plug-in would look at it.
func answerOf(value any) (extauthz.Answer, error) {
	if allowed, ok := value.(bool); ok {
		return extauthz.Answer{Allowed: allowed}, nil
	}
	object, ok := value.(map[string]any)
	if !ok {
		return extauthz.Answer{}, errors.New("it is neither a boolean nor an object")
	}
	a := extauthz.Answer{HTTP: &extauthz.HTTP{}}
	if a.Allowed, ok = object["allowed"].(bool); !ok {
		return a, errors.New("allowed is no boolean")
	}
	r := result{object: object}
	a.HTTP.Headers = r.headers("headers")
	if v, there := object["dynamic_metadata"]; there {
		if a.Metadata, ok = v.(map[string]any); !ok {
			r.fail("dynamic_metadata is no object")
		}
		a.Metadata = maps.Clone(a.Metadata)
	}
	if a.Allowed {
		a.HTTP.Remove, a.HTTP.RemoveQuery = r.texts("request_headers_to_remove"), r.texts("query_parameters_to_remove")
		a.HTTP.Respond, a.HTTP.SetQuery = r.headers("response_headers_to_add"), r.query("query_parameters_to_set")
	} else {
		a.HTTP.Body, a.HTTP.Status = r.text("body"), r.status("http_status")
	}
	return a, r.err
}

// result reads the members of an object, and keeps the first error.
type result struct {
	object map[string]any
	err    error
}

func (r *result) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

func (r *result) text(name string) string {
	v, there := r.object[name]
	s, ok := v.(string)
	if there && !ok {
		r.fail("%s is no text", name)
	}
	return s
}

func (r *result) texts(name string) (all []string) {
	v, there := r.object[name]
	list, ok := v.([]any)
	if there && !ok {
		r.fail("%s is no list", name)
	}
	for _, item := range list {
		s, ok := item.(string)
		if !ok {
			r.fail("%s has an item that is no text", name)
		}
		all = append(all, s)
	}
	return all
}

// status is one that Envoy can answer.
func (r *result) status(name string) int {
	v, there := r.object[name]
	if !there {
		return http.StatusForbidden
	}
	n, ok := v.(json.Number)
	status, err := n.Int64()
	if !ok || err != nil || status < 100 || status > 599 || http.StatusText(int(status)) == "" || slices.Contains(unknownToEnvoy(), int(status)) {
		r.fail("%s is no status", name)
		return http.StatusForbidden
	}
	return int(status)
}

// unknownToEnvoy are those that net/http has a text for and envoy.type.v3.StatusCode no number.
func unknownToEnvoy() []int {
	return []int{http.StatusSwitchingProtocols, http.StatusProcessing, http.StatusEarlyHints, http.StatusTeapot, http.StatusTooEarly, http.StatusUnavailableForLegalReasons}
}

// headers are an object of texts or lists of them, or a list of such objects. A name or a value that no header can have would make
// two headers of one, or none, so that the answer is not what the policy says.
func (r *result) headers(name string) (all []extauthz.Header) {
	v, there := r.object[name]
	objects, ok := v.([]any)
	if !ok {
		objects = []any{v}
	}
	if !there {
		return nil
	}
	for _, item := range objects {
		object, ok := item.(map[string]any)
		if !ok {
			r.fail("%s has what is no object", name)
		}
		for _, h := range r.pairs(name, object) {
			if !token(strings.TrimPrefix(h.Name, ":")) || strings.ContainsFunc(h.Value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
				r.fail("%s has one that no header can be", name)
			}
			all = append(all, h)
		}
	}
	return all
}

func (r *result) query(name string) []extauthz.Header {
	v, there := r.object[name]
	object, ok := v.(map[string]any)
	if there && !ok {
		r.fail("%s is no object", name)
	}
	return r.pairs(name, object)
}

// pairs are the members of an object, in the order of their names.
func (r *result) pairs(of string, object map[string]any) (all []extauthz.Header) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		values, ok := object[name].([]any)
		if !ok {
			values = []any{object[name]}
		}
		for _, v := range values {
			s, ok := v.(string)
			if !ok {
				r.fail("%s has a value that is no text", of)
			}
			all = append(all, extauthz.Header{Name: name, Value: s})
		}
	}
	return all
}

// token reports whether a header may have this name (RFC 9110 section 5.6.2).
func token(name string) bool {
	const marks = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	return name != "" && strings.Trim(name, marks) == ""
}
