package main

import (
	"context"
	"encoding/binary"
	"io"
	"io/fs"
	"log/slog"
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
	"testing/fstest"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/dev/orders"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/pdp/traced"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/policies"
)

const benchIssuer = "http://issuer.test"

// bench is a whole edge: the gateway with kong.yml, the plugin over its socket, Redis, the decision point with policies/ over HTTP, and
// the sample upstream. Limits are too high to be met, deadlines are a second, and one more route leads to the same upstream unguarded.
type bench struct {
	url, token, order string
	socket            string
	edge, pdp         *tracing.Tracer // nil for none
}

// BenchmarkRequest is one request after another over one connection, by turns unguarded and guarded, so that both meet the same
// machine: every stage of the route orders, an RS256 token of 3072 bits that was seen before, two limits, a decision of the policies about
// an object that is looked up. The plugin is a process of its own, as under Kong. Times are in microseconds, the difference is the guard's.
func BenchmarkRequest(b *testing.B) {
	w := newBench(b)
	binary := stripped(b)
	w.start(b, gateway.PluginServer{
		Socket: w.socket, StartCommand: binary + " -log-level error -status '' -socket " + w.socket, QueryCommand: binary + " -dump -socket " + w.socket,
	})
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	var plain, guarded []time.Duration
	for range 500 { // connections and caches are as they are on a day's work
		w.do(b, client, "/plain")
		w.do(b, client, "/orders")
	}
	for b.Loop() {
		plain = append(plain, w.do(b, client, "/plain"))
		guarded = append(guarded, w.do(b, client, "/orders"))
	}
	b.ReportMetric(0, "ns/op") // of two requests: says nothing
	for name, took := range map[string][]time.Duration{"plain": plain, "guarded": guarded} {
		slices.Sort(took)
		b.ReportMetric(quantile(took, 0.50), name+"-p50-µs")
		b.ReportMetric(quantile(took, 0.99), name+"-p99-µs")
	}
}

// BenchmarkFrames counts what an allowed request costs on the plugin's socket.
func BenchmarkFrames(b *testing.B) {
	w := newBench(b)
	counts := w.counted(b)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	w.do(b, client, "/orders") // the last answers to what came before are read with it
	counts.calls.Store(0)
	counts.writes.Store(0)
	for b.Loop() {
		w.do(b, client, "/orders")
	}
	b.ReportMetric(float64(counts.calls.Load())/float64(b.N), "pdk-calls/op")
	b.ReportMetric(float64(counts.writes.Load())/float64(b.N), "wakeups/op")
}

// Each call costs Kong some 8 µs of its processor, and each wake-up a switch between two processes.
func TestAnAllowedRequestTakesThreeCallsInTwoWakeUps(t *testing.T) {
	t.Parallel()
	w := newBench(t)
	counts := w.counted(t)
	w.do(t, testhttp.Client, "/orders")
	counts.calls.Store(0)
	counts.writes.Store(0)
	const requests = 10
	for range requests {
		w.do(t, testhttp.Client, "/orders")
	}
	if calls, writes := counts.calls.Load(), counts.writes.Load(); calls > 3*requests || writes > 2*requests || calls < requests {
		t.Errorf("%d calls in %d writes for %d requests", calls, writes, requests)
	}
}

// counted starts everything with the plugin in this process, behind a listener that counts.
func (w *bench) counted(b testing.TB) *counter {
	b.Helper()
	a := app.New(app.Options{Now: time.Now, Log: slog.New(slog.DiscardHandler), Tracer: w.edge})
	b.Cleanup(a.Close)
	srv, err := kong.NewServer(a.Guard, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("unix", w.socket)
	if err != nil {
		b.Fatal(err)
	}
	counts := &counter{Listener: ln}
	background(b, a.Run)
	background(b, func(ctx context.Context) error { return srv.Serve(ctx, counts) })
	w.start(b, gateway.PluginServer{Socket: w.socket, Describe: func(out io.Writer) error { return kong.Dump(out, w.socket) }})
	return counts
}

// BenchmarkPluginSize is the size of the plugin as make build makes it. internal/arch keeps it under its bound.
func BenchmarkPluginSize(b *testing.B) {
	info, err := os.Stat(stripped(b))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}

// counter counts what the plugin writes: frames that name a method are calls of the PDK, and each write wakes the gateway once.
type counter struct {
	net.Listener
	calls, writes atomic.Int64
}

func (c *counter) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return counted{conn, c}, err
}

type counted struct {
	net.Conn
	counts *counter
}

func (c counted) Write(p []byte) (int, error) {
	c.counts.writes.Add(1)
	for rest := p; len(rest) >= 4; {
		n := int(binary.LittleEndian.Uint32(rest))
		if strings.HasPrefix(string(rest[4:4+n]), "kong.") { // no protobuf message begins so
			c.counts.calls.Add(1)
		}
		rest = rest[4+n:]
	}
	return c.Conn.Write(p)
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[int(q*float64(len(sorted)-1))].Nanoseconds()) / 1e3
}

// stripped builds the plugin as make build does.
func stripped(b testing.TB) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "gatehouse-plugin")
	cmd := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, "../plugin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return path
}

// background runs f until the benchmark ends.
func background(b testing.TB, f func(context.Context) error) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := f(ctx); err != nil && ctx.Err() == nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() { cancel(); ended.Wait() })
}

func newBench(b testing.TB) *bench {
	b.Helper()
	// A socket's path may have 107 bytes at most, which a benchmark's own folder can exceed.
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return &bench{socket: filepath.Join(dir, "s")}
}

