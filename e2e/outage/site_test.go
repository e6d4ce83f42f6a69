package outage_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// routes are kong.yml's kinds of routes: one with every stage, one that only wants a living session, one for each way to go on
// while revocations are behind, one whose limit is strict, and one that wants nobody known. Deadlines are what a busy machine can
// keep; how far revocations may be behind is the default, 5 s.
const routes = `
_format_version: "3.0"
_transform: true
services:
  - name: api
    url: http://orders:9000
    routes:
      - name: orders
        paths: [/orders]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              issuers: &issuers
                - issuer: http://issuer.test
                  jwks_url: "{vault://env/keys}"
                  audiences: [gatehouse-api]
                  introspection: {url: "{vault://env/introspection}", client_id: edge, client_secret: secret, cache_seconds: 0, timeout_ms: 5000}
              limits: &many [{name: many, key: subject, rate: 1000000000-M}]
              resources: [{pattern: /orders, type: order}, {pattern: "/orders/{id}", type: order}]
              pdp: {url: "{vault://env/pdp}", timeout_ms: 1000}
              redis_url: &redis "{vault://env/redis}"
      - name: account
        paths: [/account]
        strip_path: false
        plugins: [{name: gatehouse, config: {authorize: false, issuers: *issuers, limits: *many, redis_url: *redis}}]
      - name: continue
        paths: [/continue]
        strip_path: false
        plugins: [{name: gatehouse, config: {authorize: false, issuers: *issuers, redis_url: *redis, revocation: {when_behind: continue}}}]
      - name: introspect
        paths: [/introspect]
        strip_path: false
        plugins: [{name: gatehouse, config: {authorize: false, issuers: *issuers, redis_url: *redis, revocation: {when_behind: introspect}}}]
      - name: strict
        paths: [/strict]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false, redis_url: *redis, limits: [{name: few, key: ip, rate: 1000000000-M, strict: true}]}}]
      - name: public
        paths: [/public]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]
`

// maxLag is the default of revocation.max_lag_seconds.
const maxLag = 5 * time.Second

// site is one running edge and what it leans on.
type site struct {
	*load
	status string
	pid    atomic.Int64 // of the plugin's process
	starts atomic.Int64 // of the plugin
	said   testenv.Output

	direct redis.UniversalClient // of the test, which no outage touches
	closed atomic.Int64          // UnixNano: when the revocation of the session "ending" had been published
	ending atomic.Bool           // the issuer has ended that session
}

// around is what a site is opened with; what is nil is as it should be.
type around struct {
	config string            // kong.yml; "" for routes
	redis  string            // the URL for the edge
	direct string            // the URL for the test, where it is not the same
	vault  map[string]string // instead of what there is
}

// open runs an edge. Its load is not started.
func open(t *testing.T, a around) *site {
	t.Helper()
	s := &site{load: &load{t: t}, status: testenv.Spare(t)}
	if a.config == "" {
		a.config = routes + onceRoutes[1:]
	}
	if a.redis == "" {
		a.redis = testenv.Redis(t)
	}
	if a.direct == "" {
		a.direct = a.redis
	}
	var err error
	if s.direct, err = redisx.Open(a.direct); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.direct.Close() })
	published := httptest.NewServer(keySet(t, key(t)))
	t.Cleanup(published.Close)
	asked := httptest.NewServer(http.HandlerFunc(s.introspect))
	t.Cleanup(asked.Close)
	upstream := httptest.NewServer(s.load)
	t.Cleanup(upstream.Close)
	vault := map[string]string{"keys": published.URL, "introspection": asked.URL, "redis": a.redis, "pdp": "http://" + decisionPoint(t)}
	for name, v := range a.vault {
		vault[name] = v
	}
	s.run(t, a.config, upstream.Listener.Addr().String(), vault)
	return s
}

