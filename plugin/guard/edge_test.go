package guard_test

import (
	"context"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// S39: where tokens are not looked at, an upstream may still look; two are refused there too, and in observe mode.
func TestTwoTokensAreRefusedOnEveryRoute(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*guard.Config){
		"identify none": func(c *guard.Config) { c.Identify, c.Authorize, c.Limits = guard.None, false, nil },
		"observe":       func(c *guard.Config) { c.Mode = guard.Observe },
	} {
		v := build(t, calm(), change).Check(t.Context(), request(func(r *guard.Request) { r.Header["authorization"] = []string{"Bearer a", "Bearer b"} }))
		if v.Forward || v.Status != 400 {
			t.Errorf("%s: forward %v, status %d", name, v.Forward, v.Status)
		}
	}
}

// S54: an identity that a header cannot carry unchanged is no identity: HTTP drops spaces around a value.
func TestAnIdentityThatAHeaderWouldChangeIsRefused(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{" admin", "admin ", "\tadmin", "a\nb", "a\x00b", "a\xff"} {
		w := calm()
		w.verify = func(string) (principal.Principal, error) {
			return principal.Principal{Subject: subject, Issuer: "i"}, nil
		}
		if v := build(t, w, nil).Check(t.Context(), request(nil)); v.Forward {
			t.Errorf("subject %q goes on as %q", subject, v.SetHeaders["X-Gatehouse-Subject"])
		}
	}
}

// S54: one role is one entry of the list.
func TestARoleCannotHoldAnother(t *testing.T) {
	t.Parallel()
	w := calm()
	w.verify = func(string) (principal.Principal, error) {
		return principal.Principal{Subject: "u1", Issuer: "i", Roles: []string{"customer,admin"}}, nil
	}
	if v := build(t, w, nil).Check(t.Context(), request(nil)); v.Forward && strings.Contains(v.SetHeaders["X-Gatehouse-Roles"], ",admin") {
		t.Errorf("roles %q", v.SetHeaders["X-Gatehouse-Roles"])
	}
}

// S55: a path with a slash at its end is another path; upstreams differ in what they make of it.
func TestASlashAtTheEndIsNotIgnored(t *testing.T) {
	t.Parallel()
	g := build(t, calm(), nil)
	for _, path := range []string{"/orders/", "/orders/o1/"} {
		if v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = path })); v.Forward {
			t.Errorf("%q is decided as another path", path)
		}
	}
}

// S56: a decision point that answers nonsense as its id cannot write our headers.
func TestADecisionIDCannotForgeAHeader(t *testing.T) {
	t.Parallel()
	for _, allow := range []bool{true, false} {
		w := calm()
		w.decide = func(authzen.Request) (authzen.Response, error) {
			return authzen.Response{Decision: allow, Context: &authzen.ResponseContext{DecisionID: "d\r\nSet-Cookie: a=b"}}, nil
		}
		v := build(t, w, nil).Check(t.Context(), request(nil))
		for _, h := range []map[string]string{v.Header, v.SetHeaders} {
			if strings.ContainsAny(h["X-Gatehouse-Decision"], "\r\n") {
				t.Errorf("allow %v: header %q", allow, h["X-Gatehouse-Decision"])
			}
		}
	}
}

// An API that is only observed must get what it would get: who asks, although a limit is spent.
func TestObserveStillIdentifies(t *testing.T) {
	t.Parallel()
	w := calm()
	w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, nil }
	v := build(t, w, func(c *guard.Config) { c.Mode = guard.Observe }).Check(t.Context(), request(nil))
	if !v.Forward || v.SetHeaders["X-Gatehouse-Subject"] != "u1" || v.Decision.Code != "rate_limited" {
		t.Errorf("forward %v, code %s, subject %q", v.Forward, v.Decision.Code, v.SetHeaders["X-Gatehouse-Subject"])
	}
}

