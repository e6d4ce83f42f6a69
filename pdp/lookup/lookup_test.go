package lookup_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// clock is a settable time.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func serve(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func orders(overrides map[string]any) map[string]any {
	d := map[string]any{
		"url": "http://orders/orders/{id}", "ttl": "1s", "deadline": "2s",
		"properties": map[string]any{"owner": "/owner", "second": "/tags/1", "odd": "/a~1b/c~0d"},
	}
	for k, v := range overrides {
		if v == nil {
			delete(d, k)
			continue
		}
		d[k] = v
	}
	return map[string]any{"order": d}
}

func open(t testing.TB, document any, now func() time.Time, bases ...string) *lookup.Set {
	t.Helper()
	client := lookup.NewClient()
	t.Cleanup(client.CloseIdleConnections)
	s, err := lookup.New(document, map[string][]string{"orders": bases}, client, now)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDeclaredPropertiesAreFound(t *testing.T) {
	t.Parallel()
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"owner":"alice","secret":"x","tags":["a","b"],"a/b":{"c~d":7},"path":%q}`, r.URL.EscapedPath())
	})
	s := open(t, orders(nil), time.Now, api+"/v1/")
	got, err := s.Find(t.Context(), "order", "17")
	if err != nil {
		t.Fatal(err)
	}
	if got["owner"] != "alice" || got["second"] != "b" || fmt.Sprint(got["odd"]) != "7" || len(got) != 3 {
		t.Errorf("found %v", got)
	}
}

func TestAbsentPropertiesStayAbsent(t *testing.T) {
	t.Parallel()
	api := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"tags":["a"],"a/b":3}`) })
	got, err := open(t, orders(nil), time.Now, api).Find(t.Context(), "order", "17")
	if err != nil || len(got) != 0 {
		t.Errorf("found %v, %v", got, err)
	}
}

// S64: an id stays one segment of the declared path, or is refused before anything is asked.
func TestIDsCannotLeaveTheirSegment(t *testing.T) {
	t.Parallel()
	var asked sync.Map
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.RequestURI, true)
		fmt.Fprint(w, `{"owner":"alice"}`)
	})
	s := open(t, orders(nil), time.Now, api)
	for _, id := range []string{"", ".", "..", "../admin", "a/b", `a\b`, "/", "a\x00", "a\r\nHost: b", "\xff", strings.Repeat("a", 257)} {
		if got, err := s.Find(t.Context(), "order", id); err == nil {
			t.Errorf("%q found %v", id, got)
		}
	}
	asked.Range(func(uri, _ any) bool { t.Errorf("asked %v", uri); return true })
	for id, want := range map[string]string{
		"1?admin=1": "/orders/1%3Fadmin=1", "1#x": "/orders/1%23x", "%2e%2e": "/orders/%252e%252e", "a b": "/orders/a%20b",
		"é": "/orders/%C3%A9", "http://evil": "", "@evil": "/orders/@evil", ";x": "/orders/%3Bx",
	} {
		if _, err := s.Find(t.Context(), "order", id); (err == nil) != (want != "") {
			t.Errorf("%q: %v", id, err)
		}
		if _, ok := asked.Load(want); want != "" && !ok {
			t.Errorf("%q did not ask %s", id, want)
		}
	}
}

func TestMissingObjectsAreAnAnswerAndNotRemembered(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"owner":"alice"}`)
	})
	s := open(t, orders(nil), time.Now, api)
	got, err := s.Find(t.Context(), "order", "17")
	if err != nil || !cmp.Equal(got, map[string]any{"missing": true}) {
		t.Fatalf("found %v, %v", got, err)
	}
	if got, err = s.Find(t.Context(), "order", "17"); err != nil || got["owner"] != "alice" {
		t.Errorf("found %v, %v after it was created", got, err)
	}
}

// S64: no redirect is followed, sizes are capped; S56: all that is no answer is an error.
func TestBadAnswersAreErrors(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"owner":"mallory"}`) })
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) },
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"owner":%q}`, strings.Repeat("a", 300<<10))
		},
		"no JSON":      func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `<html>`) },
		"an array":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"owner":"alice"}]`) },
		"null":         func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `null`) },
		"two objects":  func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"owner":"a"}{"owner":"b"}`) },
		"empty":        func(http.ResponseWriter, *http.Request) {},
		"unauthorized": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) },
		"no content":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
		"failure":      func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, `{"owner":"alice"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := open(t, orders(nil), time.Now, serve(t, h)).Find(t.Context(), "order", "17"); err == nil {
				t.Errorf("found %v", got)
			}
		})
	}
}

