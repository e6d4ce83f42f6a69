package guard_test

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func withCookie(c *guard.Config) {
	c.Cookie = guard.Cookie{Name: "__Host-at", Origins: []string{"https://app.test"}}
}

// S39: the token comes from the header or from the cookie; where both speak they must say the same.
func TestATokenComesFromTheHeaderOrTheCookie(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		header map[string][]string
		token  string // what is verified
		code   string
	}{
		"header":                    {map[string][]string{"authorization": {"Bearer a"}}, "a", "allowed"},
		"cookie":                    {map[string][]string{"cookie": {"x=1; __Host-at=b; y=2"}}, "b", "allowed"},
		"cookie of several lines":   {map[string][]string{"cookie": {"x=1", "__Host-at=b"}}, "b", "allowed"},
		"both, the same":            {map[string][]string{"authorization": {"Bearer a"}, "cookie": {"__Host-at=a"}}, "a", "allowed"},
		"both, another":             {map[string][]string{"authorization": {"Bearer a"}, "cookie": {"__Host-at=b"}}, "", "two_tokens"},
		"cookie beside a password":  {map[string][]string{"authorization": {"Basic eDp5"}, "cookie": {"__Host-at=b"}}, "", "two_tokens"},
		"cookie twice":              {map[string][]string{"cookie": {"__Host-at=b; __Host-at=b"}}, "", "two_tokens"},
		"cookie twice, two lines":   {map[string][]string{"cookie": {"__Host-at=b", " __Host-at = c"}}, "", "two_tokens"},
		"cookie of another case":    {map[string][]string{"cookie": {"__host-at=b"}}, "", "token_missing"},
		"emptied cookie":            {map[string][]string{"cookie": {"__Host-at="}}, "", "token_missing"},
		"emptied cookie and header": {map[string][]string{"authorization": {"Bearer a"}, "cookie": {"__Host-at="}}, "a", "allowed"},
	} {
		w := calm()
		verified := ""
		verify := w.verify
		w.verify = func(token string) (principal.Principal, error) {
			verified = token
			return verify(token)
		}
		v := build(t, w, withCookie).Check(t.Context(), request(func(r *guard.Request) { r.Header = c.header }))
		if v.Decision.Code != c.code || verified != c.token {
			t.Errorf("%s: %s by token %q, want %s by %q", name, v.Decision.Code, verified, c.code, c.token)
		}
	}
}

// Cookies are not looked at where the configuration names none.
func TestACookieIsNoTokenUnlessItIsNamed(t *testing.T) {
	t.Parallel()
	v := build(t, calm(), nil).Check(t.Context(), request(func(r *guard.Request) { r.Header = map[string][]string{"cookie": {"__Host-at=b"}} }))
	if v.Decision.Code != "token_missing" {
		t.Errorf("%s", v.Decision.Code)
	}
}

// S28: what a cookie may change is proved to come from the site itself.
func TestAnUnsafeRequestByCookieNeedsProofOfItsOrigin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method string
		header map[string][]string
		bearer bool
		code   string
	}{
		"read":                         {"GET", nil, false, "allowed"},
		"read from another site":       {"GET", map[string][]string{"sec-fetch-site": {"cross-site"}}, false, "allowed"},
		"WebSocket":                    {"GET", map[string][]string{"upgrade": {"websocket"}, "origin": {"https://evil.test"}}, false, "same_origin_unproved"},
		"own WebSocket":                {"GET", map[string][]string{"upgrade": {"websocket"}, "sec-fetch-site": {"same-origin"}}, false, "allowed"},
		"no proof":                     {"POST", nil, false, "same_origin_unproved"},
		"own page":                     {"POST", map[string][]string{"sec-fetch-site": {"same-origin"}}, false, "allowed"},
		"a neighbour's page":           {"DELETE", map[string][]string{"sec-fetch-site": {"same-site"}}, false, "same_origin_unproved"},
		"another site's page":          {"POST", map[string][]string{"sec-fetch-site": {"cross-site"}, "origin": {"https://evil.test"}}, false, "same_origin_unproved"},
		"typed by hand":                {"POST", map[string][]string{"sec-fetch-site": {"none"}}, false, "same_origin_unproved"},
		"said twice":                   {"POST", map[string][]string{"sec-fetch-site": {"same-origin", "cross-site"}}, false, "same_origin_unproved"},
		"a named origin":               {"PUT", map[string][]string{"origin": {"https://app.test"}}, false, "allowed"},
		"a named origin, cross-site":   {"PUT", map[string][]string{"origin": {"https://app.test"}, "sec-fetch-site": {"cross-site"}}, false, "allowed"},
		"an origin like it":            {"PUT", map[string][]string{"origin": {"https://app.test.evil.test"}}, false, "same_origin_unproved"},
		"no origin":                    {"PUT", map[string][]string{"origin": {"null"}}, false, "same_origin_unproved"},
		"origins, one of them":         {"PUT", map[string][]string{"origin": {"https://app.test", "https://evil.test"}}, false, "same_origin_unproved"},
		"a method that nobody knows":   {"BREW", nil, false, "same_origin_unproved"},
		"by the header, no proof":      {"POST", nil, true, "allowed"},
		"by both, the same, another's": {"POST", map[string][]string{"cookie": {"__Host-at=a"}, "sec-fetch-site": {"cross-site"}}, true, "allowed"},
	} {
		header := map[string][]string{"cookie": {"__Host-at=a"}}
		if c.bearer {
			header = map[string][]string{"authorization": {"Bearer a"}}
		}
		for n, v := range c.header {
			header[n] = v
		}
		for _, identify := range []guard.Identify{guard.Required, guard.Optional} {
			g := build(t, calm(), func(c *guard.Config) { withCookie(c); c.Identify = identify })
			v := g.Check(t.Context(), request(func(r *guard.Request) { r.Method, r.Header = c.method, header }))
			if v.Decision.Code != c.code || v.Forward != (c.code == "allowed") {
				t.Errorf("%s, %s: %s, want %s", name, identify, v.Decision.Code, c.code)
			}
		}
	}
}

