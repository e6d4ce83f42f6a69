package bundle_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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

// S62: what is not signed, or reaches beyond its roots, is refused, and asked for again only when it has changed.
func TestASourceRefusesWhatIsNoGoodBundle(t *testing.T) {
	t.Parallel()
	good := signed(t, "1")
	wide, err := bundle.Sign(archive(t, entry{name: "x.rego", body: rego}, entry{name: ".manifest", body: `{"roots":["gatehouse","system"]}`}), bundle.Limits{}, signing(t, ""))
	if err != nil {
		t.Fatal(err)
	}
	d := newDepot(t, serve(good))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Roots: []string{"gatehouse"}, Limits: bundle.Limits{Compressed: 8 << 10}})
	r.asked()
	r.want("put authz 1")
	for want, b := range map[string][]byte{
		"not signed": archive(t, entry{name: "x.rego", body: rego}),
		`root "system" is outside the roots ["gatehouse"]`: wide,
		"not a .tar.gz archive":                            []byte("<html>log in here</html>"),
		"larger than 8192 bytes":                           append(slices.Clone(good), make([]byte, 8<<10)...),
		"something follows the archive":                    append(slices.Clone(good), 0),
	} {
		d.set(serve(b))
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "refuse authz: ") || !strings.Contains(told, want) {
			t.Errorf("%s: told %q", want, told)
		}
		if !strings.HasPrefix(want, "larger") {
			r.again()
			r.want("confirm authz")
		}
		d.set(serve(good)) // taken back
		r.again()
		r.want("put authz 1")
	}
}

// S64: redirects, endless waits and cut-off answers are failures. S67: none of them shows a URL's secret.
func TestAServerInTroubleIsAwayAndAskedLessOften(t *testing.T) {
	t.Parallel()
	whole := signed(t, "1")
	d := newDepot(t, status(http.StatusInternalServerError))
	const secret = "canary-7f3a"
	r := run(t, bundle.Options{URL: d.URL + "/b.tar.gz?sig=" + secret, Verifier: verifier(t, ""), Timeout: 4 * time.Second})
	least := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 30 * time.Second, 30 * time.Second}
	wait := r.asked()
	for i, d := range least {
		if wait < d || wait > 2*d {
			t.Errorf("failure %d: waits %v", i+1, wait)
		}
		r.want("away authz: answered 500")
		wait = r.again()
	}
	r.take()
	gone := httptest.NewServer(nil)
	gone.Close()
	for want, do := range map[string]http.HandlerFunc{
		"answered 404":            status(http.StatusNotFound),
		"answered 401":            status(http.StatusUnauthorized),
		"answered 206":            status(http.StatusPartialContent),
		"answered 204":            status(http.StatusNoContent),
		"answered 304; redirects": status(http.StatusNotModified),
		"answered 302; redirects are not followed": func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, d.URL+"/else", http.StatusFound) },
		"no answer in time":                        func(_ http.ResponseWriter, q *http.Request) { <-q.Context().Done() },
		"answer in time": func(w http.ResponseWriter, q *http.Request) { // a byte now and then
			for tick := time.NewTicker(10 * time.Millisecond); ; {
				select {
				case <-q.Context().Done():
					tick.Stop()
					return
				case <-tick.C:
					_, _ = w.Write(whole[:1])
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
		"the answer was cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "9999")
			_, _ = w.Write(whole[:100])
		},
		"in an encoding that was not asked for": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write(whole)
		},
		"something that is not gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, "x")
		},
		"EOF": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		d.set(do)
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, want) || strings.Contains(told, secret) {
			t.Errorf("%s: told %q", want, told)
		}
	}
	d.set(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "59")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if wait := r.again(); wait < 59*time.Second {
		t.Errorf("asked for 59 s, waits %v", wait)
	}
	d.set(serve(whole))
	r.take()
	if wait := r.again(); wait < 27*time.Second || wait > 33*time.Second {
		t.Errorf("back again, it waits %v", wait)
	}
	r.want("put authz 1")
	d.set(status(http.StatusBadGateway))
	if wait := r.again(); wait > time.Second {
		t.Errorf("the first failure after success waits %v", wait)
	}
	r.stop()
	if strings.Contains(r.logs.String(), secret) {
		t.Error("the URL's secret is in the log")
	}
}

func TestAHostThatIsNotThereIsAway(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	r := run(t, bundle.Options{URL: gone.URL + "?sig=canary-7f3a"})
	r.asked()
	if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, "refused") || strings.Contains(told, "canary") {
		t.Errorf("told %q", told)
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

// S64, S67
func TestTheTokenIsReadAnewAndStaysBetweenThem(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	elsewhere := newDepot(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect is followed") })
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), TokenFile: file})
	r.asked()
	if got := d.last().Get("Authorization"); got != "Bearer one" {
		t.Errorf("sent %q", got)
	}
	write("two")
	r.again()
	if got := d.last().Get("Authorization"); got != "Bearer two" {
		t.Errorf("sent %q", got)
	}
	d.set(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, elsewhere.URL, http.StatusTemporaryRedirect)
	})
	r.again()
	r.take()
	for _, text := range []string{"", "canary 7f3a", "canary\r\nX: y", strings.Repeat("x", 20<<10)} {
		write(text)
		r.again()
		if told := r.take(); !strings.HasPrefix(told, "away authz: token_file: ") || strings.Contains(told, "canary") {
			t.Errorf("told %q", told)
		}
	}
}

// S64
func TestOnlyTheNamedCertificatesAreBelieved(t *testing.T) {
	t.Parallel()
	b := signed(t, "1")
	s := httptest.NewTLSServer(serve(b))
	s.Config.ErrorLog = nil
	t.Cleanup(s.Close)
	r := run(t, bundle.Options{URL: s.URL, Verifier: verifier(t, "")})
	r.asked()
	if told := r.take(); !strings.HasPrefix(told, "away authz: ") || !strings.Contains(told, "certificate") {
		t.Errorf("told %q", told)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	r = run(t, bundle.Options{URL: s.URL, Verifier: verifier(t, ""), CAFile: ca})
	r.asked()
	r.want("put authz 1 release")
}

func TestABundleThatDidNotLoadIsTriedAgainNowAndThen(t *testing.T) {
	t.Parallel()
	d := newDepot(t, serve(signed(t, "1")))
	r := run(t, bundle.Options{URL: d.URL, Verifier: verifier(t, ""), Sink: &sink{refuse: errors.New("tests: took too long")}})
	r.asked()
	r.want("put authz 1")
	r.again()
	r.want("confirm authz")
	r.clock.advance(5 * time.Minute)
	r.again()
	r.want("put authz 1 release; confirm authz")
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
