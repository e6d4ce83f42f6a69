package decide_test

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answering is a decision point of one answer, and a client of it.
func answering(t *testing.T, timeout time.Duration, h http.HandlerFunc) *decide.Client {
	t.Helper()
	s := httptest.NewServer(h)
	c, err := decide.New(decide.Options{URLs: []string{s.URL}, Timeout: timeout, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); s.Close() })
	return c
}

// S56: whatever is not a whole decision is none, and never an allowance.
func TestNonsenseIsNoDecision(t *testing.T) {
	t.Parallel()
	const allow = `{"decision":true}`
	for name, c := range map[string]struct {
		status int
		media  string
		body   string
	}{
		"an error status":      {500, "application/json", allow},
		"no content":           {204, "application/json", ""},
		"a redirect":           {302, "application/json", allow},
		"a web page":           {200, "text/html", allow},
		"nothing":              {200, "application/json", ""},
		"an empty object":      {200, "application/json", `{}`},
		"null":                 {200, "application/json", `{"decision":null}`},
		"a word":               {200, "application/json", `{"decision":"true"}`},
		"a number":             {200, "application/json", `{"decision":1}`},
		"another decision too": {200, "application/json", allow + allow},
		"half an answer":       {200, "application/json", `{"decision":true,`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := answering(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.media)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			wantUnavailable(t, client)
		})
	}
}

// S56: a decision that comes too late is none.
func TestASlowDecisionPointIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	client := answering(t, 20*time.Millisecond, func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) }) // before the server is closed: clean-ups run last in, first out
	wantUnavailable(t, client)
}

func TestADecisionPointThatIsBackIsAskedAtOnce(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "pdp.sock")
	client, err := decide.New(decide.Options{URLs: []string{"unix://" + socket}, Timeout: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	wantUnavailable(t, client)
	for range 2 {
		stop := serve(t, socket)
		if res, err := client.Decide(t.Context(), authzen.Request{}); err != nil || !res.Decision {
			t.Errorf("decision %v, error %v", res.Decision, err)
		}
		stop()
		wantUnavailable(t, client)
	}
}

func TestADenialIsADecision(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	client := answering(t, time.Minute, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"decision":false,"context":{"reasons":["not_owner"],"decision_id":"d1"}}`)
	})
	res, err := client.Decide(t.Context(), authzen.Request{})
	if err != nil || res.Decision || res.Context.Reasons[0] != "not_owner" || res.Context.DecisionID != "d1" || asked.Load() != 1 {
		t.Errorf("response %+v, error %v, asked %d times", res, err, asked.Load())
	}
}

func TestAnAddressThatCannotBeAskedIsRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "pdp:8181", "ftp://pdp", "http://", "unix://"} {
		if _, err := decide.New(decide.Options{URLs: []string{bad}, Timeout: time.Second}); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// serve allows everything on a socket until stop is called.
func serve(t *testing.T, socket string) (stop func()) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"decision":true}`)
	})}
	done := make(chan struct{})
	go func() { _ = s.Serve(l); close(done) }()
	return func() { _ = s.Close(); <-done }
}

func wantUnavailable(t *testing.T, c *decide.Client) {
	t.Helper()
	if res, err := c.Decide(t.Context(), authzen.Request{}); !errors.Is(err, decide.ErrUnavailable) || res.Decision {
		t.Errorf("decision %v, error %v; want policy_unavailable", res.Decision, err)
	}
}
