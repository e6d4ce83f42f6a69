package bundle_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// sink notes what a source tells it. What it refuses does not decide.
type sink struct {
	mu     sync.Mutex
	told   []string
	refuse error
	wait   bool     // do not decide yet
	later  []func() // what would have begun to decide
	at     time.Time
}

func (s *sink) note(format string, args ...any) {
	s.told = append(s.told, fmt.Sprintf(format, args...))
}

func (s *sink) Put(_ context.Context, source string, b *bundle.Bundle, at time.Time, decides func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("put %s %s %s", source, b.Revision, b.KeyID)
	s.at = at
	switch {
	case s.refuse != nil:
		return s.refuse
	case s.wait:
		s.later = append(s.later, decides)
	default:
		decides()
	}
	return nil
}

func (s *sink) Confirm(source string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("confirm %s", source)
	s.at = at
}

func (s *sink) Refuse(_ context.Context, source string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("refuse %s: %v", source, err)
}

func (s *sink) Stored(string, error) {}

func (s *sink) Away(_ context.Context, source string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("away %s: %v", source, err)
}

// take answers what was told since it was asked last.
func (s *sink) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := strings.Join(s.told, "; ")
	s.told = nil
	return told
}

// clock is a time that tests set.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// running is a source between two requests.
type running struct {
	*sink
	t      *testing.T
	clock  *clock
	delays chan time.Duration
	wake   chan time.Time
	stop   func()
	logs   *bytes.Buffer // read after stop
}