// An ended session's identity is not told, even where nothing is stopped.
func TestObserveDoesNotVouchForAnEndedSession(t *testing.T) {
	t.Parallel()
	w := calm()
	w.revoked = true
	v := build(t, w, func(c *guard.Config) { c.Mode = guard.Observe }).Check(t.Context(), request(nil))
	if !v.Forward || v.SetHeaders["X-Gatehouse-Subject"] != "" || v.SetHeaders["X-Gatehouse-Roles"] != "" {
		t.Errorf("forward %v, headers %v", v.Forward, v.SetHeaders)
	}
}

// S53, S56: what would silently check nothing is refused at start.
func TestAConfigurationThatWouldCheckNothingIsRefused(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]func(*guard.Config){
		"config.mode":              func(c *guard.Config) { c.Mode = "log" },
		"config.identify":          func(c *guard.Config) { c.Identify = "maybe" },
		"config.limits[1].key":     func(c *guard.Config) { c.Limits[0].Key = "clientid" },
		"config.limits[1].rate":    func(c *guard.Config) { c.Limits[0].Rate = limit.Rate{} },
		"config.issuers[2].issuer": func(c *guard.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) },
		"config.resources[4]": func(c *guard.Config) {
			c.Resources = append(c.Resources, guard.Resource{Pattern: "/orders/{other}", Type: "x"})
		},
		"config.resources[1]":     func(c *guard.Config) { c.Resources[0].Pattern = "/orders/{id" },
		"config.resources[2]":     func(c *guard.Config) { c.Resources[1].Pattern = "/orders/" },
		"config.pdp.timeout_ms":   func(c *guard.Config) { c.PDP.Timeout = 0 },
		"config.pdp.token":        func(c *guard.Config) { c.PDP.Token = "two words" },
		"config.pdp.cert_file":    func(c *guard.Config) { c.PDP.TLS.Key = "/key.pem" },
		"config.challenge.action": func(c *guard.Config) { c.Challenge.When = guard.Always },
	} {
		cfg := config()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), path+":") {
			t.Errorf("no %q in: %v", path, err)
		}
	}
}

// S56: whatever breaks, wherever, Check answers.
func TestAPanicAnywhereIsAnAnswer(t *testing.T) {
	t.Parallel()
	w := calm()
	g := build(t, w, nil, func(p *guard.Parts) { p.NewID = func() string { panic("no entropy") } })
	w.decide = func(authzen.Request) (authzen.Response, error) { return authzen.Response{}, nil }
	if v := g.Check(context.Background(), request(nil)); v.Forward || v.Status != 500 {
		t.Errorf("forward %v, status %d", v.Forward, v.Status)
	}
}

// FuzzCanonical holds the paths that go on against the standard library's two readers of paths (S55).
func FuzzCanonical(f *testing.F) {
	for _, seed := range []string{"/orders/o1", "/orders/caf%C3%A9", "/orders/%2e%2e/x", "/orders/a%20b", "/orders/", "/orders/o1;x", "/orders/%252e"} {
		f.Add(seed)
	}
	g := build(f, calm(), func(c *guard.Config) { c.Limits, c.Authorize = nil, false })
	f.Fuzz(func(t *testing.T, sent string) {
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = sent }))
		if !v.Forward {
			if v.Status != 400 {
				t.Errorf("%q: status %d", sent, v.Status)
			}
			return
		}
		once, err := url.PathUnescape(sent)
		if err != nil {
			t.Fatalf("%q goes on: %v", sent, err)
		}
		if twice, err := url.PathUnescape(once); err != nil || twice != once {
			t.Errorf("%q goes on and can be decoded twice", sent)
		}
		if clean := path.Clean(once); clean != once && clean+"/" != once {
			t.Errorf("%q goes on; cleaned it is %q", sent, clean)
		}
		if strings.Count(once, "/") != strings.Count(sent, "/") {
			t.Errorf("%q goes on with other segments than %q", sent, once)
		}
	})
}
