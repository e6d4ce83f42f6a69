package guard_test

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

func withCORS(c *guard.Config) {
	c.CORS = guard.CORS{
		Origins: []string{"https://app.test", "https://b.test:8443"}, Methods: []string{"GET", "PUT"}, Headers: []string{"Authorization"}, Expose: []string{"ETag"},
		Credentials: true, MaxAge: 5 * time.Minute,
	}
}

func preflight(origin string) guard.Request {
	return request(func(r *guard.Request) {
		r.Method, r.Header = "OPTIONS", map[string][]string{"origin": {origin}, "access-control-request-method": {"PUT"}, "access-control-request-headers": {"authorization"}}
	})
}

func TestAPreflightIsAnsweredBeforeATokenIsAskedFor(t *testing.T) {
	t.Parallel()
	w := calm()
	w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, nil } // spent
	v := build(t, w, withCORS).Check(t.Context(), preflight("https://b.test:8443"))
	if v.Forward || v.Status != 204 || len(v.Body) > 0 || !v.Decision.Allowed || v.Decision.Code != "preflight" || len(w.asked) > 0 {
		t.Fatalf("%d %+v", v.Status, v.Decision)
	}
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "https://b.test:8443", "Access-Control-Allow-Credentials": "true", "Access-Control-Allow-Methods": "GET, PUT",
		"Access-Control-Allow-Headers": "Authorization", "Access-Control-Max-Age": "300", "Vary": "Origin",
	} {
		if v.Header[name] != want {
			t.Errorf("%s = %q, want %q", name, v.Header[name], want)
		}
	}
}

// The upstream is reached without a token by nothing but a preflight of an allowed origin, and is told of nobody (S54).
func TestAPreflightPassesToAnUpstreamThatAnswersIt(t *testing.T) {
	t.Parallel()
	upstream := func(c *guard.Config) { withCORS(c); c.CORS.Upstream = true }
	w := calm()
	g := build(t, w, upstream)
	r := preflight("https://app.test")
	r.Header["x-gatehouse-subject"] = []string{"admin"}
	v := g.Check(t.Context(), r)
	if subject, set := v.SetHeaders["X-Gatehouse-Subject"]; !v.Forward || !set || subject != "" || len(v.Respond) > 0 || v.Decision.Code != "preflight" {
		t.Errorf("forward %v, headers %v, respond %v", v.Forward, v.SetHeaders, v.Respond)
	}
	if len(w.taken) != 1 || len(w.taken[0]) != 1 || w.taken[0][0].Name != "per-address" {
		t.Errorf("counted by %v", w.taken)
	}
	w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, nil }
	if v := g.Check(t.Context(), preflight("https://app.test")); v.Status != 429 || v.Header["Access-Control-Allow-Origin"] != "https://app.test" {
		t.Errorf("beyond the limit: %d %v", v.Status, v.Header)
	}
}

// S53: what only looks like a preflight goes the whole way.
func TestWhatIsNoPreflightOfAnAllowedOriginNeedsAToken(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*guard.Request){
		"another origin":   func(r *guard.Request) { r.Header["origin"] = []string{"https://evil.test"} },
		"an origin's twin": func(r *guard.Request) { r.Header["origin"] = []string{"https://app.test", "https://app.test"} },
		"null":             func(r *guard.Request) { r.Header["origin"] = []string{"null"} },
		"no origin":        func(r *guard.Request) { delete(r.Header, "origin") },
		"no method asked":  func(r *guard.Request) { delete(r.Header, "access-control-request-method") },
		"another method":   func(r *guard.Request) { r.Method = "POST" },
		"with a body":      func(r *guard.Request) { r.Header["content-length"] = []string{"2"} },
		"in chunks":        func(r *guard.Request) { r.Header["transfer-encoding"] = []string{"chunked"} },
		"in disguise":      func(r *guard.Request) { r.Header["x-http-method-override"] = []string{"DELETE"} },
		"with credentials": func(r *guard.Request) { r.Header["authorization"] = []string{"Basic eDp5"} },
	} {
		for _, upstream := range []bool{false, true} {
			r := preflight("https://app.test")
			change(&r)
			v := build(t, calm(), func(c *guard.Config) { withCORS(c); c.CORS.Upstream = upstream }).Check(t.Context(), r)
			if v.Forward || v.Status != 401 {
				t.Errorf("%s: forward %v, status %d", name, v.Forward, v.Status)
			}
		}
	}
	if v := build(t, calm(), nil).Check(t.Context(), preflight("https://app.test")); v.Status != 401 {
		t.Errorf("where the route says nothing of CORS: %d", v.Status)
	}
}

