package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"os"
	"strings"
	"testing"

	altcha "github.com/altcha-org/altcha-lib-go"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// behindNGINX is the site behind an nginx with the very configuration of deploy/nginx.conf.
func behindNGINX(t *testing.T) *site {
	t.Helper()
	s, api := serveGuard(t, "nginx")
	text, err := os.ReadFile("../deploy/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := string(text)
	for old, new := range map[string]string{
		"listen 8000;": "listen LISTEN;", "server 127.0.0.1:8102;": "server unix:" + s.socket + ";", "server 127.0.0.1:9000;": "server " + api + ";",
		// What an operator adds for the obligations of this file.
		"    location / {\n": `
    auth_request_set $gatehouse_department $upstream_http_x_department;
    auth_request_set $gatehouse_notice $upstream_http_x_notice;
    add_header X-Notice $gatehouse_notice always;
    location / {
        proxy_set_header X-Department $gatehouse_department;
`,
	} {
		if strings.Count(conf, old) != 1 {
			t.Fatalf("deploy/nginx.conf does not say %q once", old)
		}
		conf = strings.Replace(conf, old, new, 1)
	}
	s.proxy = testenv.NGINX(t, conf)
	s.ready(t)
	return s
}

// S54: the API learns who asks from the guard alone, and what the client says of itself is gone.
func TestNGINXPassesWhatIsAllowedWithTheGuardsIdentity(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	s.decide(authzen.Response{Decision: true, Context: &authzen.ResponseContext{Obligations: map[string]any{
		authzen.UpstreamHeaders: map[string]any{"X-Department": "toys"}, authzen.ResponseHeaders: map[string]any{"X-Notice": "soon"},
	}}})
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	a := s.do(t, "GET", "/orders/o%201?q=%2e%2e//x&y", s.token(t, nil), "X-Gatehouse-Subject", "root", "x-gatehouse-tenant", "root", "X-Gatehouse-Roles", "a",
		"X-Gatehouse-Roles", "b", "X_Gatehouse_Scope", "root", "X-Gatehouse-Assertion", "root", "X-Department", "root", "Traceparent", trace)
	if a.status != 200 || a.body != "GET /orders/o%201?q=%2e%2e//x&y " || a.header.Get("X-Notice") != "soon" {
		t.Errorf("%d %s %v", a.status, a.body, a.header)
	}
	h := <-s.seen
	for name, want := range map[string]string{
		"X-Gatehouse-Subject": "ada", "X-Gatehouse-Roles": "customer,clerk", "X-Department": "toys", "Traceparent": trace,
		"X-Gatehouse-Tenant": "", "X-Gatehouse-Scope": "", "X-Gatehouse-Assertion": "", "X_gatehouse_scope": "",
	} {
		if got := strings.Join(h[http.CanonicalHeaderKey(name)], "|"); got != want {
			t.Errorf("the API got %s: %q, want %q", name, got, want)
		}
	}
	if h.Get("X-Gatehouse-Decision") == "" {
		t.Errorf("the API got no decision: %v", h)
	}
	s.decide(authzen.Response{Decision: true})
	large := strings.Repeat("x", 100_000) // more than NGINX keeps in memory
	a = s.do(t, "POST", "/orders", s.token(t, nil), "X-Department", "root", "X-Original-Method", "GET", "X-Original-URI", "/open", "X-Original-Host", "x", "", large)
	if a.status != 200 || a.body != "POST /orders "+large {
		t.Errorf("a body: %d %.200s", a.status, a.body)
	}
	if a = s.do(t, "POST", "/orders", s.token(t, nil), "Transfer-Encoding", "chunked", "", "5\r\nhello\r\n0\r\n\r\n"); a.status != 200 || a.body != "POST /orders hello" {
		t.Errorf("a body in chunks: %d %s", a.status, a.body)
	}
	if h = <-s.seen; h.Get("X-Department") != "" || len(h.Get("Traceparent")) != 55 {
		t.Errorf("the API got %v", h)
	}
}

// S28, S51: browsers are served as behind Kong: redirects, preflights, and refusals that a page can read.
func TestNGINXServesBrowsersAsTheGuardSays(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	cookie := "at=" + s.token(t, nil)
	if a := s.do(t, "GET", "/page", "", "Cookie", cookie); a.status != 200 {
		t.Errorf("by cookie: %d %s", a.status, a.body)
	}
	a := s.do(t, "GET", "/page/1?q=a%20b", "", "Sec-Fetch-Mode", "navigate")
	if a.status != 303 || a.header.Get("Location") != "https://login.test/in?return_to=https%3A%2F%2Fapp.test%2Fpage%2F1%3Fq%3Da%2520b" || a.header.Get("X-Gatehouse-Decision") == "" {
		t.Errorf("a page without a token: %d %v", a.status, a.header)
	}
	if a := s.do(t, "OPTIONS", "/page", "", "Origin", "https://app.test", "Access-Control-Request-Method", "PUT"); a.status != 200 || !strings.HasPrefix(a.body, "OPTIONS /page") {
		t.Errorf("a preflight: %d %s", a.status, a.body)
	}
	s.reached.Store(0)
	a = s.do(t, "POST", "/page", "", "Cookie", cookie, "Origin", "https://app.test", "Sec-Fetch-Site", "cross-site")
	s.refused(t, "another site's form", a, 403, "same_origin_unproved")
	if got := a.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://app.test" {
		t.Errorf("a page cannot read why: %v", a.header)
	}
	s.refused(t, "a foreign preflight", s.do(t, "OPTIONS", "/page", "", "Origin", "https://evil.test", "Access-Control-Request-Method", "PUT"), 401, "token_missing")
}

