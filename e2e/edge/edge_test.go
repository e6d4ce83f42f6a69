// Package edge_test plays against the whole edge over HTTP: the gateway with the real kong.yml, the built plugin as its
// child process, a real Redis, and the sample upstream. The issuer and the decision point are the test's own.
package edge_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

const issuer = "http://issuer.test"

// build makes the plugin once for all tests.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gatehouse-edge-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "gatehouse-plugin")
	cmd := exec.Command("go", "build", "-o", path, "../../plugin")
	cmd.Stderr = os.Stderr
	return path, cmd.Run()
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := build(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// edge is one running edge and what surrounds it.
type edge struct {
	url, socket, redis, status string
	key                        jose.SigningKey
	pdp                        *httptest.Server
	decision                   atomic.Pointer[authzen.Response]
	upstream                   atomic.Int64 // requests that reached the upstream
	seen                       chan http.Header
	got                        atomic.Value // the body of the last of them
	targets                    []*httptest.Server
}

// start runs the edge with the real kong.yml.
func start(t *testing.T) *edge {
	t.Helper()
	config, err := os.ReadFile("../../kong.yml")
	if err != nil {
		t.Fatal(err)
	}
	e := run(t, config, nil)
	await.That(t, "the edge serves", func() bool { return e.do(t, "GET", "/orders", e.token(t, nil)).status == 200 })
	return e
}

// run runs the edge with the configuration, whose vault has further entries.
func run(t *testing.T, config []byte, vault map[string]string) *edge {
	t.Helper()
	key, err := jose.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := jose.PublicSet(key)
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{socket: socket(t), redis: testenv.Redis(t), status: testenv.Spare(t), key: key, seen: make(chan http.Header, 1000)}
	e.decide(authzen.Response{Decision: true})
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) }))
	t.Cleanup(keys.Close)
	e.pdp = httptest.NewServer(http.HandlerFunc(e.answer))
	t.Cleanup(func() { e.pdp.Close() })
	for range 2 {
		target := httptest.NewServer(http.HandlerFunc(e.serve))
		t.Cleanup(target.Close)
		e.targets = append(e.targets, target)
	}
	all := map[string]string{
		"gatehouse-issuer": issuer, "gatehouse-jwks-url": keys.URL, "gatehouse-pdp-url": e.pdp.URL, "gatehouse-redis-url": e.redis,
		"gatehouse-challenge-secret": "0123456789abcdef0123456789abcdef",
	}
	maps.Copy(all, vault)
	e.url = gate(t, config, e.socket, e.status, map[string]string{
		"orders:9000": host(e.targets[0]), "orders:9001": host(e.targets[1]), "authsvc-1:8081": host(e.targets[0]), "authsvc-2:8081": host(e.targets[1]),
	}, all)
	return e
}

