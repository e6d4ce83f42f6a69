package guard_test

import (
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// remembering is a guard whose policy looks at roles only and allows clerks.
func remembering(t *testing.T, w *world, ttl int) *guard.Guard {
	t.Helper()
	w.decide = func(r authzen.Request) (authzen.Response, error) {
		roles, _ := r.Subject.Properties["roles"].([]string)
		allowed := len(roles) > 0 && roles[0] == "clerk"
		return authzen.Response{Decision: allowed, Context: &authzen.ResponseContext{
			DecisionID: "d-pdp", Revision: "p1", Cache: &authzen.Cache{TTL: ttl, Vary: []string{"/subject/properties/roles"}},
		}}, nil
	}
	return build(t, w, nil, caching)
}

// caching gives a guard a memory of decisions, for a second.
func caching(p *guard.Parts) { p.Decisions = decide.NewCache(100, time.Second, p.Now) }

func holding(roles ...string) func(string) (principal.Principal, error) {
	return func(string) (principal.Principal, error) {
		return principal.Principal{Subject: "u1", Issuer: "i", Roles: roles}, nil
	}
}

func TestARememberedDecisionIsNotAskedForAgain(t *testing.T) {
	t.Parallel()
	w := calm()
	g := remembering(t, w, 1000)
	w.verify = holding("clerk")
	for range 3 {
		if v := g.Check(t.Context(), request(nil)); !v.Forward || v.SetHeaders["X-Gatehouse-Decision"] != "d-pdp" {
			t.Fatalf("denied: %s", v.Body)
		}
	}
	w.verify = holding("customer")
	for range 3 {
		if v := g.Check(t.Context(), request(nil)); v.Forward || v.Status != 403 {
			t.Fatalf("status %d: %s", v.Status, v.Body)
		}
	}
	if len(w.asked) != 2 {
		t.Errorf("asked %d times, want once for each role", len(w.asked))
	}
}

// S58: a token that still bears the role that was taken away is ended; what was allowed to it helps nobody.
func TestARememberedAllowanceDoesNotOutliveItsToken(t *testing.T) {
	t.Parallel()
	w := calm()
	g := remembering(t, w, 1000)
	w.verify = holding("clerk")
	g.Check(t.Context(), request(nil))
	w.revoked = true
	if v := g.Check(t.Context(), request(nil)); v.Forward || problem(t, v).Code != "session_revoked" {
		t.Errorf("the old token: %d %s", v.Status, v.Body)
	}
	w.revoked, w.verify = false, holding()
	if v := g.Check(t.Context(), request(nil)); v.Forward {
		t.Error("the new token, without the role, is allowed")
	}
}

// S56: a failure is never remembered, and what is remembered covers no failure of another question.
func TestAFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	w := calm()
	g := remembering(t, w, 1000)
	decides := w.decide
	w.verify = holding("clerk")
	w.decide = func(authzen.Request) (authzen.Response, error) {
		return authzen.Response{Decision: true}, errors.New("x")
	}
	if v := g.Check(t.Context(), request(nil)); v.Forward {
		t.Fatal("a failure is a pass")
	}
	w.decide = decides
	if v := g.Check(t.Context(), request(nil)); !v.Forward {
		t.Errorf("denied: %s", v.Body)
	}
}