func TestNGINXRefusesWithTheGuardsWholeAnswer(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	a := s.do(t, "GET", "/orders/o1", "")
	s.refused(t, "no token", a, 401, "token_missing")
	if got := a.header.Values("WWW-Authenticate"); len(got) != 1 || got[0] != `Bearer realm="gatehouse"` {
		t.Errorf("no token: WWW-Authenticate %q", got)
	}
	a = s.do(t, "GET", "/orders/o1", "nonsense")
	s.refused(t, "a bad token", a, 401, "token_invalid")
	if got := a.header.Values("WWW-Authenticate"); len(got) != 1 || got[0] != `Bearer realm="gatehouse", error="invalid_token"` {
		t.Errorf("a bad token: WWW-Authenticate %q", got)
	}
	s.decide(authzen.Response{Context: &authzen.ResponseContext{Need: &authzen.Need{ACR: "mfa", MaxAge: 60}}})
	a = s.do(t, "DELETE", "/orders/o1", s.token(t, nil))
	s.refused(t, "a step-up", a, 401, "insufficient_user_authentication")
	if !strings.Contains(a.header.Get("WWW-Authenticate"), `acr_values="mfa", max_age="60"`) {
		t.Errorf("a step-up: %v", a.header)
	}
	s.decide(authzen.Response{})
	s.refused(t, "denied", s.do(t, "DELETE", "/orders/o1", s.token(t, nil)), 403, "forbidden")
	s.refused(t, "a body with it", s.do(t, "POST", "/orders", s.token(t, nil), "", strings.Repeat("x", 100_000)), 403, "forbidden")
	s.refused(t, "a body in chunks", s.do(t, "POST", "/orders", s.token(t, nil), "Transfer-Encoding", "chunked", "", "5\r\nhello\r\n0\r\n\r\n"), 403, "forbidden")
	if a := s.do(t, "HEAD", "/orders/o1", s.token(t, nil)); a.status != 403 || a.header.Get("X-Gatehouse-Decision") == "" {
		t.Errorf("HEAD: %d %v", a.status, a.header)
	}
	s.refused(t, "no rule", s.do(t, "GET", "/orders/o1/x", s.token(t, nil)), 403, "resource_unknown")
	s.refused(t, "no route", s.do(t, "GET", "/elsewhere", s.token(t, nil)), 403, "route_unknown")
	s.refused(t, "no method of the route", s.do(t, "GET", "/register", s.token(t, nil)), 403, "route_unknown")
	s.refused(t, "a route without the plugin", s.do(t, "GET", "/open", s.token(t, nil)), 403, "route_unguarded")
	s.refused(t, "two tokens", s.do(t, "GET", "/orders", s.token(t, nil)+", Bearer x"), 400, "two_tokens")
	s.refused(t, "bytes that are no text", s.do(t, "GET", "/orders", s.token(t, nil), "X-Bad", "\xff"), 400, "bad_header")
}

