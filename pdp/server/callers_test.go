package server_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// counted is a Meter.
type counted struct {
	mu        sync.Mutex
	decided   map[string]int // by api and outcome
	shed      map[string]int
	strangers int
}

func newCounted() *counted { return &counted{decided: map[string]int{}, shed: map[string]int{}} }

func (c *counted) Decided(api, outcome string, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decided[api+" "+outcome]++
	if took < 0 {
		c.decided["before it began"]++
	}
}

func (c *counted) Shed(api string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shed[api]++
}

func (c *counted) Stranger() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.strangers++
}

const edgeToken = "edge-1-0123456789abcdef0123456789abcdef"

func tokens(t *testing.T) caller.Check {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(file, []byte("edge-1 "+edgeToken+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := caller.OpenTokens(file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return caller.Check{Tokens: opened}
}

// S71: who is not known learns nothing and reaches no policy.
func TestOnlyKnownCallersAreAnswered(t *testing.T) {
	t.Parallel()
	e, meter := &fixed{response: authzen.Response{Context: &authzen.ResponseContext{DecisionID: "d-1"}}, ready: errors.New(canary)}, newCounted()
	s := serveWith(e, server.Options{Callers: tokens(t), Meter: meter, DataPaths: []string{"/"}})
	for name, headers := range map[string][]string{
		"nothing": nil, "another token": {"Authorization", "Bearer " + strings.Repeat("a", 40)}, "no token": {"Authorization", "Bearer"},
		"another scheme": {"Authorization", "Basic " + edgeToken}, "a part": {"Authorization", "Bearer " + edgeToken[:len(edgeToken)-1]},
		"more": {"Authorization", "Bearer " + edgeToken + "0"}, "the name": {"Authorization", "Bearer edge-1"},
	} {
		for _, path := range []string{authzen.Path, authzen.BatchPath} {
			w := s.post(t, path, headers...)
			wantProblem(t, w, http.StatusUnauthorized, "caller_unknown")
			challenge := w.Header().Get("WWW-Authenticate")
			if !strings.HasPrefix(challenge, `Bearer realm="gatehouse-pdp"`) || strings.Contains(challenge, "invalid_token") != (headers != nil) {
				t.Errorf("%s: challenge %q", name, challenge)
			}
		}
		for _, path := range []string{"/v1/data/shop/allow", "/v1/query", "/v1/policies/x"} {
			wantDataError(t, s.post(t, path, headers...), http.StatusUnauthorized, "unauthorized")
		}
	}
	twice := httptest.NewRequestWithContext(t.Context(), http.MethodPost, authzen.Path, strings.NewReader(body))
	twice.Header["Authorization"] = []string{"Bearer " + edgeToken, "Bearer " + edgeToken}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, twice)
	wantProblem(t, w, http.StatusUnauthorized, "caller_unknown")
	if len(e.asked)+len(e.questions) != 0 || meter.strangers != 7*5+1 {
		t.Errorf("asked %d and %d times, %d strangers", len(e.asked), len(e.questions), meter.strangers)
	}
	if all := s.log.String() + s.decisions.String(); strings.Contains(all, edgeToken[:20]) {
		t.Errorf("logged %s", all)
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER   "} {
		if w := s.post(t, authzen.Path, "Authorization", scheme+edgeToken); w.Code != 200 {
			t.Errorf("%q: %d %s", scheme, w.Code, w.Body)
		}
	}
	// S67: the log says which enforcement point it was.
	for _, line := range s.logged(t) {
		if line["caller"] != "edge-1" {
			t.Errorf("logged %v", line)
		}
	}
	// Metadata and health are for whoever comes; why policies do not load is not.
	for path, status := range map[string]int{authzen.MetadataPath: 200, "/healthz": 200, "/readyz": 503, "/health": 200} {
		if w := s.do(t, "GET", path, nil); w.Code != status || strings.Contains(w.Body.String(), canary) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	e.ready = fault.New(fault.Unavailable, "orders.rego:12: secret").Named("degraded")
	if w := s.do(t, "GET", "/readyz", nil); w.Code != 200 || !strings.Contains(w.Body.String(), `"degraded"`) || strings.Contains(w.Body.String(), "orders.rego") {
		t.Errorf("a stranger is told %s", w.Body)
	}
	if w := s.do(t, "GET", "/readyz", nil, "Authorization", "Bearer "+edgeToken); !strings.Contains(w.Body.String(), "orders.rego") {
		t.Errorf("the edge is told %s", w.Body)
	}
}

// A certificate is needed where the listener asks for one, whatever else is brought.
func TestACallerWithoutItsCertificateIsUnknown(t *testing.T) {
	t.Parallel()
	check := tokens(t)
	check.Certificates = true
	s := serveWith(allowing(), server.Options{Callers: check})
	wantProblem(t, s.post(t, authzen.Path, "Authorization", "Bearer "+edgeToken), http.StatusUnauthorized, "caller_unknown")
}

// Beyond its room the server refuses at once, and goes on when there is room again; health is always answered.
func TestWhatThereIsNoRoomForIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	e, meter := allowing(), newCounted()
	e.document = dataapi.Document{Value: true, Defined: true}
	e.block, e.entered = make(chan struct{}), make(chan struct{}, 10)
	s := serveWith(e, server.Options{MaxConcurrent: 2, Meter: meter, DataPaths: []string{"/"}})
	var under sync.WaitGroup
	under.Go(func() { s.ask(t, body) })
	under.Go(func() { s.do(t, "POST", "/v1/data/a", strings.NewReader("{}")) })
	<-e.entered
	<-e.entered
	for range 3 {
		w := s.ask(t, body)
		wantProblem(t, w, http.StatusServiceUnavailable, "overloaded")
		if w.Header().Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
		}
	}
	w := s.post(t, authzen.BatchPath)
	wantProblem(t, w, http.StatusServiceUnavailable, "overloaded")
	for _, path := range []string{"/v1/data/a", "/v0/data/a", "/"} {
		w = s.do(t, "POST", path, strings.NewReader("{}"))
		wantDataError(t, w, http.StatusServiceUnavailable, "overloaded")
		if w.Header().Get("Retry-After") != "1" {
			t.Errorf("Retry-After %q", w.Header().Get("Retry-After"))
		}
	}
	// Nothing of what is refused is read or logged: that would cost what there is none of.
	if w := s.do(t, "POST", authzen.Path, unread{t}); w.Code != http.StatusServiceUnavailable || s.log.Len() != 0 {
		t.Errorf("%d, logged %s", w.Code, s.log)
	}
	for _, path := range []string{"/healthz", "/readyz", "/health", "/health?bundles", authzen.MetadataPath} {
		if w := s.do(t, "GET", path, nil); w.Code != 200 {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	close(e.block)
	under.Wait()
	for range 5 {
		if w := s.ask(t, body); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		<-e.entered
	}
	if meter.shed["authzen"] != 5 || meter.shed["data"] != 3 || meter.decided["authzen permit"] != 6 || meter.decided["data permit"] != 1 {
		t.Errorf("counted %v shed, %v decided", meter.shed, meter.decided)
	}
}

// unread is a body that nobody may read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, io.EOF
}

// A request that was let in and lost its place while its body arrived is refused too.
func TestARequestThatArrivesSlowlyHoldsNoPlace(t *testing.T) {
	t.Parallel()
	e, meter := allowing(), newCounted()
	e.block, e.entered = make(chan struct{}), make(chan struct{}, 10)
	s := serveWith(e, server.Options{MaxConcurrent: 1, Meter: meter})
	slow, rest := io.Pipe()
	var under sync.WaitGroup
	under.Go(func() {
		wantProblem(t, s.do(t, "POST", authzen.Path, slow, "Content-Type", "application/json"), http.StatusServiceUnavailable, "overloaded")
	})
	if _, err := io.WriteString(rest, body[:20]); err != nil { // it is being read
		t.Fatal(err)
	}
	under.Go(func() {
		if w := s.ask(t, body); w.Code != 200 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
	<-e.entered
	if _, err := io.WriteString(rest, body[20:]); err != nil {
		t.Fatal(err)
	}
	if err := rest.Close(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "the slow one is refused", func() bool {
		meter.mu.Lock()
		defer meter.mu.Unlock()
		return meter.shed["authzen"] == 1
	})
	close(e.block)
	under.Wait()
}

// A panic, a failure and a batch leave the room that they took.
func TestRoomIsGivenBackWhateverHappens(t *testing.T) {
	t.Parallel()
	meter := newCounted()
	s := serveWith(&fixed{panics: true}, server.Options{MaxConcurrent: 1, Meter: meter, DataPaths: []string{"/"}})
	for range 3 {
		wantProblem(t, s.ask(t, body), 500, "internal")
		wantDataError(t, s.do(t, "GET", "/v1/data", nil), 500, "internal_error")
		if status, got, _ := s.askBatch(t, orders("execute_all", "1", "2")); status != 200 || len(got.Evaluations) != 2 {
			t.Errorf("batch: %d %+v", status, got)
		}
	}
	if meter.decided["authzen indeterminate"] != 9 || meter.decided["data indeterminate"] != 3 || len(meter.shed) != 0 {
		t.Errorf("counted %v shed, %v decided", meter.shed, meter.decided)
	}
}

// Metrics and the reasons of health are on a listener of their own (S69).
func TestMetricsAreNotWhereDecisionsAre(t *testing.T) {
	t.Parallel()
	e := allowing()
	e.ready = fault.New(fault.Unavailable, "orders.rego:12").Named("degraded")
	wantProblem(t, serve(e).do(t, "GET", "/metrics", nil), 404, "not_found")
	status := &service{Handler: server.Status(e, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("metrics")) }), nil)}
	for path, want := range map[string]string{"/metrics": "metrics", "/healthz": `"ok"`, "/readyz": "orders.rego:12"} {
		if w := status.do(t, "GET", path, nil); w.Code != 200 || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	wantProblem(t, status.do(t, "POST", authzen.Path, strings.NewReader(body)), 404, "not_found")
}
