package guard_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// S25, S56: what becomes of a request with a token while it is not known which sessions have ended lately is configured, and
// is a denial unless it is.
func TestWhileRevocationsAreBehindARouteActsAsConfigured(t *testing.T) {
	t.Parallel()
	unknown := fault.New(fault.Unavailable, "x").Named("revocations_unknown")
	says := func(active bool, err error) func() (bool, error) {
		return func() (bool, error) { return active, err }
	}
	for name, c := range map[string]struct {
		behind  guard.Behind
		lag     time.Duration
		known   error
		revoked bool
		active  func() (bool, error)
		code    string
	}{
		"current":                       {lag: 5 * time.Second, code: "allowed"},
		"behind":                        {lag: 5001 * time.Millisecond, code: "revocations_behind"},
		"deny":                          {behind: guard.Deny, lag: time.Minute, code: "revocations_behind"},
		"continue":                      {behind: guard.Continue, lag: time.Minute, code: "allowed"},
		"continue, known to have ended": {behind: guard.Continue, lag: time.Minute, revoked: true, code: "session_revoked"},
		"continue, nothing known":       {behind: guard.Continue, lag: time.Minute, known: unknown, code: "revocations_unknown"},
		"introspect, alive":             {behind: guard.Introspect, lag: time.Minute, active: says(true, nil), code: "allowed"},
		"introspect, ended":             {behind: guard.Introspect, lag: time.Minute, active: says(false, nil), code: "session_revoked"},
		"introspect, nobody answers":    {behind: guard.Introspect, lag: time.Minute, active: says(true, errors.New("away")), code: "revocations_behind"},
		"introspect, nothing known":     {behind: guard.Introspect, lag: time.Minute, known: unknown, active: says(true, nil), code: "allowed"},
		"introspect, known to be ended": {behind: guard.Introspect, lag: time.Minute, revoked: true, code: "session_revoked"},
		"introspect, current":           {behind: guard.Introspect, lag: time.Second, code: "allowed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := calm()
			w.lag, w.known, w.revoked = c.lag, c.known, c.revoked
			w.active = func() (bool, error) {
				if c.active == nil {
					t.Error("the issuer was asked")
					return true, nil
				}
				return c.active()
			}
			v := build(t, w, func(cfg *guard.Config) { cfg.Alive.Behind, cfg.Issuers[0].Introspection = c.behind, introspection() }).Check(t.Context(), request(nil))
			if v.Decision.Code != c.code || v.Forward != (c.code == "allowed") {
				t.Errorf("%s, forward %v; want %s", v.Decision.Code, v.Forward, c.code)
			}
		})
	}
}

func introspection() guard.Introspection {
	return guard.Introspection{URL: "https://i.test/introspect", ClientID: "edge", ClientSecret: "s", Timeout: time.Second}
}

// Going on is counted each time, and said now and then.
func TestGoingOnThoughBehindIsTold(t *testing.T) {
	t.Parallel()
	w := calm()
	w.lag = time.Minute
	g, m := metered(t, w, func(c *guard.Config) { c.Alive = guard.Alive{MaxLag: 30 * time.Second, Behind: guard.Continue} })
	for range 5 {
		if v := g.Check(t.Context(), request(nil)); !v.Forward {
			t.Fatalf("denied: %s", v.Body)
		}
	}
	if n := strings.Count(w.log.String(), "revocations are behind"); len(m.behind) != 5 || n != 1 {
		t.Errorf("counted %d times, said %d times", len(m.behind), n)
	}
}

// A route without tokens does not care.
func TestARouteWithoutTokensNeedsNoRevocations(t *testing.T) {
	t.Parallel()
	w := calm()
	w.lag = time.Hour
	g := build(t, w, func(c *guard.Config) { c.Identify, c.Authorize, c.Limits = guard.None, false, nil })
	if v := g.Check(t.Context(), request(nil)); !v.Forward {
		t.Errorf("denied: %s", v.Body)
	}
}