func TestTheNextAddressAnswersForOneThatIsDown(t *testing.T) {
	t.Parallel()
	dead := httptest.NewServer(http.NotFoundHandler())
	dead.Close()
	var failing atomic.Int32
	broken := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		failing.Add(1)
		w.WriteHeader(http.StatusBadGateway)
	})
	alive := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"owner":"alice"}`) })
	s := open(t, orders(nil), time.Now, dead.URL, broken, alive)
	for _, id := range []string{"1", "2", "3"} {
		if got, err := s.Find(t.Context(), "order", id); err != nil || got["owner"] != "alice" {
			t.Fatalf("%s: found %v, %v", id, got, err)
		}
	}
	if n := failing.Load(); n != 1 {
		t.Errorf("the broken address was asked %d times; the one that answered last comes first", n)
	}
}

func TestAnAddressThatHangsLeavesTimeForTheNext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hanging := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(release) })
	alive := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"owner":"alice"}`) })
	s := open(t, orders(map[string]any{"deadline": "1s"}), time.Now, hanging, alive)
	if got, err := s.Find(t.Context(), "order", "1"); err != nil || got["owner"] != "alice" {
		t.Errorf("found %v, %v", got, err)
	}
	alone := open(t, orders(map[string]any{"deadline": "20ms"}), time.Now, hanging)
	start := time.Now()
	if got, err := alone.Find(t.Context(), "order", "1"); err == nil || time.Since(start) > time.Second {
		t.Errorf("found %v, %v after %s", got, err, time.Since(start))
	}
}

