package guard_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// asserting is a guard that signs for the upstream "orders".
func asserting(t *testing.T, w *world, by guard.Asserter, change func(*guard.Config)) *guard.Guard {
	t.Helper()
	return build(t, w, func(cfg *guard.Config) {
		cfg.Assertion.Audience = "orders"
		if change != nil {
			change(cfg)
		}
	}, func(p *guard.Parts) { p.Asserter = by })
}

// S54: an upstream that believes nothing but the edge's signature learns who asks, for this very request.
func TestAnUpstreamCanCheckWhatTheEdgeSays(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return now }
	signer, err := assertion.NewSigner(clock)
	if err != nil {
		t.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(signer.KeySet()) }))
	t.Cleanup(keys.Close)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	check, err := assertion.New(ctx, assertion.Config{Audience: "orders", KeySets: []string{keys.URL}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	v := asserting(t, calm(), signer, nil).Check(t.Context(), request(func(r *guard.Request) {
		r.Path, r.UpstreamPath = "/shop/orders/o%201", "/orders/o%201"
		r.Header["x-gatehouse-assertion"] = []string{"the client's own"}
	}))
	if !v.Forward {
		t.Fatalf("denied: %s", v.Body)
	}
	arrives := func(method, target string) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
		for name, value := range v.SetHeaders {
			r.Header.Set(name, value)
		}
		return r
	}
	i, err := check.Check(arrives("GET", "/orders/o%201?q=1"))
	if err != nil || i.Subject != "u1" || i.Tenant != "t1" || i.Decision != "d-pdp" || len(i.Roles) != 2 {
		t.Errorf("identity %+v, error %v", i, err)
	}
	for _, other := range []*http.Request{arrives("POST", "/orders/o%201"), arrives("GET", "/orders/o2")} {
		if _, err := check.Check(other); err == nil {
			t.Errorf("it is good for %s %s too", other.Method, other.URL)
		}
	}
}

// S54: where nothing is signed, the client's own word does not get through either.
func TestAClientCannotBringItsOwnAssertion(t *testing.T) {
	t.Parallel()
	v := build(t, calm(), nil).Check(t.Context(), request(func(r *guard.Request) { r.Header["x-gatehouse-assertion"] = []string{"forged"} }))
	if got, set := v.SetHeaders["X-Gatehouse-Assertion"]; !v.Forward || !set || got != "" {
		t.Errorf("assertion %q, set %v", got, set)
	}
}

type unable struct{}

func (unable) Sign(assertion.Identity, assertion.Request) (string, error) {
	return "half", errors.New("no key")
}

// S56: an upstream that waits for a signature gets no request without one.
func TestWhatCannotBeSignedIsNotForwarded(t *testing.T) {
	t.Parallel()
	v := asserting(t, calm(), unable{}, nil).Check(t.Context(), request(nil))
	if v.Forward || v.Status != 500 || problem(t, v).Code != "assertion_failed" {
		t.Errorf("forward %v, %d %s", v.Forward, v.Status, v.Body)
	}
	v = asserting(t, calm(), unable{}, func(c *guard.Config) { c.Mode = guard.Observe }).Check(t.Context(), request(nil))
	if !v.Forward || v.SetHeaders["X-Gatehouse-Assertion"] != "" {
		t.Errorf("in observe mode: forward %v, assertion %q", v.Forward, v.SetHeaders["X-Gatehouse-Assertion"])
	}
}

func TestARouteThatWantsAssertionsNeedsASigner(t *testing.T) {
	t.Parallel()
	cfg := config()
	cfg.Assertion.Audience = "orders"
	w := calm()
	_, err := guard.New(cfg, guard.Parts{
		Verifier: w, Revocations: w, Limiter: w, Challenger: w, Decider: w,
		Now: func() time.Time { return now }, NewID: func() string { return "d-edge" }, Log: telemetry.Logger(&w.log, slog.LevelInfo),
	})
	if err == nil || !strings.Contains(err.Error(), "asserter") {
		t.Errorf("error %v", err)
	}
	cfg.Assertion.Audience = "a\nb"
	if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), "config.assertion.audience:") {
		t.Errorf("error %v", err)
	}
}
