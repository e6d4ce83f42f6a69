package edge_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// identities has a route for each way to say who asks.
const identities = `
_format_version: "3.0"
_transform: true
services:
  - name: api
    url: http://orders:9000
    routes:
      - name: none
        paths: [/none]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]
      - name: optional
        paths: [/optional]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              identify: optional
              authorize: false
              issuers: &issuers
                - {issuer: "{vault://env/gatehouse-issuer}", jwks_url: "{vault://env/gatehouse-jwks-url}", audiences: [gatehouse-api]}
              redis_url: &redis "{vault://env/gatehouse-redis-url}"
      - name: site
        paths: [/site]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers: *issuers
              redis_url: *redis
              token_cookie: {name: __Host-at, origins: ["https://app.test"]}
              on_unauthenticated: redirect
              login: {url: "https://login.test/in", return_origin: "https://app.test"}
              cors: {origins: ["https://app.test"], credentials: true}
      - name: partner
        paths: [/partner]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers: *issuers
              redis_url: *redis
              limits: [{name: few, key: ip, rate: 2-H}]
              cors: {origins: ["https://app.test"], answered_by: upstream}
      - name: bound
        paths: [/bound]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers: *issuers
              redis_url: *redis
              dpop: {mode: optional, origins: ["https://api.test"]}
      - name: nonced
        paths: [/nonced]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers: *issuers
              redis_url: *redis
              dpop: {mode: required, origins: ["https://api.test"], nonce_seconds: 60, nonce_secret: "{vault://env/gatehouse-challenge-secret}"}
      - name: discovered
        paths: [/discovered]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers:
                - issuer: "{vault://env/other-issuer}"
                  audiences: [orders-api]
                  types: [JWT]
                  require: {typ: Bearer}
                  claims: {roles: [realm_access.roles, /resource_access/my.app/roles], tenant: org.id}
              redis_url: *redis
      - name: opaque
        paths: [/opaque]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers:
                - issuer: https://opaque.test
                  tokens: opaque
                  audiences: [gatehouse-api]
                  claims: {roles: [realm.roles]}
                  introspection: {url: "{vault://env/introspection-url}", client_id: edge, client_secret: "{vault://env/introspection-secret}", cache_seconds: 0}
              redis_url: *redis
`

func identified(t *testing.T, vault map[string]string) *edge {
	t.Helper()
	all := map[string]string{"introspection-url": "http://127.0.0.1:1/", "introspection-secret": "s", "other-issuer": "http://127.0.0.1:1"}
	for name, v := range vault {
		all[name] = v
	}
	e := run(t, []byte(identities), all)
	await.That(t, "the edge serves", func() bool { return e.do(t, "GET", "/optional", e.token(t, nil)).status == 200 })
	e.forget()
	return e
}

// forget drops what the upstream has seen.
func (e *edge) forget() {
	for len(e.seen) > 0 {
		<-e.seen
	}
}

// S54: with none nobody is known whatever the token; with optional a bad one is refused all the same.
func TestEachRouteSaysWhetherItWantsAToken(t *testing.T) {
	t.Parallel()
	e := identified(t, nil)
	for _, token := range []string{"", "bad", e.token(t, nil)} {
		want(t, "none", e.do(t, "GET", "/none", token, "X-Gatehouse-Subject", "admin"), 200, "")
		if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "" {
			t.Errorf("with none the upstream is told of %q", h.Get("X-Gatehouse-Subject"))
		}
	}
	want(t, "optional, none", e.do(t, "GET", "/optional", "", "X-Gatehouse-Subject", "admin"), 200, "")
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "" {
		t.Errorf("anonymous, and the upstream is told of %q", h.Get("X-Gatehouse-Subject"))
	}
	want(t, "optional, bad", e.do(t, "GET", "/optional", "bad"), 401, "token_invalid")
	want(t, "optional, good", e.do(t, "GET", "/optional", e.token(t, map[string]any{"sub": "u1"})), 200, "")
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "u1" {
		t.Errorf("the upstream is told of %q", h.Get("X-Gatehouse-Subject"))
	}
}

