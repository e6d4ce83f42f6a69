package forwardauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const file = `
_format_version: "3.0"
services:
  - name: api
    url: http://api/base
    routes:
      - {name: things, paths: [/things], plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]}
      - {name: hosted, hosts: [a.test], methods: [PUT], strip_path: false, plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]}
      - {name: bare, paths: [/bare], strip_path: false}
`

// asked is a guard that answers what the test says.
type asked struct {
	got    guard.Request
	answer func(guard.Request) guard.Verdict
}

func (a *asked) Check(_ context.Context, r guard.Request) guard.Verdict {
	a.got = r
	if a.answer == nil {
		return guard.Verdict{Forward: true, SetHeaders: map[string]string{"X-Gatehouse-Subject": "ada", "X-Gatehouse-Tenant": ""}}
	}
	return a.answer(r)
}

// handler is one over file, with its guard and its log.
func handler(t testing.TB, proxy Proxy, change func(*Options)) (http.Handler, *asked, *bytes.Buffer) {
	t.Helper()
	g, log := &asked{}, &bytes.Buffer{}
	routes, err := Load([]byte(file), proxy, nil, func(guard.Config) (kong.Handler, error) { return g, nil })
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Proxy: proxy, Routes: routes, NewID: func() string { return "d-edge" }, Log: telemetry.Logger(log, slog.LevelInfo)}
	if change != nil {
		change(&o)
	}
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return h.HTTP(), g, log
}

// ask sends what a proxy would; headers are name, value pairs.
func ask(h http.Handler, method, target string, headers ...string) *httptest.ResponseRecorder {
	r := &http.Request{Method: method, RequestURI: target, Host: "guard.test", Header: http.Header{}, RemoteAddr: "127.0.0.1:1"}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
			continue
		}
		r.Header.Add(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func code(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var p web.ProblemDocument
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Errorf("%d %q: %v", w.Code, w.Body, err)
	}
	return p.Code
}

func TestEachProxyTellsOfTheRequestInItsOwnWords(t *testing.T) {
	t.Parallel()
	const token = "Bearer t"
	forwarded := []string{
		"X-Forwarded-Method", "PUT", "X-Forwarded-Host", "a.test", "X-Forwarded-Uri", "/things/1?q=%2f", "X-Forwarded-For", "203.0.113.9, 192.0.2.1",
		"X-Forwarded-Proto", "https", "Authorization", token,
	}
	for proxy, told := range map[Proxy]struct {
		method, target string
		headers        []string
	}{
		NGINX: {"GET", "/check", []string{
			"X-Original-Method", "PUT", "X-Original-Host", "a.test", "X-Original-URI", "/things/1?q=%2f", "X-Real-IP", "192.0.2.1", "Authorization", token,
		}},
		Traefik: {"GET", "/check", forwarded},
		Caddy:   {"GET", "/check", forwarded},
		Envoy:   {"PUT", "/check/things/1?q=%2f", []string{"Host", "a.test", "X-Forwarded-For", "203.0.113.9, 192.0.2.1", "Authorization", token}},
	} {
		h, g, _ := handler(t, proxy, nil)
		w := ask(h, told.method, told.target, told.headers...)
		if w.Code != 200 {
			t.Errorf("%s: %d %s", proxy, w.Code, w.Body)
			continue
		}
		// S54: the empty header is there too, so that the proxy overwrites the client's.
		if v, there := w.Header()["X-Gatehouse-Tenant"]; !there || len(v) != 1 || v[0] != "" || w.Header().Get("X-Gatehouse-Subject") != "ada" {
			t.Errorf("%s: %v", proxy, w.Header())
		}
		r := g.got
		if r.Method != "PUT" || r.Path != "/things/1" || r.Query != "q=%2f" || r.Host != "a.test" || r.Addr != netip.MustParseAddr("192.0.2.1") || r.Route != "hosted" {
			t.Errorf("%s: the guard got %+v", proxy, r)
		}
		if r.UpstreamPath != "/base/things/1" || r.Header["authorization"][0] != token || r.Header["host"][0] != "a.test" {
			t.Errorf("%s: the guard got %+v", proxy, r)
		}
		for _, own := range []string{"x-original-uri", "x-real-ip", "x-forwarded-uri", "x-forwarded-for"} {
			if len(r.Header[own]) > 0 {
				t.Errorf("%s: %s is among the client's headers", proxy, own)
			}
		}
	}
}