// S63: a limit counts by the client's address, which the client cannot choose (S15).
func TestNGINXPassesLimitsOnWithTheirHeaders(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	for i := range 2 {
		if a := s.do(t, "GET", "/limited", "", "X-Real-IP", fmt.Sprintf("192.0.2.%d", i), "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", i)); a.status != 200 {
			t.Fatalf("request %d: %d %s", i, a.status, a.body)
		}
	}
	s.reached.Store(0)
	a := s.do(t, "GET", "/limited", "", "X-Real-IP", "192.0.2.9", "X-Forwarded-For", "192.0.2.9")
	s.refused(t, "the third of two", a, 429, "rate_limited")
	if a.header.Get("Retry-After") == "" || !strings.Contains(a.header.Get("RateLimit"), `"per-address";r=0`) || a.header.Get("RateLimit-Policy") != `"per-address";q=2;w=3600` {
		t.Errorf("headers %v", a.header)
	}
}

func TestNGINXPassesAChallengeOnAndItsSolutionBack(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	a := s.do(t, "POST", "/register", "", "Content-Length", "0")
	s.refused(t, "no proof of work", a, 403, "challenge_required")
	var given struct{ Challenge json.RawMessage }
	if err := json.Unmarshal([]byte(a.body), &given); err != nil {
		t.Fatal(err)
	}
	payload := work(t, string(given.Challenge))
	if a := s.do(t, "POST", "/register", "", "Content-Length", "0", "X-Gatehouse-Challenge", payload); a.status != 200 {
		t.Fatalf("solved: %d %s", a.status, a.body)
	}
	s.reached.Store(0)
	s.refused(t, "spent", s.do(t, "POST", "/register", "", "Content-Length", "0", "X-Gatehouse-Challenge", payload), 403, "challenge_invalid")
}

// S14: a browser's way through NGINX: the page, its script, the clearance without asking the API, and then the API.
func TestNGINXPassesThePageOnAndTheClearanceBack(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	a := s.do(t, "GET", "/shop", "", "Accept", "text/html", "User-Agent", "Browser/1")
	if a.status != 403 || a.header.Get("Content-Type") != "text/html; charset=utf-8" || !strings.Contains(a.header.Get("Content-Security-Policy"), "script-src 'self';") {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	_, rest, _ := strings.Cut(a.body, `data-gatehouse-challenge="`)
	given, _, _ := strings.Cut(rest, `"`)
	payload := work(t, html.UnescapeString(given))
	for path, kind := range map[string]string{"challenge.js": "text/javascript; charset=utf-8", "challenge.css": "text/css; charset=utf-8"} {
		if a := s.do(t, "GET", "/.well-known/gatehouse/"+path+"?v=1", ""); a.status != 200 || a.header.Get("Content-Type") != kind || a.body == "" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
	}
	s.refused(t, "nothing", s.do(t, "GET", "/.well-known/gatehouse/nothing", ""), 404, "not_found")
	a = s.do(t, "GET", "/shop?q=1", "", "User-Agent", "Browser/1", "X-Gatehouse-Challenge", payload, "X-Gatehouse-Clearance-Only", "true")
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	if a.status != 303 || !strings.HasSuffix(a.header.Get("Location"), "/shop?q=1") || !strings.HasPrefix(cookie, "__Host-gatehouse-clearance=") || s.reached.Load() != 0 {
		t.Fatalf("%d %v, the API was asked %d times", a.status, a.header, s.reached.Load())
	}
	if a := s.do(t, "GET", "/shop?q=1", "", "Accept", "text/html", "User-Agent", "Browser/1", "Cookie", cookie); a.status != 200 || a.body != "GET /shop?q=1 " {
		t.Errorf("cleared: %d %s", a.status, a.body)
	}
	a = s.do(t, "GET", "/shop", "", "User-Agent", "Program/1")
	var p struct{ Challenge json.RawMessage }
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		t.Fatal(err)
	}
	a = s.do(t, "GET", "/shop", "", "User-Agent", "Program/1", "X-Gatehouse-Challenge", work(t, string(p.Challenge)))
	if a.status != 200 || !strings.HasPrefix(a.header.Get("Set-Cookie"), "__Host-gatehouse-clearance=") {
		t.Errorf("with the API's answer: %d %v", a.status, a.header)
	}
}

