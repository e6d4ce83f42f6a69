package jose_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// issuer serves what it is told to and counts how often it is asked.
type issuer struct {
	mu     sync.Mutex
	status int
	body   []byte
	asked  atomic.Int64
}

func (i *issuer) say(status int, body []byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.status, i.body = status, body
}

func (i *issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	i.asked.Add(1)
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.status == http.StatusFound {
		w.Header().Set("Location", "/elsewhere")
	}
	w.WriteHeader(i.status)
	_, _ = w.Write(i.body)
}

// clock is moved by hand.
type clock struct{ at atomic.Int64 }

func (c *clock) now() time.Time          { return now.Add(time.Duration(c.at.Load())) }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

func remote(t *testing.T) (*jose.RemoteKeys, *issuer, *clock) {
	t.Helper()
	i, c := &issuer{}, &clock{}
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	r, err := jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: time.Hour, MaxAge: 2 * time.Hour, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	// Run with an ended context fetches once, fails, and drops its connections.
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	return r, i, c
}

// S38: a new key is found when the first token names it; the issuer is not asked again for a kid that it does not know.
func TestAnUnknownKeyIsFetchedOnceInTenSeconds(t *testing.T) {
	t.Parallel()
	r, i, c := remote(t)
	i.say(200, must(jose.PublicSet(testKey())))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 20 {
				_, _ = r.Key(context.Background(), "unknown", jose.RS256)
			}
		})
	}
	wg.Wait()
	if n := i.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times, want once", n)
	}
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
		t.Errorf("the key that came with it: %v", err)
	}
	second := must(jose.GenerateRSA(2048))
	i.say(200, must(jose.PublicSet(testKey(), second)))
	if _, err := r.Key(t.Context(), second.ID, jose.RS256); fault.CodeOf(err) != fault.Unauthenticated {
		t.Errorf("within ten seconds: %v, want an unknown key", err)
	}
	c.advance(10 * time.Second)
	if _, err := r.Key(t.Context(), second.ID, jose.RS256); err != nil {
		t.Errorf("after ten seconds: %v", err)
	}
}

// Requests that arrive while the first key set is on its way wait for it; they are not turned away.
func TestTheFirstFetchIsForAllWhoWait(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}), make(chan struct{})
	set := must(jose.PublicSet(testKey()))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-release
		_, _ = w.Write(set)
	}))
	t.Cleanup(s.Close)
	r := must(jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: time.Hour, Now: func() time.Time { return now }}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	<-asked
	const callers = 20
	answers := make(chan error, callers)
	for range callers {
		go func() {
			_, err := r.Key(context.Background(), testKey().ID, jose.RS256)
			answers <- err
		}()
	}
	select {
	case err := <-answers:
		t.Errorf("answered before the key set came: %v", err)
		answers <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	for range callers {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// S38: a fetch that had begun before a key was published does not make the key unknown for a minute.
func TestAFetchThatWasTooEarlyForAKeySaysNothingOfIt(t *testing.T) {
	t.Parallel()
	second := must(jose.GenerateRSA(2048))
	early, late := must(jose.PublicSet(testKey())), must(jose.PublicSet(testKey(), second))
	asked, release := make(chan struct{}), make(chan struct{})
	var first sync.Once
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		set := late
		first.Do(func() {
			close(asked)
			<-release
			set = early
		})
		_, _ = w.Write(set)
	}))
	t.Cleanup(s.Close)
	r := must(jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: time.Hour, Now: func() time.Time { return now }}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	<-asked
	answer := make(chan error)
	go func() {
		_, err := r.Key(context.Background(), second.ID, jose.RS256)
		answer <- err
	}()
	select {
	case err := <-answer:
		t.Fatalf("answered before the key set came: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if err := <-answer; fault.CodeOf(err) != fault.Unauthenticated {
		t.Errorf("by the early set: %v", err)
	}
	if _, err := r.Key(t.Context(), second.ID, jose.RS256); err != nil {
		t.Errorf("asked again: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestTheLastGoodSetOutlivesTheIssuer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status int
		body   []byte
	}{
		"away":     {503, nil},
		"nonsense": {200, []byte("<html>")},
		"emptied":  {200, []byte(`{"keys":[]}`)},
		"redirect": {302, nil}, // S31: followed nowhere
		"too big":  {200, make([]byte, 1<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, i, clock := remote(t)
			i.say(200, must(jose.PublicSet(testKey())))
			if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
				t.Fatal(err)
			}
			i.say(c.status, c.body)
			clock.advance(time.Minute)
			if _, err := r.Key(t.Context(), "unknown", jose.RS256); fault.CodeOf(err) != fault.Unauthenticated {
				t.Errorf("unknown key: %v", err)
			}
			if r.Ready() == nil {
				t.Error("the failed fetch is not reported")
			}
			if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
				t.Errorf("the known key is gone: %v", err)
			}
		})
	}
}

func TestWithoutAnyKeySetKeysAreUnavailable(t *testing.T) {
	t.Parallel()
	r, i, _ := remote(t)
	i.say(500, nil)
	_, err := r.Key(t.Context(), testKey().ID, jose.RS256)
	f, ok := fault.As(err)
	if !ok || f.Reason != "keys_unavailable" || f.Code != fault.Unavailable || errors.Unwrap(f) == nil {
		t.Errorf("error %v, want keys_unavailable with a cause", err)
	}
}

func TestAKeySetIsFetchedAtStart(t *testing.T) {
	t.Parallel()
	r, i, _ := remote(t)
	fetched := make(chan struct{})
	i.say(200, must(jose.PublicSet(testKey())))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	go func() {
		for _, ok := r.Age(); !ok && ctx.Err() == nil; _, ok = r.Age() {
			runtime.Gosched()
		}
		close(fetched)
	}()
	<-fetched
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