// A page can read why it was refused: the problem, its decision, and when to come back.
func TestTheEdgesOwnErrorsCanBeReadByAPage(t *testing.T) {
	t.Parallel()
	w := calm()
	w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, nil }
	for _, upstream := range []bool{false, true} {
		g := build(t, w, func(c *guard.Config) { withCORS(c); c.CORS.Upstream = upstream })
		for status, change := range map[int]func(*guard.Request){
			400: func(r *guard.Request) { r.Path = "/a/../b" }, 429: func(r *guard.Request) { delete(r.Header, "authorization") },
		} {
			v := g.Check(t.Context(), request(func(r *guard.Request) { r.Header["origin"] = []string{"https://app.test"}; change(r) }))
			h := v.Header
			if v.Status != status || h["Access-Control-Allow-Origin"] != "https://app.test" || h["Access-Control-Allow-Credentials"] != "true" || h["Vary"] != "Origin" {
				t.Errorf("%d: %v", v.Status, h)
			}
			for _, name := range []string{"X-Gatehouse-Decision", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate", "ETag"} {
				if !strings.Contains(h["Access-Control-Expose-Headers"]+",", name+",") {
					t.Errorf("%s is not exposed: %q", name, h["Access-Control-Expose-Headers"])
				}
			}
		}
		foreign := g.Check(t.Context(), request(func(r *guard.Request) { r.Path = "/a/../b"; r.Header["origin"] = []string{"https://evil.test"} }))
		if _, told := foreign.Header["Access-Control-Allow-Origin"]; told || foreign.Header["Vary"] != "Origin" {
			t.Errorf("another origin: %v", foreign.Header)
		}
	}
}

func TestTheUpstreamsAnswersCanBeReadByAPage(t *testing.T) {
	t.Parallel()
	from := func(origin string) guard.Request {
		return request(func(r *guard.Request) { r.Header["origin"] = []string{origin} })
	}
	v := build(t, calm(), withCORS).Check(t.Context(), from("https://app.test"))
	if !v.Forward || v.Respond["Access-Control-Allow-Origin"] != "https://app.test" || v.Respond["Vary"] != "Origin" {
		t.Errorf("respond %v", v.Respond)
	}
	if v := build(t, calm(), withCORS).Check(t.Context(), from("https://evil.test")); len(v.Respond) != 1 || v.Respond["Vary"] != "Origin" {
		t.Errorf("to another origin: %v", v.Respond)
	}
	if v := build(t, calm(), func(c *guard.Config) { withCORS(c); c.CORS.Upstream = true }).Check(t.Context(), from("https://app.test")); len(v.Respond) > 0 {
		t.Errorf("where the upstream does so itself: %v", v.Respond)
	}
}

// Any origin, and then without credentials: "*" with them is refused at start.
func TestEveryOriginMayReadButNotActForItsVisitors(t *testing.T) {
	t.Parallel()
	v := build(t, calm(), func(c *guard.Config) { c.CORS = guard.CORS{Origins: []string{"*"}} }).Check(t.Context(), preflight("https://any.test"))
	if _, with := v.Header["Access-Control-Allow-Credentials"]; v.Status != 204 || v.Header["Access-Control-Allow-Origin"] != "*" || with {
		t.Errorf("%d %v", v.Status, v.Header)
	}
	for path, cors := range map[string]guard.CORS{
		"config.cors.origins: * and cors.credentials": {Origins: []string{"*"}, Credentials: true},
		"config.cors.origins: expected * alone":       {Origins: []string{"*", "https://app.test"}},
		"config.cors.origins: at least one":           {Credentials: true},
		"config.cors.methods":                         {Origins: []string{"*"}, Methods: []string{"*"}},
		"config.cors.headers":                         {Origins: []string{"*"}, Headers: []string{"X A"}},
		"config.cors.expose":                          {Origins: []string{"*"}, Expose: []string{""}},
		"config.cors.max_age_seconds":                 {Origins: []string{"*"}, MaxAge: -1},
	} {
		c := config()
		c.CORS = cors
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("no %q in: %v", path, err)
		}
	}
	for _, origin := range []string{"", "null", "app.test", "https://app.test/", "https://app.test:443", "http://app.test:80", "https://App.test", "https://*.app.test", "https://u@app.test", "https://", "https://app.test:", "ftp://app.test", "https://a b"} {
		c := config()
		c.CORS.Origins = []string{origin}
		c.Cookie = guard.Cookie{Name: "c", Origins: []string{origin}}
		for _, path := range []string{"config.cors.origins[1]:", "config.token_cookie.origins[1]:"} {
			if err := c.Validate(); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("origin %q: no %q in: %v", origin, path, err)
			}
		}
	}
}
