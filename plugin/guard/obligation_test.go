package guard_test

import (
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func mayOblige(c *guard.Config) {
	c.Obligations = guard.Obligations{UpstreamHeaders: []string{"x-row-filter", "X-Mask"}, ResponseHeaders: []string{"Cache-Control"}}
}

func obliges(w *world, obligations map[string]any) {
	w.decide = func(authzen.Request) (authzen.Response, error) {
		return authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-pdp", Obligations: obligations}}, nil
	}
}

func TestAnObligationSetsHeadersOfBothSides(t *testing.T) {
	t.Parallel()
	w := calm()
	obliges(w, map[string]any{
		"upstream_headers": map[string]any{"X-Row-Filter": "owner = 'u1'"}, "response_headers": map[string]any{"cache-control": "no-store"},
	})
	v := build(t, w, mayOblige).Check(t.Context(), request(nil))
	if !v.Forward || v.SetHeaders["X-Row-Filter"] != "owner = 'u1'" || v.Respond["Cache-Control"] != "no-store" {
		t.Errorf("forward %v, to upstream %v, to client %v", v.Forward, v.SetHeaders, v.Respond)
	}
}

// S54: a header that the policy sets is never the client's, on requests either for which the policy sets none.
func TestAHeaderThatTheListNamesIsNeverTheClients(t *testing.T) {
	t.Parallel()
	forged := request(func(r *guard.Request) { r.Header["x-row-filter"] = []string{"true"} })
	v := build(t, calm(), mayOblige).Check(t.Context(), forged)
	for _, name := range []string{"X-Row-Filter", "X-Mask"} {
		if got, set := v.SetHeaders[name]; !v.Forward || !set || got != "" {
			t.Errorf("%s = %q, set %v", name, got, set)
		}
	}
}

// S56: an allowance on a condition that cannot be met is none.
func TestAnObligationThatCannotBeMetIsADenial(t *testing.T) {
	t.Parallel()
	up := func(name string, value any) map[string]any {
		return map[string]any{"upstream_headers": map[string]any{name: value}}
	}
	for name, obligations := range map[string]map[string]any{
		"unknown":              {"watermark": true},
		"unknown, an object":   {"watermark": map[string]any{}},
		"not on the list":      up("X-Other", "a"),
		"the other side's":     up("Cache-Control", "a"),
		"identity":             up("X-Gatehouse-Subject", "admin"),
		"a line break":         up("X-Mask", "a\r\nX-Gatehouse-Subject: admin"),
		"a line break in name": up("X-Mask\r\nX-B", "a"),
		"spaces around":        up("X-Mask", " a"),
		"no text":              up("X-Mask", 1),
		"too long":             up("X-Mask", strings.Repeat("x", 5000)),
	} {
		w := calm()
		obliges(w, obligations)
		v := build(t, w, mayOblige).Check(t.Context(), request(nil))
		if v.Forward || v.Status != 500 || problem(t, v).Code != "obligation_unmet" || !strings.Contains(w.log.String(), "obligation_unmet") {
			t.Errorf("%s: forward %v, %d %s", name, v.Forward, v.Status, v.Body)
		}
	}
}

// S54: no configuration lets a decision write who asks, or what frames a message.
func TestAHeaderThatIsNotThePolicysIsRefusedInTheList(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"X-Gatehouse-Subject", "x-gatehouse-anything", "X_Gatehouse_Subject", "Host", "Authorization", "Cookie", "Content-Length", "Transfer-Encoding", "Connection",
		"X-Forwarded-For", "Traceparent", "a b", "a\r\nb", "",
	} {
		cfg := config()
		cfg.Obligations.UpstreamHeaders = []string{"X-Fine", name}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "config.obligations.upstream_headers[2]:") {
			t.Errorf("%q upstream: %v", name, err)
		}
	}
	for _, name := range []string{"X-Gatehouse-Decision", "Set-Cookie", "Content-Length", "WWW-Authenticate", "Access-Control-Allow-Origin", "RateLimit-Policy", "Location"} {
		cfg := config()
		cfg.Obligations.ResponseHeaders = []string{name}
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "config.obligations.response_headers[1]:") {
			t.Errorf("%q in the answer: %v", name, err)
		}
	}
}