// socket answers a path for one: it may have 107 bytes at most, which a test's own folder can exceed.
func socket(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// gate runs the gateway with the built plugin until the test ends, and answers its URL.
func gate(t *testing.T, config []byte, socket, status string, address, vault map[string]string) string {
	t.Helper()
	plugin, err := build()
	if err != nil {
		t.Fatalf("build the plugin: %v", err)
	}
	if kong := os.Getenv(kongEnv); kong != "" {
		return realKong(t, kong, plugin, config, socket, status, address, vault)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g, err := gateway.New(ctx, gateway.Options{
		Config: config, Address: address, Vault: vault,
		Plugin: gateway.PluginServer{
			Socket:       socket,
			StartCommand: plugin + " -socket " + socket + " -log-level error -status " + status,
			QueryCommand: plugin + " -dump -socket " + socket,
		},
		Outcome: gateway.PluginServer{QueryCommand: plugin + " -dump -plugin gatehouse-outcome -socket " + socket},
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, run := range []func() error{func() error { return g.Run(ctx) }, func() error { return g.Serve(ctx, ln) }} {
		wg.Go(func() {
			if err := run(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return "http://" + ln.Addr().String()
}

func host(s *httptest.Server) string { return s.Listener.Addr().String() }

func (e *edge) decide(r authzen.Response) { e.decision.Store(&r) }

func (e *edge) answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.URL.Path == authzen.BatchPath {
		var asked authzen.BatchRequest
		_ = json.NewDecoder(r.Body).Decode(&asked) // what cannot be read asks for nothing
		_ = json.NewEncoder(w).Encode(authzen.BatchResponse{Evaluations: slices.Repeat([]authzen.Response{*e.decision.Load()}, len(asked.Evaluations))})
		return
	}
	_ = json.NewEncoder(w).Encode(e.decision.Load())
}

func (e *edge) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/healthz" {
		e.upstream.Add(1)
		body, _ := io.ReadAll(r.Body)
		e.got.Store(string(body))
		select {
		case e.seen <- r.Header:
		default:
		}
	}
	w.WriteHeader(http.StatusOK)
}

func (e *edge) token(t *testing.T, changes map[string]any) string {
	t.Helper()
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": uuid.NewString(), "aud": "gatehouse-api", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"jti": uuid.NewString(), "sid": uuid.NewString(), "client_id": "test", "roles": []string{"customer"},
	}
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	token, err := jose.Sign(e.key, "at+jwt", c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type answer struct {
	status  int
	header  http.Header
	problem web.ProblemDocument
}

// do sends one request; further are name, value pairs of headers.
func (e *edge) do(t *testing.T, method, target, token string, further ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, e.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = target
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(further); i += 2 {
		req.Header.Add(further[i], further[i+1])
	}
	res, err := testhttp.Client.Transport.RoundTrip(req) // as it is, redirects too
	if err != nil {
		return answer{}
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	body, err := io.ReadAll(res.Body)
	if err == nil && strings.HasPrefix(res.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(body, &a.problem); err != nil {
			t.Errorf("%s %s: problem %q", method, target, body)
		}
	}
	return a
}

// raw sends bytes that no HTTP client would and answers the status.
func (e *edge) raw(t *testing.T, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(e.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	all, _ := io.ReadAll(conn) // the gateway closes after its answer
	_, rest, _ := bytes.Cut(all, []byte(" "))
	status, _, _ := bytes.Cut(rest, []byte(" "))
	return string(status)
}

func want(t *testing.T, what string, a answer, status int, code string) {
	t.Helper()
	if a.status != status || a.problem.Code != code {
		t.Errorf("%s: %d %q, want %d %q", what, a.status, a.problem.Code, status, code)
	}
	if status >= 400 && (a.header.Get("X-Gatehouse-Decision") == "" || len(a.problem.TraceID) != 32) {
		t.Errorf("%s: header %v, problem %+v", what, a.header, a.problem)
	}
}

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

// S56: the policy denies, is away, and comes back.
func TestThePolicyDecidesAndItsAbsenceDenies(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	e.decide(authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{"not_owner"}, DecisionID: "d1"}})
	a := e.do(t, "DELETE", "/orders/o1", token)
	want(t, "denied", a, 403, "forbidden")
	if a.problem.DecisionID != "d1" {
		t.Errorf("decision id %q", a.problem.DecisionID)
	}
	want(t, "no rule", e.do(t, "GET", "/orders/o1/items", token), 403, "resource_unknown")
	e.decide(authzen.Response{Decision: true})
	address := host(e.pdp)
	e.pdp.CloseClientConnections()
	e.pdp.Close()
	want(t, "policy away", e.do(t, "GET", "/orders", token), 503, "policy_unavailable")
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	e.pdp = httptest.NewUnstartedServer(http.HandlerFunc(e.answer))
	e.pdp.Listener.Close()
	e.pdp.Listener = ln
	e.pdp.Start()
	await.That(t, "the policy is asked again", func() bool { return e.do(t, "GET", "/orders", token).status == 200 })
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

// S57: the plugin is killed under load; nothing passes unchecked, and service is back by itself.
func TestAKilledPluginLetsNothingPass(t *testing.T) {
	t.Parallel()
	e := start(t)
	good := e.token(t, nil)
	before := e.upstream.Load()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var passed atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if s := e.do(t, "GET", "/orders", "bad").status; s != 401 && s != 429 && s < 500 && s != 0 {
						passed.Add(1)
					}
				}
			}
		})
	}
	pid := func() string {
		out, _ := exec.Command("pgrep", "-f", "gatehouse-plugin -socket "+e.socket).Output()
		return strings.TrimSpace(string(out))
	}
	for range 2 {
		await.That(t, "the plugin runs", func() bool { return pid() != "" })
		if err := exec.Command("pkill", "-KILL", "-f", "gatehouse-plugin -socket "+e.socket).Run(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	wg.Wait()
	if n := e.upstream.Load() - before; n != 0 || passed.Load() != 0 {
		t.Errorf("%d requests reached the upstream, %d were not refused", n, passed.Load())
	}
	await.That(t, "service is back", func() bool {
		s := e.do(t, "GET", "/auth/me", good).status
		return s == 200
	})
}

func TestATargetIsKilledAndRequestsGoOn(t *testing.T) {
	t.Parallel()
	e := start(t)
	token := e.token(t, nil)
	e.targets[0].CloseClientConnections()
	e.targets[0].Close()
	for i := range 10 {
		if a := e.do(t, "GET", "/orders", token); a.status != 200 {
			t.Errorf("request %d: status %d", i, a.status)
		}
	}
}