// run starts a source and waits until it has asked once.
func run(t *testing.T, o bundle.Options) *running {
	t.Helper()
	r := &running{sink: &sink{}, t: t, clock: newClock(), delays: make(chan time.Duration), wake: make(chan time.Time), logs: &bytes.Buffer{}}
	if s, ok := o.Sink.(*sink); ok {
		r.sink = s
	}
	if o.Name == "" {
		o.Name = "authz"
	}
	if o.Now == nil {
		o.Now = r.clock.Now
	}
	o.Sink, o.Log = r.sink, slog.New(slog.NewTextHandler(r.logs, nil))
	s, err := bundle.NewSource(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.SetAfter(func(d time.Duration) <-chan time.Time {
		select {
		case r.delays <- d:
		case <-ctx.Done():
		}
		return r.wake
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := s.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	r.stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(r.stop)
	return r
}

// asked waits until the source has asked and answers how long it will wait then.
func (r *running) asked() time.Duration {
	r.t.Helper()
	select {
	case d := <-r.delays:
		return d
	case <-time.After(patience):
		r.t.Fatalf("it does not ask; told %q", r.take())
		return 0
	}
}

// again lets it ask once more.
func (r *running) again() time.Duration {
	r.t.Helper()
	r.wake <- time.Time{}
	return r.asked()
}

func (r *running) want(told string) {
	r.t.Helper()
	if got := r.take(); !strings.HasPrefix(got, told) || told == "" && got != "" {
		r.t.Errorf("told %q, want %q", got, told)
	}
}

// depot serves bundles as a test sets it.
type depot struct {
	*httptest.Server
	mu   sync.Mutex
	do   http.HandlerFunc
	seen []http.Header
}

func newDepot(t *testing.T, do http.HandlerFunc) *depot {
	t.Helper()
	d := &depot{do: do}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.seen = append(d.seen, r.Header.Clone())
		do := d.do
		d.mu.Unlock()
		do(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *depot) set(do http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.do = do
}

func (d *depot) last() http.Header {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen[len(d.seen)-1]
}

// serve is a server that knows ETags.
func serve(b []byte) http.HandlerFunc {
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:4]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", tag)
		_, _ = w.Write(b)
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// signed is a bundle of this revision by the tests' key.
func signed(t testing.TB, revision string) []byte {
	t.Helper()
	b, err := bundle.Sign(archive(t, entry{name: "x.rego", body: rego}, entry{name: ".manifest", body: `{"revision":"` + revision + `","roots":["gatehouse"]}`}), bundle.Limits{}, signing(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestASourceAsksForWhatIsNew(t *testing.T) {
	t.Parallel()
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Roots: []string{"gatehouse"}})
	if wait := r.asked(); wait < 27*time.Second || wait > 33*time.Second {
		t.Errorf("waits %v", wait)
	}
	r.want("put authz 1 release")
	if h := d.last(); h.Get("If-None-Match") != "" || h.Get("Authorization") != "" || h.Get("Prefer") != "modes=snapshot" {
		t.Errorf("asked with %v", h)
	}
	r.again()
	r.want("confirm authz")
	d.set(serve(signed(t, "2")))
	r.again()
	r.want("put authz 2 release")
	// Without ETags, the same again is nothing new.
	again := signed(t, "3")
	d.set(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(again) })
	r.again()
	r.want("put authz 3 release")
	r.again()
	r.want("confirm authz")
	if h := d.last(); h.Get("If-None-Match") != "" {
		t.Errorf("asked with an ETag that nobody gave: %v", h)
	}
}

// A server that does long polling answers when there is something new; one that does not is asked at intervals.
func TestLongPolling(t *testing.T) {
	t.Parallel()
	first, second := signed(t, "1"), signed(t, "2")
	publish := make(chan struct{})
	asked := make(chan string, 10)
	d := newDepot(t, func(w http.ResponseWriter, q *http.Request) {
		asked <- q.Header.Get("Prefer")
		w.Header().Set("Content-Type", "application/vnd.openpolicyagent.bundles")
		if q.Header.Get("If-None-Match") == `"1"` {
			<-publish
			w.Header().Set("ETag", `"2"`)
			_, _ = w.Write(second)
			return
		}
		w.Header().Set("ETag", `"1"`)
		_, _ = w.Write(first)
	})
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), LongPoll: 20 * time.Second})
	if wait := r.asked(); wait != time.Second {
		t.Errorf("waits %v before it asks a server that waits itself", wait)
	}
	r.want("put authz 1")
	r.wake <- time.Time{}
	<-asked
	if prefer := <-asked; prefer != "modes=snapshot;wait=20" {
		t.Errorf("asked to prefer %q", prefer)
	}
	r.clock.advance(19 * time.Second)
	close(publish)
	if wait := r.asked(); wait != 0 {
		t.Errorf("waits %v after a long poll", wait)
	}
	r.want("put authz 2")
	d.set(serve(first))
	if wait := r.again(); wait < 27*time.Second {
		t.Errorf("waits %v for a server that does not", wait)
	}
	r.again()
	if prefer := d.last().Get("Prefer"); prefer != "modes=snapshot" {
		t.Errorf("asked to prefer %q", prefer)
	}
}

func TestABundleMayBePackedOnceMoreForTheWay(t *testing.T) {
	t.Parallel()
	b := signed(t, "1")
	for name, body := range map[string][]byte{"twice": gz(t, b), "once, but called so": b} {
		d := newDepot(t, func(w http.ResponseWriter, q *http.Request) {
			if q.Header.Get("Accept-Encoding") != "gzip" {
				t.Errorf("asked for %v", q.Header)
			}
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(body)
		})
		r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, "")})
		r.asked()
		r.want("put authz 1 release")
		if name == "" {
			t.Error(name)
		}
	}
	// What unfolds beyond the limit on the way is not unfolded.
	bomb := gz(t, append([]byte{0x1f, 0x8b}, make([]byte, 4<<20)...))
	d := newDepot(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb)
	})
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Limits: bundle.Limits{Compressed: 1 << 20}})
	r.asked()
	r.want("refuse authz: ")
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]bundle.Options{
		"its name":            {Name: "../x", URL: "http://localhost/"},
		"url must be":         {Name: "a", URL: "file:///etc/passwd"},
		"neither":             {Name: "a", URL: "https://user:pw@example.test/"},
		"plain http":          {Name: "a", URL: "http://example.test/", TokenFile: "t"},
		"poll must":           {Name: "a", URL: "http://localhost/", Poll: -1},
		"long_poll must":      {Name: "a", URL: "http://localhost/", LongPoll: time.Millisecond},
		"max_staleness":       {Name: "a", URL: "http://localhost/", MaxStaleness: time.Minute},
		"needs max_staleness": {Name: "a", URL: "http://localhost/", DenyWhenStale: true},
		"limits":              {Name: "a", URL: "http://localhost/", Limits: bundle.Limits{Files: -1}},
		"overlap":             {Name: "a", URL: "http://localhost/", Roots: []string{"a", "a/b"}},
		"ca_file":             {Name: "a", URL: "http://localhost/", CAFile: "/dev/null"},
	} {
		if _, err := bundle.NewSource(o); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", want, err)
		}
	}
}