// start starts everything but the plugin, which is the caller's, and waits until a guarded request is allowed.
func (w *bench) start(b testing.TB, plugin gateway.PluginServer) {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	key, err := jose.GenerateRSA(3072)
	if err != nil {
		b.Fatal(err)
	}
	jwks, err := jose.PublicSet(key)
	if err != nil {
		b.Fatal(err)
	}
	keys := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { _, _ = out.Write(jwks) }))
	b.Cleanup(keys.Close)

	store := orders.NewStore(time.Now)
	me := uuid.NewString()
	w.order = store.Add(orders.Order{Owner: me, Department: "sales", Item: "desk", Amount: 24900}).ID
	first, second := httptest.NewServer(orders.Handler(store, "1")), httptest.NewServer(orders.Handler(store, "2"))
	b.Cleanup(first.Close)
	b.Cleanup(second.Close)

	e, err := engine.Open(b.Context(), engine.Options{
		Policies: relaxed(b), Services: map[string][]string{"orders": {first.URL, second.URL}}, Deadline: time.Second, Log: quiet, Span: traced.Parts(w.pdp),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	decisions := decisionlog.New(quiet)
	background(b, decisions.Run)
	pdp := httptest.NewServer(traced.Handler(w.pdp, server.New(server.Options{Engine: traced.Engine(w.pdp, e), DecisionLog: decisions, Log: quiet})))
	b.Cleanup(pdp.Close)

	g, err := gateway.New(b.Context(), gateway.Options{
		Config: []byte(generous(b)),
		Address: map[string]string{
			"orders:9000": first.Listener.Addr().String(), "orders:9001": second.Listener.Addr().String(),
			"authsvc-1:8081": first.Listener.Addr().String(), "authsvc-2:8081": second.Listener.Addr().String(),
		},
		Vault: map[string]string{
			"gatehouse-issuer": benchIssuer, "gatehouse-jwks-url": keys.URL, "gatehouse-pdp-url": pdp.URL, "gatehouse-redis-url": testenv.Redis(b),
			"gatehouse-challenge-secret": "0123456789abcdef0123456789abcdef",
		},
		Plugin: plugin, Outcome: gateway.PluginServer{Describe: func(out io.Writer) error { return kong.DumpOutcome(out, w.socket) }}, Log: quiet,
	})
	if err != nil {
		b.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String()
	background(b, g.Run)
	background(b, func(ctx context.Context) error { return g.Serve(ctx, ln) })

	now := time.Now()
	w.token, err = jose.Sign(key, "at+jwt", map[string]any{
		"iss": benchIssuer, "sub": me, "aud": "gatehouse-api", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": uuid.NewString(),
		"sid": uuid.NewString(), "client_id": "bench", "roles": []string{"customer"},
	})
	if err != nil {
		b.Fatal(err)
	}
	for deadline := now.Add(30 * time.Second); ; {
		res, err := w.send(b, testhttp.Client, "/orders")
		if err == nil && res == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			b.Fatalf("the edge does not come up: status %d, %v", res, err)
		}
	}
}

// do sends one request, which must be answered by the upstream, and answers how long it took.
func (w *bench) do(b testing.TB, client *http.Client, path string) time.Duration {
	b.Helper()
	begun := time.Now()
	status, err := w.send(b, client, path)
	took := time.Since(begun)
	if err != nil || status != http.StatusOK {
		b.Fatalf("%s: status %d, %v", path, status, err)
	}
	return took
}

func (w *bench) send(b testing.TB, client *http.Client, path string) (status int, err error) {
	b.Helper()
	path += "/" + w.order
	if strings.HasPrefix(path, "/list") {
		path = "/orders"
	}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, w.url+path, nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+w.token)
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// generous is kong.yml with limits that nobody meets, a deadline of a second, a route without the plugin, and two whose limit is soon spent.
func generous(b testing.TB) string {
	b.Helper()
	text, err := os.ReadFile(kongFile)
	if err != nil {
		b.Fatal(err)
	}
	return replace(b, string(text), "rate: 600-M", "rate: 1000000000-M", "rate: 60-M", "rate: 1000000000-M", "pdp: {url:", "pdp: {timeout_ms: 1000, url:") + `
  - name: plain
    host: orders
    port: 80
    protocol: http
    path: /orders
    routes:
      - name: plain
        paths: ["/plain"]
      - name: spent-address
        paths: ["/spent-address"]
        plugins:
          - name: gatehouse
            config: {authorize: false, issuers: *issuers, redis_url: *redis, limits: [{name: spent, key: ip, rate: 1-H}]}
      - name: spent-subject
        paths: ["/spent-subject"]
        plugins:
          - name: gatehouse
            config: {authorize: false, issuers: *issuers, redis_url: *redis, limits: [{name: spent, key: subject, rate: 1-H}]}
`
}

// relaxed is policies/ with a deadline for look-ups that a busy machine can keep.
func relaxed(b testing.TB) fs.FS {
	b.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(policies.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(policies.FS, name)
		files[name] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	const lookups = "gatehouse/lookups.yaml"
	files[lookups].Data = []byte(replace(b, string(files[lookups].Data), "deadline: 20ms", "deadline: 1s"))
	return files
}

// replace puts each new text for the old one before it, all of which must be there.
func replace(b testing.TB, text string, pairs ...string) string {
	b.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			b.Fatalf("%q is no longer there", pairs[i])
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}
