// Package edge_test plays against the whole edge over HTTP: the gateway with the real kong.yml, the built plugin as its
// child process, a real Redis, and the sample upstream. The issuer and the decision point are the test's own.
package edge_test

import (
	"bytes"
	"context"
	"encoding/json"
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
