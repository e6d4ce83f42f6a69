package sink_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func lines(t *testing.T, path string) (all []string) {
	t.Helper()
	for line := range strings.Lines(read(t, path)) {
		all = append(all, strings.TrimSuffix(line, "\n"))
	}
	return all
}

func TestAFileKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		path := filepath.Join(t.TempDir(), "decisions", "log.jsonl")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := sink.OpenFile(path)
		if err != nil {
			t.Fatal(err)
		}
		aside := filepath.Join(t.TempDir(), "aside")
		return sinktest.Place{
			Sink: s,
			Delivered: func(t *testing.T) []string {
				all := lines(t, path)
				if _, err := os.Stat(filepath.Join(aside, "log.jsonl")); err == nil {
					all = append(lines(t, filepath.Join(aside, "log.jsonl")), all...)
				}
				return all
			},
			Break: func(t *testing.T) func() { // its folder is gone
				if err := os.Rename(filepath.Dir(path), aside); err != nil {
					t.Fatal(err)
				}
				return func() {
					if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	})
}

// As logrotate does it: moved away, or removed, or copied and cut to nothing, or reopened because we are told to.
func TestAFileMayBeRotated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	s, err := sink.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to int) {
		t.Helper()
		if err := s.Write(t.Context(), sinktest.Records(from, to)); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 2)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(2, 5)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	write(5, 6)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	s.Reopen()
	write(6, 8)
	if a, b := lines(t, path+".1"), lines(t, path); len(a) != 2 || len(b) != 2 || !strings.Contains(b[0], "d-000006") {
		t.Errorf("%q, %q", a, b)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestALineThatACrashCutShortIsEnded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte("{\"whole\":1}\n{\"cut"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sink.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Write(t.Context(), sinktest.Records(0, 1)), s.Close()); err != nil {
		t.Fatal(err)
	}
	if got := lines(t, path); len(got) != 3 || got[1] != `{"cut` || !json.Valid([]byte(got[2])) {
		t.Errorf("%q", got)
	}
	if _, err := sink.OpenFile(filepath.Join(t.TempDir(), "none", "log")); err == nil {
		t.Error("a folder that is not there")
	}
}

// collector is a server that takes decision logs as OPA sends them.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	status   int
	headers  map[string]string
	most     int // records in one array
	requests []*http.Request
	records  []string
}

func collect(t *testing.T) *collector {
	c := &collector{status: http.StatusOK}
	c.Server = httptest.NewServer(http.HandlerFunc(c.serve))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) serve(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	z, err := gzip.NewReader(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusTeapot)
		return
	}
	body, err := io.ReadAll(z)
	var records []json.RawMessage
	if err != nil || json.Unmarshal(body, &records) != nil {
		http.Error(w, "not JSON", http.StatusTeapot)
		return
	}
	for k, v := range c.headers {
		w.Header().Set(k, v)
	}
	switch {
	case c.status != http.StatusOK:
		w.WriteHeader(c.status)
		_, _ = w.Write(body) // as some do
		return
	case c.most > 0 && len(records) > c.most:
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		return
	}
	for _, r := range records {
		c.records = append(c.records, string(r))
	}
}

func (c *collector) answer(status int, headers map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status, c.headers = status, headers
}

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestHTTPKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		c := collect(t)
		s, err := sink.OpenHTTP(sink.HTTPOptions{URL: c.URL, TokenFile: tokenFile(t, "secret-token\n")})
		if err != nil {
			t.Fatal(err)
		}
		return sinktest.Place{
			Sink:      s,
			Delivered: func(*testing.T) []string { c.mu.Lock(); defer c.mu.Unlock(); return c.records },
			Break: func(*testing.T) func() {
				c.answer(http.StatusInternalServerError, nil)
				return func() { c.answer(http.StatusOK, nil) }
			},
			Secrets: []string{"secret-token"},
		}
	})
}

func TestHTTPSpeaksOPAsProtocol(t *testing.T) {
	t.Parallel()
	c := collect(t)
	path := tokenFile(t, "first")
	s, err := sink.OpenHTTP(sink.HTTPOptions{URL: c.URL + "/base/", TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, token := range []string{"first", "second"} { // it may change at any time
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Write(t.Context(), sinktest.Records(0, 2)); err != nil {
			t.Fatal(err)
		}
		r := c.requests[len(c.requests)-1]
		if r.Method != http.MethodPost || r.URL.Path != "/base/logs" || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
	}
}

func TestWhatAServerAnswersSaysWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	c := collect(t)
	s, err := sink.OpenHTTP(sink.HTTPOptions{URL: c.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for status, rejected := range map[int]bool{
		200: false, 202: false, 204: false, 400: true, 413: true, 422: true,
		301: false, 401: false, 403: false, 404: false, 408: false, 415: false, 429: false, 500: false, 503: false,
	} {
		c.answer(status, map[string]string{"Location": c.URL + "/elsewhere"})
		err := s.Write(t.Context(), sinktest.Records(0, 1))
		if (err == nil) != (status < 300) || errors.Is(err, decisionlog.ErrRejected) != rejected {
			t.Errorf("%d: %v", status, err)
		}
	}
	for text, want := range map[string]time.Duration{"7": 7 * time.Second, "-1": 0, "soon": 0, "99999999999": time.Hour, time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat): 0} {
		c.answer(http.StatusServiceUnavailable, map[string]string{"Retry-After": text})
		var later decisionlog.Later
		if err := s.Write(t.Context(), sinktest.Records(0, 1)); errors.As(err, &later) != (want > 0) || later.After != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// S64: a token goes to no stranger, and nothing goes in the clear that is not told to.
func TestAnAddressThatIsNotToBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	for url, o := range map[string]sink.HTTPOptions{
		"http://collector.example": {}, "ftp://127.0.0.1": {}, "127.0.0.1": {}, "https://user:pw@collector.example": {}, "https://x.example/?q=1": {}, "": {},
		"https://no-token.example": {TokenFile: filepath.Join(t.TempDir(), "none")}, "https://bad-token.example": {TokenFile: tokenFile(t, "a\nb")},
		"https://empty-token.example": {TokenFile: tokenFile(t, "\n")},
	} {
		o.URL = url
		if _, err := sink.OpenHTTP(o); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// The whole way: from a decision to a server that takes few records at a time, is away for a while, and never takes one of them.
func TestAJournalShipsOverHTTP(t *testing.T) {
	t.Parallel()
	c := collect(t)
	c.most = 7
	c.answer(http.StatusBadGateway, nil)
	s, err := sink.OpenHTTP(sink.HTTPOptions{URL: c.URL})
	if err != nil {
		t.Fatal(err)
	}
	j, err := decisionlog.Open(decisionlog.Options{
		Dir: t.TempDir(), WhenFull: decisionlog.Block, Linger: 20 * time.Millisecond, Grace: 30 * time.Second, Sinks: map[string]decisionlog.Sink{"http": s},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- j.Run(ctx) }()
	for i := range 100 {
		if err := j.Record(t.Context(), &decisionlog.Event{DecisionID: string(rune('a' + i)), Outcome: decisionlog.Deny}); err != nil {
			t.Fatal(err)
		}
	}
	c.answer(http.StatusOK, nil)
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range c.records {
		seen[r] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d of 100 arrived", len(seen))
	}
}