// S28, S39, S51: a site's own pages, by a cookie.
func TestABrowserUsesItsCookie(t *testing.T) {
	t.Parallel()
	e := identified(t, nil)
	cookie := "x=1; __Host-at=" + e.token(t, map[string]any{"sub": "u1"})
	want(t, "read", e.do(t, "GET", "/site", "", "Cookie", cookie), 200, "")
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "u1" || h.Get("Cookie") != "x=1" {
		t.Errorf("the upstream got %v", h)
	}
	want(t, "another site's form", e.do(t, "POST", "/site", "", "Cookie", cookie, "Sec-Fetch-Site", "cross-site", "Origin", "https://evil.test"), 403, "same_origin_unproved")
	want(t, "own form", e.do(t, "POST", "/site", "", "Cookie", cookie, "Sec-Fetch-Site", "same-origin"), 200, "")
	want(t, "two tokens", e.do(t, "GET", "/site", e.token(t, nil), "Cookie", cookie), 400, "two_tokens")

	page := e.do(t, "GET", "/site/a?b=c", "", "Sec-Fetch-Mode", "navigate")
	to, err := url.Parse(page.header.Get("Location"))
	if err != nil || page.status != 303 || to.Host != "login.test" || to.Query().Get("return_to") != "https://app.test/site/a?b=c" {
		t.Errorf("a page without a token: %d to %q", page.status, to)
	}
	script := e.do(t, "GET", "/site/a", "", "Sec-Fetch-Mode", "cors", "Origin", "https://app.test")
	want(t, "a script without a token", script, 401, "token_missing")
	if script.header.Get("Access-Control-Allow-Origin") != "https://app.test" || !strings.Contains(script.header.Get("Access-Control-Expose-Headers"), "WWW-Authenticate") {
		t.Errorf("the script cannot read why: %v", script.header)
	}
}

// Preflights pass before a token is asked for, and nothing else does (S53).
func TestAPreflightPassesBeforeAuthentication(t *testing.T) {
	t.Parallel()
	e := identified(t, nil)
	preflight := []string{"Origin", "https://app.test", "Access-Control-Request-Method", "PUT"}
	before := e.upstream.Load()
	a := e.do(t, "OPTIONS", "/site", "", preflight...)
	want(t, "answered by the edge", a, 204, "")
	if a.header.Get("Access-Control-Allow-Origin") != "https://app.test" || a.header.Get("Access-Control-Allow-Credentials") != "true" || !strings.Contains(a.header.Get("Access-Control-Allow-Methods"), "PUT") {
		t.Errorf("header %v", a.header)
	}
	want(t, "another origin", e.do(t, "OPTIONS", "/site", "", "Origin", "https://evil.test", "Access-Control-Request-Method", "PUT"), 401, "token_missing")
	if n := e.upstream.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	a = e.do(t, "GET", "/site", e.token(t, nil), "Origin", "https://app.test")
	want(t, "allowed", a, 200, "")
	if got := a.header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "https://app.test" || !strings.Contains(strings.Join(a.header.Values("Vary"), ","), "Origin") {
		t.Errorf("header %v", a.header)
	}

	before = e.upstream.Load()
	want(t, "passed on", e.do(t, "OPTIONS", "/partner", "", preflight...), 200, "")
	if n := e.upstream.Load() - before; n != 1 {
		t.Errorf("%d preflights reached the upstream", n)
	}
	want(t, "no preflight", e.do(t, "OPTIONS", "/partner", "", "Origin", "https://app.test"), 401, "token_missing")
	spent := e.do(t, "OPTIONS", "/partner", "", preflight...)
	want(t, "beyond the limit", spent, 429, "rate_limited")
	if spent.header.Get("Access-Control-Allow-Origin") != "https://app.test" || spent.header.Get("Retry-After") == "" {
		t.Errorf("header %v", spent.header)
	}
}

