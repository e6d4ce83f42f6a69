package edge_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// S54: the upstream learns who asks from the edge alone.
func TestTheUpstreamLearnsWhoAsksFromTheEdgeAlone(t *testing.T) {
	t.Parallel()
	e := start(t)
	for len(e.seen) > 0 {
		<-e.seen
	}
	a := e.do(t, "GET", "/orders/o1", e.token(t, map[string]any{"sub": "u1"}), "X-Gatehouse-Subject", "admin", "x-gatehouse-roles", "admin", "X-Gatehouse-Tenant", "t")
	want(t, "allowed", a, 200, "")
	h := <-e.seen
	if s := h.Values("X-Gatehouse-Subject"); len(s) != 1 || s[0] != "u1" || h.Get("X-Gatehouse-Roles") != "customer" || h.Get("X-Gatehouse-Tenant") != "" {
		t.Errorf("the upstream got %v", h)
	}
}

// S30, S34, S35, S36: what a token must be.
func TestBadTokensAreRefused(t *testing.T) {
	t.Parallel()
	e := start(t)
	payload := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"` + issuer + `","sub":"u1","aud":"gatehouse-api","exp":9999999999}`))
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt","kid":"`+e.key.ID+`"}`)) + "." + payload + "."
	idToken, err := jose.Sign(e.key, "JWT", map[string]any{"iss": issuer, "sub": "u1", "aud": "gatehouse-api", "exp": time.Now().Add(time.Minute).Unix()})
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := jose.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	unknown := edge{key: stranger}
	before := e.upstream.Load()
	for what, token := range map[string]string{
		"none": none, "an id token": idToken, "unknown kid": unknown.token(t, nil), "nonsense": "x", "another issuer": e.token(t, map[string]any{"iss": "x"}),
		"another audience": e.token(t, map[string]any{"aud": "x"}), "no exp": e.token(t, map[string]any{"exp": nil}),
		"not yet valid": e.token(t, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}),
	} {
		a := e.do(t, "GET", "/orders", token)
		want(t, what, a, 401, "token_invalid")
		if !strings.HasPrefix(a.header.Get("WWW-Authenticate"), "Bearer ") {
			t.Errorf("%s: WWW-Authenticate %q", what, a.header.Get("WWW-Authenticate"))
		}
	}
	want(t, "no token", e.do(t, "GET", "/orders", ""), 401, "token_missing")
	want(t, "expired", e.do(t, "GET", "/orders", e.token(t, map[string]any{"exp": time.Now().Add(-time.Hour).Unix(), "iat": time.Now().Add(-2 * time.Hour).Unix()})), 401, "token_expired")
	if a := e.do(t, "GET", "/orders", e.token(t, nil), "Authorization", "Bearer x"); a.status != 400 { // nginx's own
		t.Errorf("two tokens: %d, want 400", a.status)
	}
	if n := e.upstream.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// S55: ambiguous requests are refused before anything decides on them.
func TestAmbiguousRequestsAreRefused(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	before := e.upstream.Load()
	for path, status := range map[string]string{
		"/orders/../orders": "400", "/x/../orders": "400", "/x/%2e%2e/orders": "400", "//orders": "400", "/orders%2f1": "400", "/orders/%00": "400",
		"/orders//1": "400", "/orders/1;x=2": "400", `/orders/a\b`: "400",
		"/orders/../x": "404", "/orders/%2e%2e/x": "404", "/orders/%ff": "404", // what Kong's router knows no route for
	} {
		got := e.raw(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", path, token))
		if got != status {
			t.Errorf("%s: %s, want %s", path, got, status)
		}
	}
	if got := e.raw(t, fmt.Sprintf("GET /orders HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer %s\r\nX-Any: \xff\r\nConnection: close\r\n\r\n", token)); got != "400" {
		t.Errorf("a header byte that is not UTF-8: %s, want 400", got)
	}
	if n := e.upstream.Load() - before; n != 0 {
		t.Errorf("%d requests reached the upstream", n)
	}
}

// S25: an ended session is refused although its token is unexpired.
func TestAnEndedSessionIsRefusedAtTheEdge(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, map[string]any{"sid": "s1"})
	want(t, "before", e.do(t, "GET", "/orders", token), 200, "")
	c, err := redisx.Open(e.redis)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := redisx.PublishRevocation(t.Context(), c, redisx.Revocation{Kind: redisx.KindSession, Value: "s1", ExpiresAt: time.Now().Add(time.Hour)}, time.Now()); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the session is refused", func() bool { return e.do(t, "GET", "/orders", token).problem.Code == "session_revoked" })
	want(t, "another session", e.do(t, "GET", "/orders", e.token(t, nil)), 200, "")
}

func TestMoreThanTheLimitGets429(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	var last answer
	for range 61 {
		last = e.do(t, "GET", "/orders", token)
	}
	want(t, "the 61st in a minute", last, 429, "rate_limited")
	for _, name := range []string{"RateLimit", "RateLimit-Policy", "Retry-After"} {
		if last.header.Get(name) == "" {
			t.Errorf("no %s", name)
		}
	}
}

// S14: registration wants a proof of work, once.
func TestRegistrationIsGuardedByAChallenge(t *testing.T) {
	t.Parallel()
	e := start(t)
	a := e.do(t, "POST", "/auth/register", "")
	want(t, "without a challenge", a, 403, "challenge_required")
	solved, _ := worked(t, a.problem)
	want(t, "solved", e.do(t, "POST", "/auth/register", "", "X-Gatehouse-Challenge", solved), 200, "")
	want(t, "spent", e.do(t, "POST", "/auth/register", "", "X-Gatehouse-Challenge", solved), 403, "challenge_invalid")
}
