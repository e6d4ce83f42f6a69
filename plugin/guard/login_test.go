package guard_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func withLogin(c *guard.Config) {
	c.Login = guard.Login{URL: "https://login.test/in?client=a", Parameter: "return_to", Origin: "https://app.test"}
}

// opened is a page that a person opens in a browser, without a token.
func opened(change func(*guard.Request)) guard.Request {
	return request(func(r *guard.Request) {
		r.Header = map[string][]string{"sec-fetch-mode": {"navigate"}, "accept": {"text/html,*/*;q=0.8"}}
		if change != nil {
			change(r)
		}
	})
}

func TestABrowserWithoutATokenIsSentToTheLogin(t *testing.T) {
	t.Parallel()
	w := calm()
	w.revoked = true
	g := build(t, w, withLogin)
	for code, change := range map[string]func(*guard.Request){
		"token_missing": func(r *guard.Request) { r.Query = "a=1&b=https://evil.test" },
		"session_revoked": func(r *guard.Request) {
			r.Header["authorization"] = []string{"Bearer a"}
			delete(r.Header, "sec-fetch-mode")
		},
	} {
		v := g.Check(t.Context(), opened(change))
		to, err := url.Parse(v.Header["Location"])
		if err != nil || v.Forward || v.Status != 303 || v.Decision.Code != code || v.Decision.Allowed || v.Header["Cache-Control"] != "no-store" || v.Header["X-Gatehouse-Decision"] == "" {
			t.Fatalf("%s: %d %v", code, v.Status, v.Header)
		}
		want := "https://app.test/orders/o1"
		if code == "token_missing" {
			want += "?a=1&b=https://evil.test"
		}
		if to.Host != "login.test" || to.Query().Get("client") != "a" || to.Query().Get("return_to") != want {
			t.Errorf("%s: sent to %s", code, to)
		}
	}
}

// What a script fetches, what changes something, and what is no question of who asks gets a problem.
func TestOnlyAPageThatAPersonOpensIsRedirected(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*guard.Request){
		"a fetch":                  func(r *guard.Request) { r.Header["sec-fetch-mode"] = []string{"cors"} },
		"an image":                 func(r *guard.Request) { r.Header["sec-fetch-mode"] = []string{"no-cors"} },
		"a form":                   func(r *guard.Request) { r.Method = "POST" },
		"a program":                func(r *guard.Request) { r.Header = map[string][]string{"accept": {"application/json"}} },
		"a program that says none": func(r *guard.Request) { r.Header = nil },
		"an ambiguous path":        func(r *guard.Request) { r.Path = "//evil.test" },
	} {
		if v := build(t, calm(), withLogin).Check(t.Context(), opened(change)); v.Status < 400 || len(v.Body) == 0 {
			t.Errorf("%s: %d %v", name, v.Status, v.Header)
		}
	}
	w := calm()
	w.decide = func(authzen.Request) (authzen.Response, error) { return authzen.Response{}, nil }
	if v := build(t, w, withLogin).Check(t.Context(), opened(func(r *guard.Request) { r.Header["authorization"] = []string{"Bearer a"} })); v.Status != 403 {
		t.Errorf("denied by policy: %d", v.Status)
	}
	if v := build(t, calm(), nil).Check(t.Context(), opened(nil)); v.Status != 401 {
		t.Errorf("where no log-in is named: %d", v.Status)
	}
	circle := build(t, calm(), func(c *guard.Config) { c.Login.URL = "/login?x=1" })
	if v := circle.Check(t.Context(), opened(func(r *guard.Request) { r.Path = "/login" })); v.Status != 401 {
		t.Errorf("the log-in itself: %d", v.Status)
	}
}

// S51: nothing that the request says chooses the host to which the browser goes, or comes back.
func TestTheLoginIsNoOpenRedirect(t *testing.T) {
	t.Parallel()
	g := build(t, calm(), func(c *guard.Config) { c.Login = guard.Login{URL: "/login", Parameter: "next"} })
	for _, r := range []guard.Request{
		opened(func(r *guard.Request) {
			r.Host = "evil.test"
			r.Header["host"] = []string{"evil.test"}
			r.Header["x-forwarded-host"] = []string{"evil.test"}
		}),
		opened(func(r *guard.Request) { r.Path = "//evil.test/" }),
		opened(func(r *guard.Request) { r.Path = `/\evil.test/` }),
		opened(func(r *guard.Request) { r.Path = "/%2f/evil.test" }),
		opened(func(r *guard.Request) { r.Path = "https://evil.test/" }),
		opened(func(r *guard.Request) { r.Query = "x\r\nLocation: https://evil.test" }),
		opened(func(r *guard.Request) { r.Query = "&next=//evil.test" }),
		opened(func(r *guard.Request) { r.Query = strings.Repeat("a", 4096) }),
	} {
		v := g.Check(t.Context(), r)
		if v.Status == 400 {
			continue
		}
		to, err := url.Parse(v.Header["Location"])
		if err != nil || v.Status != 303 || to.Host != "" || to.Path != "/login" || len(to.Query()["next"]) != 1 {
			t.Errorf("%q %q: %d to %q", r.Path, r.Query, v.Status, v.Header["Location"])
			continue
		}
		if next := to.Query().Get("next"); !strings.HasPrefix(next, "/orders/o1") || len(v.Header["Location"]) > 8<<10 || strings.ContainsAny(v.Header["Location"], "\r\n") {
			t.Errorf("comes back to %q", next)
		}
	}
	for _, bad := range []guard.Login{
		{URL: "//evil.test"}, {URL: `/\evil.test`}, {URL: "javascript:alert(1)"}, {URL: "http://login.test"}, {URL: "https://u@login.test/"}, {URL: "https://login.test/#x"},
		{URL: "login"}, {URL: "https://"}, {URL: "/login", Parameter: "a b"}, {URL: "/login?next=1", Parameter: "next"}, {URL: "/login", Origin: "https://app.test/"},
	} {
		c := config()
		if c.Login = bad; c.Validate() == nil || !strings.Contains(c.Validate().Error(), "config.login.") {
			t.Errorf("%+v is taken: %v", bad, c.Validate())
		}
	}
}

// FuzzLogin holds where browsers are sent, and sent back to, against the standard library's reader of URLs (S51).
func FuzzLogin(f *testing.F) {
	f.Add("/orders/o1", "a=1")
	f.Add("//evil.test", "")
	f.Add(`/\evil.test`, "//evil.test")
	g := build(f, calm(), func(c *guard.Config) { c.Login = guard.Login{URL: "/login", Parameter: "next"} })
	f.Fuzz(func(t *testing.T, path, query string) {
		v := g.Check(t.Context(), opened(func(r *guard.Request) { r.Path, r.Query = path, query }))
		if v.Status != 303 {
			return
		}
		to, err := url.Parse(v.Header["Location"])
		if err != nil || to.Host != "" || to.Path != "/login" || len(to.Query()) > 1 {
			t.Fatalf("%q %q: to %q", path, query, v.Header["Location"])
		}
		base := &url.URL{Scheme: "https", Host: "app.test"}
		if back, err := base.Parse(to.Query().Get("next")); err == nil && back.Host != "app.test" {
			t.Errorf("%q %q: back to %q", path, query, back)
		}
	})
}