func TestAnswersAreRememberedForTheirTTL(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	api := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"owner":"%d"}`, calls.Add(1)) })
	c := &clock{}
	s := open(t, orders(nil), c.now, api)
	owner := func() any {
		t.Helper()
		got, err := s.Find(t.Context(), "order", "17")
		if err != nil {
			t.Fatal(err)
		}
		return got["owner"]
	}
	if a, b := owner(), owner(); a != "1" || b != "1" {
		t.Errorf("owners %v, %v", a, b)
	}
	if c.advance(999 * time.Millisecond); owner() != "1" {
		t.Error("forgotten too early")
	}
	if c.advance(time.Millisecond); owner() != "2" {
		t.Error("remembered too long")
	}
	if c.advance(-time.Hour); owner() != "3" {
		t.Error("a clock that is set back keeps an answer for longer")
	}
}

// Neither what was found before a change nor what is found while it may be under way is remembered.
func TestAnObjectThatChangesIsLookedUpAnew(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	begun, goOn := make(chan struct{}, 1), make(chan struct{})
	api := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n := asked.Add(1); n == 2 {
			begun <- struct{}{}
			<-goOn // it read the old owner, and is slow to say so
			fmt.Fprint(w, `{"owner":"alice"}`)
		} else {
			fmt.Fprintf(w, `{"owner":"owner %d"}`, n)
		}
	})
	var c clock
	s := open(t, orders(map[string]any{"ttl": "1m"}), c.now, api)
	find := func(want string, times int32) {
		t.Helper()
		if got, err := s.Find(t.Context(), "order", "17"); err != nil || got["owner"] != want || asked.Load() != times {
			t.Errorf("found %v, %v, asked %d times; want %s and %d", got, err, asked.Load(), want, times)
		}
	}
	find("owner 1", 1)
	find("owner 1", 1)
	s.Changing("order", "17")
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		find("alice", 2)
	}()
	<-begun
	c.advance(5 * time.Second)
	s.Changing("order", "17")
	close(goOn)
	<-slow
	find("owner 3", 3) // nor that one
	find("owner 4", 4)
	c.advance(10 * time.Second)
	find("owner 5", 5)
	find("owner 5", 5)
	s.Changing("order", "18") // another
	find("owner 5", 5)
}

// S67: a service is shown its own token, as the file has it now; what cannot be read is a failure that says nothing of it.
func TestAServiceIsShownItsToken(t *testing.T) {
	t.Parallel()
	var shown atomic.Value
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		shown.Store(r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"owner":"alice"}`)
	})
	file := filepath.Join(t.TempDir(), "token")
	s := open(t, orders(map[string]any{"ttl": "0s"}), time.Now, api)
	s.Authorize(map[string]string{"orders": file, "others": "/nowhere"})
	for _, token := range []string{"first", "second"} {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Find(t.Context(), "order", "17"); err != nil || shown.Load() != "Bearer "+token {
			t.Errorf("%s: shown %v, %v", token, shown.Load(), err)
		}
	}
	shown.Store("nothing")
	if err := os.WriteFile(file, []byte("a secret of two words"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Find(t.Context(), "order", "17"); err == nil || strings.Contains(err.Error(), "secret") || shown.Load() != "nothing" {
		t.Errorf("shown %v, %v", shown.Load(), err)
	}
}

func TestManyObjectsDoNotGrowTheMemoryWithoutBound(t *testing.T) {
	t.Parallel()
	s := open(t, orders(nil), time.Now, "http://127.0.0.1:1")
	for i := range 3 * lookup.MaxEntries {
		s.Remember("order", fmt.Sprint(i))
	}
	if n := s.Remembered(); n > lookup.MaxEntries {
		t.Errorf("%d remembered", n)
	}
}

func TestConcurrentCallersShareOneRequest(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	first, release := make(chan struct{}), make(chan struct{})
	api := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			close(first)
		}
		<-release
		fmt.Fprint(w, `{"owner":"alice"}`)
	})
	s := open(t, orders(nil), time.Now, api)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	impatient := make(chan error, 1)
	go func() { _, err := s.Find(ctx, "order", "17"); impatient <- err }()
	<-first
	for range 20 {
		wg.Go(func() {
			if got, err := s.Find(t.Context(), "order", "17"); err != nil || got["owner"] != "alice" {
				t.Errorf("found %v, %v", got, err)
			}
		})
	}
	cancel()
	if err := <-impatient; err == nil {
		t.Error("a caller that went away was answered")
	}
	close(release)
	wg.Wait()
	if n := calls.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestBadDeclarationsAreRefused(t *testing.T) {
	t.Parallel()
	client := lookup.NewClient()
	for name, o := range map[string]map[string]any{
		"unknown member":     {"cache": "1s"},
		"other scheme":       {"url": "file:///etc/{id}"},
		"no id":              {"url": "http://orders/orders"},
		"id in the host":     {"url": "http://{id}/orders"},
		"id in the query":    {"url": "http://orders/orders?id={id}"},
		"id in a segment":    {"url": "http://orders/orders/a{id}"},
		"id before a suffix": {"url": "http://orders/orders/{id}.json"},
		"two ids":            {"url": "http://orders/{id}/{id}"},
		"unknown service":    {"url": "http://users/{id}"},
		"user in the URL":    {"url": "http://a:b@orders/{id}"},
		"no properties":      {"properties": nil},
		"no pointer":         {"properties": map[string]any{"owner": "owner"}},
		"taken name":         {"properties": map[string]any{"missing": "/missing"}},
		"bad ttl":            {"ttl": "fast"},
		"long ttl":           {"ttl": "1h"},
		"no deadline":        {"deadline": "0s"},
		"long deadline":      {"deadline": "1m"},
	} {
		if _, err := lookup.New(orders(o), map[string][]string{"orders": {"http://a"}}, client, time.Now); err == nil {
			t.Errorf("%s was accepted", name)
		} else if !strings.Contains(err.Error(), `"order"`) && name != "unknown member" {
			t.Errorf("%s: %v does not name the look-up", name, err)
		}
	}
	for _, base := range []string{"", "orders", "ftp://a", "http://", "http://a?b", "http://u:p@a"} {
		if _, err := lookup.New(orders(nil), map[string][]string{"orders": {base}}, client, time.Now); err == nil {
			t.Errorf("address %q was accepted", base)
		}
	}
	if s, err := lookup.New(nil, nil, client, time.Now); err != nil || s.Declared("order") {
		t.Errorf("no declarations: %v, %v", s, err)
	}
}