// S49: a token that is bound to a key is of use to nobody else, and each proof once.
func TestABoundTokenNeedsItsKey(t *testing.T) {
	t.Parallel()
	e := identified(t, nil)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := `{"crv":"P-256","kty":"EC","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"}`
	thumbprint := sha256.Sum256([]byte(jwk))
	token := e.token(t, map[string]any{"sub": "u1", "cnf": map[string]string{"jkt": b64(thumbprint[:])}})
	nonce := ""
	proof := func(method, url string) string {
		ath := sha256.Sum256([]byte(token))
		payload := fmt.Sprintf(`{"jti":%q,"htm":%q,"htu":%q,"iat":%d,"ath":%q,"nonce":%q}`, rand.Text(), method, url, time.Now().Unix(), b64(ath[:]), nonce)
		input := b64([]byte(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+jwk+`}`)) + "." + b64([]byte(payload))
		sum := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return input + "." + b64(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	once := proof("GET", "https://api.test/bound/1")
	want(t, "with its proof", e.do(t, "GET", "/bound/1?x=1", "", "Authorization", "DPoP "+token, "DPoP", once), 200, "")
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "u1" {
		t.Errorf("the upstream got %v", h)
	}
	before := e.upstream.Load()
	replayed := e.do(t, "GET", "/bound/1", "", "Authorization", "DPoP "+token, "DPoP", once)
	want(t, "the proof again", replayed, 401, "dpop_proof_invalid")
	if !strings.Contains(replayed.header.Get("WWW-Authenticate"), `DPoP realm="gatehouse", algs="ES256 EdDSA PS256 RS256", error="invalid_dpop_proof"`) {
		t.Errorf("WWW-Authenticate %q", replayed.header.Get("WWW-Authenticate"))
	}
	want(t, "for another path", e.do(t, "GET", "/bound/2", "", "Authorization", "DPoP "+token, "DPoP", proof("GET", "https://api.test/bound/1")), 401, "dpop_proof_invalid")
	want(t, "for another method", e.do(t, "DELETE", "/bound/1", "", "Authorization", "DPoP "+token, "DPoP", proof("GET", "https://api.test/bound/1")), 401, "dpop_proof_invalid")
	want(t, "no proof", e.do(t, "GET", "/bound/1", "", "Authorization", "DPoP "+token), 401, "dpop_proof_invalid")
	for _, path := range []string{"/bound/1", "/optional", "/site"} {
		want(t, "as a bearer token at "+path, e.do(t, "GET", path, token), 401, "token_bound")
	}
	if n := e.upstream.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
	want(t, "a bearer token", e.do(t, "GET", "/bound/1", e.token(t, nil)), 200, "")
	asked := e.do(t, "GET", "/nonced", "", "Authorization", "DPoP "+token, "DPoP", proof("GET", "https://api.test/nonced"))
	want(t, "without the nonce that the route asks for", asked, 401, "use_dpop_nonce")
	nonce = asked.header.Get("DPoP-Nonce")
	want(t, "with it", e.do(t, "GET", "/nonced", "", "Authorization", "DPoP "+token, "DPoP", proof("GET", "https://api.test/nonced")), 200, "")
}

// S46: a third party's keys are where its metadata says, and its claims mean what the configuration says. Its ID tokens are none.
func TestAThirdPartysTokensAreTakenByDiscovery(t *testing.T) {
	t.Parallel()
	var keys atomic.Pointer[[]byte]
	var other *httptest.Server
	other = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		set := keys.Load()
		switch {
		case set == nil:
			w.WriteHeader(503)
		case r.URL.Path == "/realms/shop/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q}`, other.URL+"/realms/shop", other.URL+"/certs")
		case r.URL.Path == "/certs":
			_, _ = w.Write(*set)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(other.Close)
	e := identified(t, map[string]string{"other-issuer": other.URL + "/realms/shop"})
	want(t, "while the issuer is away", e.do(t, "GET", "/discovered", foreign(t, e, other.URL, "Bearer")), 503, "keys_unavailable")
	set, err := jose.PublicSet(e.key)
	if err != nil {
		t.Fatal(err)
	}
	keys.Store(&set)
	await.That(t, "the keys are found", func() bool {
		return e.do(t, "GET", "/discovered", foreign(t, e, other.URL, "Bearer")).status == 200
	})
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "u1" || h.Get("X-Gatehouse-Roles") != "clerk,auditor" || h.Get("X-Gatehouse-Tenant") != "t1" {
		t.Errorf("the upstream got %v", h)
	}
	want(t, "its ID token", e.do(t, "GET", "/discovered", foreign(t, e, other.URL, "ID")), 401, "token_invalid")
	want(t, "another issuer's", e.do(t, "GET", "/discovered", e.token(t, nil)), 401, "token_invalid")
}

// foreign is a token as Keycloak would make it.
func foreign(t *testing.T, e *edge, at, typ string) string {
	t.Helper()
	token, err := jose.Sign(e.key, "JWT", map[string]any{
		"iss": at + "/realms/shop", "sub": "u1", "aud": []string{"orders-api", "account"}, "typ": typ, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"realm_access": map[string]any{"roles": []string{"clerk"}}, "resource_access": map[string]any{"my.app": map[string]any{"roles": []string{"auditor"}}}, "org": map[string]any{"id": "t1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// S25, S47, S56: an opaque token is what its issuer says, for as long as it says so; an issuer that is away is a refusal.
func TestAnOpaqueTokenIsAskedFor(t *testing.T) {
	t.Parallel()
	var status atomic.Int64
	status.Store(200)
	issuer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if id, secret, _ := r.BasicAuth(); id != "edge" || secret != "introspection-canary" {
			w.WriteHeader(401)
			return
		}
		w.WriteHeader(int(status.Load()))
		_ = json.NewEncoder(w).Encode(map[string]any{
			"active": r.FormValue("token") == "opaque-1", "sub": "u1", "sid": "s1", "aud": "gatehouse-api", "realm": map[string]any{"roles": []string{"clerk"}},
		})
	}))
	t.Cleanup(issuer.Close)
	e := identified(t, map[string]string{"introspection-url": issuer.URL, "introspection-secret": "introspection-canary"})
	want(t, "active", e.do(t, "GET", "/opaque", "opaque-1"), 200, "")
	if h := <-e.seen; h.Get("X-Gatehouse-Subject") != "u1" || h.Get("X-Gatehouse-Roles") != "clerk" {
		t.Errorf("the upstream got %v", h)
	}
	want(t, "inactive", e.do(t, "GET", "/opaque", "opaque-2"), 401, "token_invalid")
	want(t, "another issuer's", e.do(t, "GET", "/opaque", e.token(t, nil)), 401, "token_invalid")
	want(t, "where tokens are not opaque", e.do(t, "GET", "/optional", "opaque-1"), 401, "token_invalid")
	status.Store(500)
	want(t, "an issuer that is not well", e.do(t, "GET", "/opaque", "opaque-1"), 503, "introspection_unavailable")
	status.Store(200)
	c, err := redisx.Open(e.redis)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := redisx.PublishRevocation(t.Context(), c, redisx.Revocation{Kind: redisx.KindSession, Value: "s1", ExpiresAt: time.Now().Add(time.Hour)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the session is refused", func() bool { return e.do(t, "GET", "/opaque", "opaque-1").problem.Code == "session_revoked" })
	issuer.Close()
	want(t, "an issuer that is away", e.do(t, "GET", "/opaque", "opaque-1"), 503, "introspection_unavailable")
}