// run runs the gateway, and the plugin as its child.
func (s *site) run(t *testing.T, config, upstream string, vault map[string]string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // a socket's path may have 107 bytes at most, which a test's own folder can exceed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, plugin := filepath.Join(dir, "s"), binary(t)
	ctx, cancel := context.WithCancel(context.Background())
	g, err := gateway.New(ctx, gateway.Options{
		Config: []byte(config), Address: map[string]string{"orders:9000": upstream}, Vault: vault, Log: slog.New(s),
		Plugin: gateway.PluginServer{
			Socket: socket, StartCommand: plugin + " -socket " + socket + " -log-level info -status " + s.status, QueryCommand: plugin + " -dump -socket " + socket,
		},
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
	s.url = "http://" + ln.Addr().String()
	var running sync.WaitGroup
	for _, f := range []func() error{func() error { return g.Run(ctx) }, func() error { return g.Serve(ctx, ln) }} {
		running.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
		said := s.said.String()
		if strings.Contains(said, "eyJ") { // as every token begins (S67)
			t.Error("a token is in the plugin's log")
		}
		for line := range strings.Lines(said) {
			if !strings.HasPrefix(line, "{") {
				t.Errorf("a line of the plugin's log is not its own: %.200s", line)
			}
		}
		if t.Failed() {
			t.Logf("the plugin said:\n%s", said[max(0, len(said)-4000):])
		}
	})
}

// Enabled, Handle, WithAttrs and WithGroup let the site be the gateway's log: it learns which process is the plugin.
func (s *site) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (s *site) Handle(_ context.Context, r slog.Record) error {
	r.Attrs(func(a slog.Attr) bool {
		switch {
		case r.Message == "plugin server started" && a.Key == "pid":
			s.pid.Store(a.Value.Int64())
			s.starts.Add(1)
		case r.Message == "plugin server says" && a.Key == "line":
			fmt.Fprintln(&s.said, a.Value.String())
		}
		return true
	})
	return nil
}

// WithAttrs implements slog.Handler.
func (s *site) WithAttrs([]slog.Attr) slog.Handler { return s }

// WithGroup implements slog.Handler.
func (s *site) WithGroup(string) slog.Handler { return s }

// introspect is the issuer's endpoint (RFC 7662): it knows at once which sessions have ended.
func (s *site) introspect(w http.ResponseWriter, r *http.Request) {
	answer := map[string]any{}
	if parts := strings.Split(r.FormValue("token"), "."); len(parts) == 3 {
		payload, _ := base64.RawURLEncoding.DecodeString(parts[1]) // the edge has verified it
		_ = json.Unmarshal(payload, &answer)                       // as above
	}
	answer["active"] = answer["sid"] != "ended" && (answer["sid"] != "ending" || !s.ending.Load())
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // the edge is gone; there is nobody to tell
}

// revoke ends a session: the issuer knows at once, and whoever reads Redis' stream when it can be written to again.
func (s *site) revoke(t *testing.T, session string) {
	t.Helper()
	r := redisx.Revocation{Kind: redisx.KindSession, Value: session, ExpiresAt: time.Now().Add(time.Hour)}
	s.wait("the revocation is published", func() bool { return redisx.PublishRevocation(t.Context(), s.direct, r, time.Now()) == nil })
}

// usual is the load of the routes above.
func (s *site) usual(t *testing.T) []kind {
	t.Helper()
	guarded := []string{"/orders", "/orders/" + mine, "/account", "/continue", "/introspect"}
	good := signed(t, key(t), nil)
	over := func(path string) time.Time {
		published := s.closed.Load()
		if published == 0 || path == "/continue" {
			return time.Time{}
		}
		return time.Unix(0, published).Add(maxLag)
	}
	return append(tokens(t, guarded),
		kind{name: "good", paths: guarded, token: good, want: allowed},
		kind{name: "nobody", paths: []string{"/public", "/strict"}, token: always(""), want: allowed},
		kind{name: "ended session", paths: guarded, token: signed(t, key(t), map[string]any{"sid": "ended"}), want: "session_revoked"},
		kind{name: "ending session", paths: guarded, token: signed(t, key(t), map[string]any{"sid": "ending"}), want: allowed, after: "session_revoked", over: over},
		kind{name: "other's order", paths: []string{"/orders/" + theirs}, token: good, want: "forbidden"},
		kind{name: "other's order, to delete", method: http.MethodDelete, paths: []string{"/orders/" + theirs}, token: good, want: "forbidden"},
		kind{name: "role missing", paths: []string{"/orders", "/orders/" + mine}, token: signed(t, key(t), map[string]any{"roles": []string{"guest"}}), want: "forbidden"},
		kind{name: "no such route", paths: []string{"/account/../orders"}, token: good, want: "bad_path"},
	)
}

// says reports whether a metric, unless it is "", and /readyz say so.
func (s *site) says(metric, value, health string) func() bool {
	return func() bool {
		v, ok := s.metric(metric)
		return (metric == "" || ok && v == value) && s.health() == health
	}
}

// metric answers a metric of the plugin's, of whatever labels; ok is false where there is none.
func (s *site) metric(name string) (value string, ok bool) {
	res, err := testhttp.Client.Get("http://" + s.status + "/metrics")
	if err != nil {
		return "", false
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return "", false
	}
	found := regexp.MustCompile(`(?m)^` + name + `(?:\{.*\})? (\S+)$`).FindSubmatch(text)
	if found == nil {
		return "", false
	}
	return string(found[1]), true
}

// health is what /readyz says of the plugin: ok, degraded or unavailable.
func (s *site) health() string {
	res, err := testhttp.Client.Get("http://" + s.status + "/readyz")
	if err != nil {
		return ""
	}
	defer res.Body.Close()
	var health struct{ Status string }
	_ = json.NewDecoder(res.Body).Decode(&health) // then it is ""
	return health.Status
}