// S15: only the configured proxy's headers are believed, and only one of each; the address is the one that the proxy wrote.
func TestTheWordsOfOtherProxiesAreNotBelieved(t *testing.T) {
	t.Parallel()
	nginx := []string{"X-Original-Method", "GET", "X-Original-Host", "x", "X-Original-URI", "/things", "X-Real-IP", "192.0.2.1"}
	traefik := []string{"X-Forwarded-Method", "GET", "X-Forwarded-Host", "x", "X-Forwarded-Uri", "/things", "X-Forwarded-For", "192.0.2.1"}
	for name, c := range map[string]struct {
		proxy   Proxy
		headers []string
	}{
		"Traefik's behind NGINX":       {NGINX, traefik},
		"NGINX's behind Traefik":       {Traefik, nginx},
		"two methods":                  {NGINX, append([]string{"X-Original-Method", "GET"}, nginx...)},
		"two paths":                    {Caddy, append([]string{"X-Forwarded-Uri", "/things"}, traefik...)},
		"two hosts in one":             {NGINX, replaced(nginx, "X-Original-Host", "a,b")},
		"a host with a user":           {NGINX, replaced(nginx, "X-Original-Host", "a@b")},
		"no host":                      {NGINX, replaced(nginx, "X-Original-Host", "")},
		"a method in small letters":    {NGINX, replaced(nginx, "X-Original-Method", "get")},
		"two methods in one":           {NGINX, replaced(nginx, "X-Original-Method", "GET, PUT")},
		"an absolute target":           {NGINX, replaced(nginx, "X-Original-URI", "http://x/things")},
		"no slash":                     {NGINX, replaced(nginx, "X-Original-URI", "things")},
		"a fragment":                   {NGINX, replaced(nginx, "X-Original-URI", "/things#x")},
		"a fragment behind the query":  {NGINX, replaced(nginx, "X-Original-URI", "/things?q#x")},
		"a space":                      {NGINX, replaced(nginx, "X-Original-URI", "/things x")},
		"no address":                   {NGINX, replaced(nginx, "X-Real-IP", "unix:")},
		"an address with a zone":       {NGINX, replaced(nginx, "X-Real-IP", "fe80::1%eth0")},
		"an address with a port":       {Traefik, replaced(traefik, "X-Forwarded-For", "192.0.2.1:80")},
		"a chain that ends in nothing": {Traefik, replaced(traefik, "X-Forwarded-For", "192.0.2.1, ")},
		"two chains":                   {Traefik, append([]string{"X-Forwarded-For", "192.0.2.1"}, traefik...)},
	} {
		h, g, log := handler(t, c.proxy, nil)
		w := ask(h, "GET", "/check", c.headers...)
		want := http.StatusBadRequest
		if c.proxy == NGINX {
			want = http.StatusForbidden // with 400 packed in
		}
		if w.Code != want || code(t, w) != "bad_request" || g.got.Path != "" {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		if !strings.Contains(log.String(), `"code":"bad_request"`) {
			t.Errorf("%s: logged %s", name, log)
		}
	}
	h, g, _ := handler(t, NGINX, func(o *Options) { o.AddressHeader = "CF-Connecting-IP" })
	if w := ask(h, "GET", "/check", append([]string{"CF-Connecting-IP", "2001:db8::1"}, nginx...)...); w.Code != 200 || g.got.Addr != netip.MustParseAddr("2001:db8::1") {
		t.Errorf("configured header: %d %v", w.Code, g.got.Addr)
	}
	if _, err := New(Options{Proxy: NGINX, AddressHeader: "x-original-uri"}); err == nil {
		t.Error("the path is taken for an address")
	}
}

func replaced(headers []string, name, value string) []string {
	out := append([]string(nil), headers...)
	for i := 0; i < len(out); i += 2 {
		if out[i] == name {
			out[i+1] = value
		}
	}
	return out
}

// S53, S55: what no route covers is refused, and a path that could be read in two ways whether or not one does.
func TestOnlyWhatARouteCoversIsAsked(t *testing.T) {
	t.Parallel()
	counted := &meter{}
	h, g, _ := handler(t, Envoy, func(o *Options) { o.Meter = counted })
	for target, want := range map[string]string{
		"/check/other": "route_unknown", "/check/Things": "route_unknown", "/check/bare/x": "route_unguarded", "/check/": "route_unknown",
		"/check/x/../things": "bad_path", "/check//things": "bad_path", "/check/bare/..;/x": "bad_path", "/check/%2e%2e": "bad_path", "/check/x%00": "bad_path",
	} {
		w := ask(h, "GET", target, "X-Forwarded-For", "192.0.2.1")
		if got := code(t, w); got != want || w.Code < 400 || g.got.Path != "" {
			t.Errorf("%s: %d %s, want %s", target, w.Code, got, want)
		}
		if counted.last.Code != want || counted.last.Allowed || counted.last.ID != w.Header().Get("X-Gatehouse-Decision") {
			t.Errorf("%s: counted %+v", target, counted.last)
		}
	}
	for _, target := range []string{"/check", "/checkthings", "/", "/refusal", "http://x/check/things", "*"} {
		if w := ask(h, "GET", target, "X-Forwarded-For", "192.0.2.1"); w.Code != 404 || g.got.Path != "" {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
}

func TestAFileThatWeOrTheProxyCannotDoIsRefused(t *testing.T) {
	t.Parallel()
	const plugin = `{name: gatehouse, config: {identify: none, authorize: false}}`
	with := func(old, new string) string { return strings.Replace(file, old, new, 1) }
	for name, c := range map[string]struct {
		text, want string
		proxy      Proxy
	}{
		"another plugin": {with(plugin, "{name: cors}"), `services[0].routes[0].plugins[0].name: "cors" runs under Kong only`, NGINX},
		"a typo":         {with(plugin, "{name: gatehouse, config: {identfy: none}}"), "services[0].routes[0].plugins[0].config.identfy: unknown field", NGINX},
		"no routes":      {"_format_version: \"3.0\"", "routes: there is none", NGINX},
		"a header of the answer": {
			with("authorize: false", "authorize: false, obligations: {response_headers: [X-Notice]}"),
			"services[0].routes[0].plugins[0].config.obligations.response_headers: caddy cannot", Caddy,
		},
		"answers to preflights": {
			with("authorize: false", "authorize: false, cors: {origins: [\"https://app.test\"]}"), "plugins[0].config.cors.answered_by: ", NGINX,
		},
		"a cookie kept back": {
			with("identify: none, authorize: false", `authorize: false, redis_url: "redis://r", issuers: [{issuer: i, audiences: [a]}], token_cookie: {name: at}`),
			"plugins[0].config.token_cookie.strip: nginx passes", NGINX,
		},
		"one name for two": {
			with("authorize: false", "authorize: false, obligations: {response_headers: [X-Notice], upstream_headers: [x-notice]}"),
			"config.obligations.response_headers[1]", NGINX,
		},
	} {
		_, err := Load([]byte(c.text), c.proxy, nil, func(guard.Config) (kong.Handler, error) { return &asked{}, nil })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := Load([]byte(file), NGINX, nil, func(guard.Config) (kong.Handler, error) { return nil, errors.New("config.pdp: away") }); err == nil || !strings.Contains(err.Error(), "plugins[0].config.pdp: away") {
		t.Errorf("a guard that cannot be made: %v", err)
	}
	routes, err := Load([]byte(file), NGINX, nil, func(guard.Config) (kong.Handler, error) { return &asked{}, nil })
	if err != nil || strings.Join(routes.Rewritten, " ") != "things hosted" || strings.Join(routes.Unguarded, " ") != "bare" {
		t.Errorf("%v, rewritten %q, unguarded %q", err, routes.Rewritten, routes.Unguarded)
	}
	own, err := os.ReadFile("../../kong.yml") // what Kong reads is served as it stands
	if err != nil {
		t.Fatal(err)
	}
	url := func(string) (string, bool) { return "http://x.test/0123456789abcdef0123456789abcdef", true }
	if routes, err = Load(own, NGINX, url, func(c guard.Config) (kong.Handler, error) { return &asked{}, c.Validate() }); err != nil || len(routes.Rewritten)+len(routes.Unguarded) > 0 || strings.Join(routes.Unshown, " ") != "orders" {
		t.Errorf("kong.yml: %v, rewritten %q, unguarded %q, unshown %q", err, routes.Rewritten, routes.Unguarded, routes.Unshown)
	}
	if _, err := New(Options{Proxy: "apache"}); err == nil {
		t.Error("an unknown proxy is served")
	}
}

// FuzzRequest: whatever a proxy tells, nothing panics, and what reaches the guard is what was told, once and whole.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/things/1?q=1", "a.test", "192.0.2.1")
	f.Add("GET", "/things/../x", "a.test:80", "192.0.2.1, ::1")
	f.Add("get", "http://x/things#y", "a,b", "unix:")
	f.Add("PUT", "//things;x?#", "[::1]:8000", "::ffff:192.0.2.1")
	f.Fuzz(func(t *testing.T, method, uri, host, address string) {
		h, g, _ := handler(t, NGINX, nil)
		w := ask(h, "GET", "/check", "X-Original-Method", method, "X-Original-URI", uri, "X-Original-Host", host, "X-Real-IP", address)
		switch w.Code {
		case 200, 401, 403:
		default:
			t.Fatalf("status %d, which auth_request does not know", w.Code)
		}
		r := g.got
		if (w.Code == 200) != (r.Path != "") {
			t.Fatalf("%d although the guard got %+v", w.Code, r)
		}
		if r.Path == "" {
			return
		}
		whole := r.Path
		if strings.Contains(uri, "?") {
			whole += "?" + r.Query
		}
		if r.Method != method || whole != uri || r.Host != host || !r.Addr.IsValid() || r.Path[0] != '/' || strings.ContainsAny(uri, "# \t\r\n\x00") {
			t.Fatalf("%q %q %q %q reached the guard as %+v", method, uri, host, address, r)
		}
	})
}

// What a proxy cannot tell is not waited for: the log names the routes.
func TestFailedLoginsAreNoSignalHere(t *testing.T) {
	t.Parallel()
	const plugin = `{name: gatehouse, config: {identify: none, authorize: false}}`
	text := strings.Replace(file, plugin, plugin+", {name: gatehouse-outcome, config: {redis_url: x}}", 1)
	r, err := Load([]byte(text), NGINX, func(string) (string, bool) { return "", false }, func(guard.Config) (kong.Handler, error) { return nil, nil })
	if err != nil || len(r.Unheard) != 1 {
		t.Errorf("unheard %+v, %v", r, err)
	}
}
