package decide_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
)

// pdp is a decision point that allows, counts, and may be made to do something else.
type pdp struct {
	*httptest.Server
	asked  atomic.Int64
	probed atomic.Int64
	does   atomic.Pointer[http.HandlerFunc]
}

func newPDP(t *testing.T) *pdp {
	t.Helper()
	p := &pdp{}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == authzen.MetadataPath {
			p.probed.Add(1)
		} else {
			p.asked.Add(1)
		}
		if h := p.does.Load(); h != nil {
			(*h)(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"decision":true}`)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pdp) do(h http.HandlerFunc) { p.does.Store(&h) }

func fails(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }

func several(t *testing.T, timeout time.Duration, points ...*pdp) *decide.Client {
	t.Helper()
	var urls []string
	for _, p := range points {
		urls = append(urls, p.URL)
	}
	c, err := decide.New(decide.Options{URLs: urls, Timeout: timeout, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantAllowed(t *testing.T, c *decide.Client) {
	t.Helper()
	if res, err := c.Decide(t.Context(), authzen.Request{}); err != nil || !res.Decision {
		t.Fatalf("decision %v, error %v", res.Decision, err)
	}
}

func TestTheFirstThatIsWellIsAsked(t *testing.T) {
	t.Parallel()
	a, b := newPDP(t), newPDP(t)
	c := several(t, time.Minute, a, b)
	wantAllowed(t, c)
	if a.asked.Load() != 1 || b.asked.Load() != 0 {
		t.Fatalf("asked %d and %d times", a.asked.Load(), b.asked.Load())
	}
	a.do(fails)
	for range 10 {
		wantAllowed(t, c)
	}
	if n := a.asked.Load(); n != 4 { // one good answer, and as many bad ones as show that it is not bad luck
		t.Errorf("the one that fails was asked %d times", n)
	}
	if err := c.Ready(); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("Ready = %v, want degraded", err)
	}
	b.do(fails)
	wantUnavailable(t, c)
}

func TestOneThatIsBackIsAskedFirstAgain(t *testing.T) {
	t.Parallel()
	a, b := newPDP(t), newPDP(t)
	c := several(t, time.Minute, a, b)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	a.do(fails)
	for range 4 {
		wantAllowed(t, c)
	}
	a.does.Store(nil)
	for deadline := time.Now().Add(time.Minute); c.Ready() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("it is not asked whether it is back")
		}
		<-time.After(10 * time.Millisecond)
	}
	before := b.asked.Load()
	wantAllowed(t, c)
	if b.asked.Load() != before || a.probed.Load() == 0 {
		t.Errorf("the second was asked; the first was probed %d times", a.probed.Load())
	}
}

// S56: one that hangs costs half of the time, and the other half is the next one's.
func TestOneThatHangsLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	a, b := newPDP(t), newPDP(t)
	release := make(chan struct{})
	a.do(func(http.ResponseWriter, *http.Request) { <-release })
	t.Cleanup(func() { close(release) })
	wantAllowed(t, several(t, 4*time.Second, a, b))
	if b.asked.Load() != 1 {
		t.Errorf("the second was asked %d times", b.asked.Load())
	}
}

func TestAllAreTriedAsLongAsThereIsTime(t *testing.T) {
	t.Parallel()
	a, b, c := newPDP(t), newPDP(t), newPDP(t)
	a.do(fails)
	b.Close()
	wantAllowed(t, several(t, time.Minute, a, b, c))
}

// A caller who hangs up says nothing about the decision point.
func TestACallerWhoHangsUpMakesNobodyUnwell(t *testing.T) {
	t.Parallel()
	a, b := newPDP(t), newPDP(t)
	c := several(t, time.Minute, a, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 5 {
		if _, err := c.Decide(ctx, authzen.Request{}); err == nil {
			t.Fatal("decided for nobody")
		}
	}
	if err := c.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
}

// A batch is one decision point's, and another's where that one fails.
func TestABatchIsAskedOfTheNextOne(t *testing.T) {
	t.Parallel()
	a, b := newPDP(t), newPDP(t)
	a.do(fails)
	b.do(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"evaluations":[{"decision":true},{"decision":true}]}`)
	})
	client := several(t, time.Minute, a, b)
	on := []authzen.Resource{{ID: "1"}, {ID: "2"}}
	got, err := client.DecideAll(t.Context(), authzen.Request{}, on)
	if err != nil || len(got) != 2 || !got[0].Decision || !got[1].Decision {
		t.Errorf("%+v, %v", got, err)
	}
	b.do(fails)
	if got, err = client.DecideAll(t.Context(), authzen.Request{}, on); !errors.Is(err, decide.ErrUnavailable) || got != nil {
		t.Errorf("nobody answers: %+v, %v", got, err)
	}
}