// work does the work that a challenge asks for.
func work(t *testing.T, challenge string) (payload string) {
	t.Helper()
	var given altcha.Challenge
	if err := json.Unmarshal([]byte(challenge), &given); err != nil {
		t.Fatalf("%s: %v", challenge, err)
	}
	solution, err := altcha.SolveChallenge(given.Challenge, given.Salt, altcha.Algorithm(given.Algorithm), 5000, 0, nil)
	if err != nil || solution == nil {
		t.Fatalf("solve: %v, %v", solution, err)
	}
	text, err := json.Marshal(altcha.Payload{
		Algorithm: given.Algorithm, Challenge: given.Challenge, Number: int64(solution.Number), Salt: given.Salt, Signature: given.Signature,
	})
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(text)
}

// S55: what NGINX and the API could read differently is refused, wherever NGINX's own reading would take it.
func TestNGINXLetsNoPathBeReadInTwoWays(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	token := s.token(t, nil)
	for _, target := range []string{
		"/orders/../open", "/open/../orders/o1", "/orders/%2e%2e/x", "/orders/%2E%2e%2fx", "/orders/o1%2fx", "/orders/o1%2Fx", "/orders/o1%252f", "/orders//o1", "//orders/o1",
		"/orders/o1;x", "/orders/o1%3bx", "/orders/./o1", "/orders/o1/.", "/orders/o1\\x", "/orders/o1%5cx", "/orders/o1%0ax", "/orders/o1%ff",
	} {
		s.refused(t, target, s.do(t, "GET", target, token), 400, "bad_path")
	}
	for _, target := range []string{"/orders/o1#x", "/orders/o1?q#x", "/orders/o1%23x"} {
		if a := s.do(t, "GET", target, token); a.status != 400 || s.reached.Swap(0) != 0 {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	// NGINX answers these itself, in its own words.
	for _, target := range []string{"/orders/o1%00", "/orders/%zz", "orders/o1", "*", "/../orders"} {
		if a := s.do(t, "GET", target, token); a.status != 400 || s.reached.Swap(0) != 0 {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	// The absolute form becomes the origin form, for the guard as for the API; its host is the one that counts.
	if a := s.do(t, "GET", "http://other.test/orders/o1", token); a.status != 200 || a.body != "GET /orders/o1 " {
		t.Errorf("absolute form: %d %s", a.status, a.body)
	}
	s.reached.Store(0)
	s.refused(t, "absolute form", s.do(t, "GET", "http://other.test//orders/../x", token), 400, "bad_path")
	// The guard finds routes by the bytes of the path, so that another spelling is another path.
	s.refused(t, "another spelling", s.do(t, "GET", "/%6frders/o1", token), 403, "route_unknown")
	// What NGINX keeps for itself is not there for clients.
	for _, target := range []string{"/_gatehouse/check", "/_gatehouse/refusal"} {
		if a := s.do(t, "GET", target, token, "X-Gatehouse-Refusal", "eyJzIjozMDJ9"); a.status != 404 || s.reached.Swap(0) != 0 {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

// S56: without the guard nothing passes.
func TestNGINXIsClosedWhileTheGuardIsAway(t *testing.T) {
	t.Parallel()
	s := behindNGINX(t)
	s.stop()
	for _, target := range []string{"/orders", "/limited", "/elsewhere"} {
		if a := s.do(t, "GET", target, s.token(t, nil)); a.status != 500 || s.reached.Load() != 0 {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
}

// S54: a header that the edge comes to vouch for, and that these do not overwrite, would be the client's word.
func TestTheConfigurationsToCopyNameEveryIdentityHeader(t *testing.T) {
	t.Parallel()
	for file, lines := range map[string][]string{
		"../deploy/nginx.conf":    {"proxy_set_header HEADER $gatehouse_", "auth_request_set $gatehouse_LAST $upstream_http_x_gatehouse_LAST;"},
		"../docs/forward-auth.md": {"request_header -HEADER\n", "copy_headers " + strings.Join(principal.IdentityHeaders(), " ") + " Traceparent\n"},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range principal.IdentityHeaders() {
			for _, line := range lines {
				line = strings.NewReplacer("HEADER", name, "LAST", strings.ToLower(strings.TrimPrefix(name, "X-Gatehouse-"))).Replace(line)
				if !strings.Contains(string(text), line) {
					t.Errorf("%s does not say %q", file, line)
				}
			}
		}
	}
}