// S54: the upstream does not get the means by which it could be asked in the caller's name.
func TestTheTokenCookieStaysAtTheEdge(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"__Host-at=a": "", "x=1; __Host-at=a;y=2": "x=1; y=2"} {
		r := request(func(r *guard.Request) { r.Header = map[string][]string{"cookie": {given}} })
		v := build(t, calm(), withCookie).Check(t.Context(), r)
		if got, set := v.SetHeaders["Cookie"]; !v.Forward || !set || got != want {
			t.Errorf("%q goes on as %q, set %v", given, got, set)
		}
		kept := build(t, calm(), func(c *guard.Config) { withCookie(c); c.Cookie.Keep = true }).Check(t.Context(), r)
		if _, set := kept.SetHeaders["Cookie"]; !kept.Forward || set {
			t.Errorf("%q is changed where it shall go on", given)
		}
	}
	v := build(t, calm(), withCookie).Check(t.Context(), request(func(r *guard.Request) { r.Header["cookie"] = []string{"x=1"} }))
	if _, set := v.SetHeaders["Cookie"]; set {
		t.Error("other cookies are written anew")
	}
}

// S49: a token that is bound to a key is nobody's without the proof, however it comes.
func TestABoundTokenIsNoBearerToken(t *testing.T) {
	t.Parallel()
	w := calm()
	w.verify = func(string) (principal.Principal, error) {
		return principal.Principal{Subject: "u1", Issuer: "i", Thumbprint: "k"}, nil
	}
	for _, identify := range []guard.Identify{guard.Required, guard.Optional} {
		g := build(t, w, func(c *guard.Config) { withCookie(c); c.Identify = identify })
		for _, header := range []map[string][]string{{"authorization": {"Bearer a"}}, {"authorization": {"bearer a"}}, {"cookie": {"__Host-at=a"}}} {
			if v := g.Check(t.Context(), request(func(r *guard.Request) { r.Header = header })); v.Forward || v.Status != 401 || v.Decision.Code != "token_bound" {
				t.Errorf("%s, %v: %d %s", identify, header, v.Status, v.Decision.Code)
			}
		}
	}
}

// A route without tokens looks at none, and its upstream is told of nobody.
func TestAnAnonymousRouteLooksAtNoToken(t *testing.T) {
	t.Parallel()
	w := calm()
	w.verify = func(string) (principal.Principal, error) { panic("a token is looked at") }
	g := build(t, w, func(c *guard.Config) { c.Identify, c.Limits = guard.None, c.Limits[:1] })
	for _, header := range []map[string][]string{nil, {"authorization": {"Bearer bad"}}, {"authorization": {"DPoP bad"}}, {"cookie": {"__Host-at=a"}}} {
		v := g.Check(t.Context(), request(func(r *guard.Request) { r.Header = header }))
		if !v.Forward || v.SetHeaders["X-Gatehouse-Subject"] != "" || w.asked[len(w.asked)-1].Subject.Type != "anonymous" {
			t.Errorf("%v: forward %v, headers %v", header, v.Forward, v.SetHeaders)
		}
	}
}

func FuzzCookie(f *testing.F) {
	f.Add("x=1; __Host-at=a", "Bearer a")
	f.Add("__Host-at=a;__Host-at=", "")
	f.Fuzz(func(t *testing.T, cookie, authorization string) {
		w := calm()
		var verified []string
		verify := w.verify
		w.verify = func(token string) (principal.Principal, error) {
			verified = append(verified, token)
			return verify(token)
		}
		header := map[string][]string{"cookie": {cookie}}
		if authorization != "" {
			header["authorization"] = []string{authorization}
		}
		v := build(t, w, withCookie).Check(t.Context(), request(func(r *guard.Request) { r.Header = header }))
		if v.Status == 500 || v.Forward != (len(verified) == 1) {
			t.Errorf("%q, %q: status %d, verified %q", cookie, authorization, v.Status, verified)
		}
		again := v.SetHeaders["Cookie"]
		if v.Forward && again != "" {
			if v := build(t, w, withCookie).Check(t.Context(), request(func(r *guard.Request) { r.Header = map[string][]string{"cookie": {again}} })); v.Decision.Code != "token_missing" {
				t.Errorf("%q goes on as %q, which holds a token", cookie, again)
			}
		}
	})
}
