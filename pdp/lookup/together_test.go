package lookup_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// of makes objects of the kind order.
func of(ids ...string) (all []lookup.Object) {
	for _, id := range ids {
		all = append(all, lookup.Object{Kind: "order", ID: id})
	}
	return all
}

// several declares a URL for several orders.
func several(overrides map[string]any) map[string]any {
	b := map[string]any{"url": "http://orders/orders?full=1&ids={ids}&x=y", "most": 3, "items": "/items", "id": "/key/id"}
	for k, v := range overrides {
		if v == nil {
			delete(b, k)
			continue
		}
		b[k] = v
	}
	return orders(map[string]any{"batch": b})
}

// shop is an API that has orders 1 to 9, of which it tells by one or by several.
type shop struct {
	mu    sync.Mutex
	asked []string
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.RequestURI)
	s.mu.Unlock()
	if id, one := strings.CutPrefix(r.URL.Path, "/orders/"); one {
		if len(id) > 1 {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `{"owner":"of %s"}`, id)
		return
	}
	items := []string{`{"key":{"id":"nobody asked"},"owner":"x"}`}
	for id := range strings.SplitSeq(r.URL.Query().Get("ids"), ",") {
		switch {
		case len(id) > 1:
		case id == "7":
			items = append(items, `{"key":{"id":7},"owner":"of 7"}`)
		default:
			items = append(items, fmt.Sprintf(`{"key":{"id":%q},"owner":"of %s"}`, id, id))
		}
	}
	fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
}

func (s *shop) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func find(t *testing.T, ctx context.Context, s *lookup.Set, ids ...string) map[string]any {
	t.Helper()
	got := map[string]any{}
	for _, id := range ids {
		found, err := s.Find(ctx, "order", id)
		if err != nil {
			t.Fatalf("%s: %v", id, err)
		}
		if got[id] = found["owner"]; found["missing"] == true {
			got[id] = "missing"
		}
	}
	return got
}

func TestObjectsOfABatchAreAskedForInOneRequest(t *testing.T) {
	t.Parallel()
	api := &shop{}
	s := open(t, several(nil), time.Now, serve(t, api.ServeHTTP))
	counts := &lookup.Counts{}
	s.CountIn(counts)
	find(t, t.Context(), s, "1")
	api.took()
	ctx := lookup.Together(t.Context(), append(of("1", "2", "7", "none", "2", "a,b", "/orders", "5"), lookup.Object{Kind: "other", ID: "1"}))
	got := find(t, ctx, s, "1", "2", "7", "none", "a,b", "5")
	if want := (map[string]any{"1": "of 1", "2": "of 2", "7": "of 7", "none": "missing", "a,b": "missing", "5": "of 5"}); !cmp.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	asked := map[string]bool{}
	for _, uri := range api.took() {
		asked[uri] = true
	}
	want := map[string]bool{"/orders?full=1&ids=2,7,none&x=y": true, "/orders/5": true, "/orders/a%2Cb": true} // the fourth fits into no request of three
	if !maps.Equal(asked, want) {
		t.Errorf("asked %v, want %v", asked, want)
	}
	if got := counts.All(); got[lookup.Count{Kind: "order", Result: lookup.Found}] != 4 || got[lookup.Count{Kind: "order", Result: lookup.Missing}] != 2 ||
		got[lookup.Count{Kind: "order", Result: lookup.Remembered}] != 1 {
		t.Errorf("counted %v", got)
	}
	find(t, t.Context(), s, "2", "7", "5") // what a batch found is remembered, and what is missing is not
	if again := api.took(); len(again) != 0 {
		t.Errorf("asked again: %v", again)
	}
	find(t, t.Context(), s, "none")
	if again := api.took(); len(again) != 1 {
		t.Errorf("asked %v", again)
	}
}

// S64: ids stay in their parameter, each its own.
func TestIDsOfABatchCannotLeaveTheirParameter(t *testing.T) {
	t.Parallel()
	api := &shop{}
	s := open(t, several(map[string]any{"most": 10}), time.Now, serve(t, api.ServeHTTP))
	ids := []string{"1&admin=1", "2#x", "3%26", "a b", "é", "4;5", "?6=7", "8+9", "http://evil"}
	ctx := lookup.Together(t.Context(), of(append(ids, "../1", "", "a\x00")...))
	find(t, ctx, s, ids[:8]...)
	if asked := api.took(); len(asked) != 1 || asked[0] != "/orders?full=1&ids=1%26admin%3D1,2%23x,3%2526,4%3B5,8%2B9,%3F6%3D7,a+b,%C3%A9&x=y" {
		t.Errorf("asked %q", asked)
	}
	for _, id := range []string{"http://evil", "../1", "", "a\x00"} {
		if found, err := s.Find(ctx, "order", id); err == nil {
			t.Errorf("%q: found %v", id, found)
		}
	}
}

func TestManyIDsMakeSeveralRequests(t *testing.T) {
	t.Parallel()
	api := &shop{}
	s := open(t, several(map[string]any{"most": nil, "items": "/items"}), time.Now, serve(t, api.ServeHTTP))
	var ids []string
	for i := range 150 {
		ids = append(ids, fmt.Sprintf("%d%s", i, strings.Repeat("x", 80)))
	}
	find(t, lookup.Together(t.Context(), of(ids...)), s, ids...)
	asked := api.took()
	if len(asked) != 4 {
		t.Errorf("%d requests for 150 ids of 12 KB", len(asked))
	}
	for _, uri := range asked {
		if len(uri) > 5000 {
			t.Errorf("a request line of %d bytes", len(uri))
		}
	}
}

// Without a URL for several, one request each, side by side; here each waits until there are sixteen.
func TestObjectsOfABatchAreLookedUpSideBySide(t *testing.T) {
	t.Parallel()
	const room = 16
	var under, most, calls atomic.Int32
	all, release := make(chan struct{}), make(chan struct{})
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n := under.Add(1)
		defer under.Add(-1)
		if most.Store(max(most.Load(), n)); calls.Add(1) == room {
			close(all)
		}
		<-release
		fmt.Fprintf(w, `{"owner":"of %s"}`, strings.TrimPrefix(r.URL.Path, "/orders/"))
	})
	s := open(t, orders(map[string]any{"ttl": "0s"}), time.Now, api) // nothing is remembered: the batch keeps its own
	var ids []string
	for i := range 2 * room {
		ids = append(ids, fmt.Sprint(i))
	}
	ctx := lookup.Together(t.Context(), of(ids...))
	done := make(chan map[string]any)
	go func() { done <- find(t, ctx, s, ids...) }()
	<-all
	close(release)
	got := <-done
	if len(got) != 2*room || got["31"] != "of 31" || most.Load() > room || calls.Load() != 2*room {
		t.Errorf("found %v, at most %d at once, %d requests", got, most.Load(), calls.Load())
	}
	find(t, ctx, s, ids[:3]...)
	if calls.Load() != 2*room {
		t.Error("an object of a batch is asked for twice")
	}
}

// S56, S64: whatever is not a whole answer is an error for each, never an object without properties; sizes are capped, and no redirect
// is followed.
func TestABadAnswerToABatchIsAnErrorForAll(t *testing.T) {
	t.Parallel()
	elsewhere := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"items":[{"key":{"id":"1"},"owner":"mallory"}]}`)
	})
	body := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
	}
	status := func(n int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(n); fmt.Fprint(w, `{"items":[]}`) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"redirect":       func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) },
		"too large":      body(`{"items":[],"x":"` + strings.Repeat("a", 2<<20) + `"}`),
		"no JSON":        body(`<html>`),
		"two values":     body(`{"items":[]}{"items":[]}`),
		"an array":       body(`[]`),
		"no items":       body(`{}`),
		"items of null":  body(`{"items":null}`),
		"an object":      body(`{"items":{"1":{}}}`),
		"no id":          body(`{"items":[{"owner":"a"}]}`),
		"an id of null":  body(`{"items":[{"key":{"id":null}}]}`),
		"null":           body(`{"items":[null]}`),
		"an id twice":    body(`{"items":[{"key":{"id":"1"},"owner":"a"},{"key":{"id":1},"owner":"b"}]}`),
		"not found":      status(404),
		"gone":           status(410),
		"unauthorized":   status(401),
		"failure":        status(500),
		"partial answer": status(206),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t, several(nil), time.Now, serve(t, h))
			ctx := lookup.Together(t.Context(), of("1", "2"))
			for _, id := range []string{"1", "2"} {
				if found, err := s.Find(ctx, "order", id); err == nil || found != nil {
					t.Errorf("%s: found %v, %v", id, found, err)
				}
			}
		})
	}
}

// S56: a panic while the objects of a batch are asked for is a failure of each, also of those that are asked for behind it.
func TestAPanicWithinABatchIsAnError(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	now := func() time.Time {
		if broken.Load() {
			panic("clock")
		}
		return time.Time{}
	}
	for name, known := range map[string]bool{"while asking": false, "before": true} {
		s := open(t, several(nil), now, "http://127.0.0.1:1")
		if broken.Store(false); known {
			s.Remember("order", "1") // so that the clock is looked at where the batch begins
		}
		broken.Store(true)
		ctx := lookup.Together(t.Context(), of("1", "2"))
		for i, id := range []string{"1", "2", "1"} {
			func() {
				defer func() {
					if p := recover(); p != nil && (i > 0 || !known) {
						t.Errorf("%s: %s panics", name, id)
					}
				}()
				if found, err := s.Find(ctx, "order", id); err == nil || found != nil {
					t.Errorf("%s: %s: found %v, %v", name, id, found, err)
				}
			}()
		}
	}
}

func TestABatchEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	begun, release := make(chan struct{}), make(chan struct{})
	api := serve(t, func(http.ResponseWriter, *http.Request) { close(begun); <-release })
	t.Cleanup(func() { close(release) })
	s := open(t, several(nil), time.Now, api)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Find(lookup.Together(ctx, of("1", "2")), "order", "1")
		done <- err
	}()
	<-begun
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAnObjectThatChangesIsNotRememberedOfABatch(t *testing.T) {
	t.Parallel()
	api := &shop{}
	s := open(t, several(nil), time.Now, serve(t, api.ServeHTTP))
	s.Changing("order", "1")
	find(t, lookup.Together(t.Context(), of("1", "2")), s, "1", "2")
	api.took()
	find(t, t.Context(), s, "1", "2")
	if asked := api.took(); len(asked) != 1 || asked[0] != "/orders/1" {
		t.Errorf("asked %v", asked)
	}
}

// Who asks behind a change gets no answer that was under way before it.
func TestNobodyJoinsALookUpFromBeforeAChange(t *testing.T) {
	t.Parallel()
	for name, ids := range map[string][]string{"one": {"1"}, "several": {"1", "2"}} {
		var asked atomic.Int64
		arrived, answer := make(chan struct{}, 2), make(chan struct{})
		api := &shop{}
		base := serve(t, func(w http.ResponseWriter, r *http.Request) {
			n := asked.Add(1)
			arrived <- struct{}{}
			if n == 1 {
				<-answer // of what was before
			}
			api.ServeHTTP(w, r)
		})
		release := sync.OnceFunc(func() { close(answer) })
		t.Cleanup(release)
		s := open(t, several(map[string]any{}), (&clock{}).now, base)
		first := make(chan struct{})
		look := func() { find(t, lookup.Together(t.Context(), of(ids...)), s, ids...) }
		go func() {
			defer close(first)
			look()
		}()
		<-arrived
		s.Changing("order", "1")
		look()
		release()
		<-first
		if n := asked.Load(); n != 2 {
			t.Errorf("%s: asked %d times", name, n)
		}
	}
}

func TestThatAnObjectIsMissingIsRememberedWhereDeclared(t *testing.T) {
	t.Parallel()
	api, c := &shop{}, &clock{}
	d := several(nil)
	d["order"].(map[string]any)["missing_ttl"] = "500ms"
	s := open(t, d, c.now, serve(t, api.ServeHTTP))
	find(t, lookup.Together(t.Context(), of("none", "nothing")), s, "none", "nothing")
	find(t, t.Context(), s, "never")
	api.took()
	if got := find(t, t.Context(), s, "none", "nothing", "never"); got["none"] != "missing" || got["never"] != "missing" || len(api.took()) != 0 {
		t.Errorf("found %v, and asked again", got)
	}
	c.advance(500 * time.Millisecond)
	if find(t, t.Context(), s, "none"); len(api.took()) != 1 {
		t.Error("remembered too long")
	}
}

func TestBadDeclarationsOfBatchesAreRefused(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]map[string]any{
		"unknown member":    {"max": 3},
		"no URL":            {"url": nil},
		"another service":   {"url": "http://users/orders?ids={ids}"},
		"another port":      {"url": "http://orders:81/orders?ids={ids}"},
		"a longer name":     {"url": "http://orders.evil/orders?ids={ids}"},
		"a user":            {"url": "http://a:b@orders/orders?ids={ids}"},
		"another scheme":    {"url": "https://orders/orders?ids={ids}"},
		"no ids":            {"url": "http://orders/orders"},
		"ids in the path":   {"url": "http://orders/orders/{ids}"},
		"ids in a value":    {"url": "http://orders/orders?ids=a{ids}"},
		"ids with a suffix": {"url": "http://orders/orders?ids={ids}z"},
		"ids in a name":     {"url": "http://orders/orders?{ids}=1"},
		"ids twice":         {"url": "http://orders/orders?a={ids}&b={ids}"},
		"an id besides":     {"url": "http://orders/orders?a={id}&b={ids}"},
		"a fragment":        {"url": "http://orders/orders?ids={ids}&#x"},
		"too many":          {"most": 1001},
		"less than none":    {"most": -1},
		"items of no kind":  {"items": "items"},
		"an id of no kind":  {"id": "id"},
		"a word for most":   {"most": "many"},
	} {
		if _, err := lookup.New(several(o), map[string][]string{"orders": {"http://a"}, "users": {"http://b"}}, lookup.NewClient(), time.Now); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := lookup.New(orders(map[string]any{"missing_ttl": "1h"}), map[string][]string{"orders": {"http://a"}}, lookup.NewClient(), time.Now); err == nil {
		t.Error("a missing_ttl of an hour was accepted")
	}
}

// roundTripper answers without a socket.
type roundTripper struct{ http.Handler }

func (r roundTripper) RoundTrip(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Result(), nil
}

// Whatever an API answers to a batch, each object is found, missing or failed, and none has properties of another.
func FuzzAnswerToABatch(f *testing.F) {
	for _, seed := range []string{`{"items":[{"key":{"id":"1"},"owner":"a"}]}`, `{"items":[{"key":{"id":1},"owner":"a"},{"key":{"id":"2"}}]}`, `{"items":[null]}`, `[`, `{"items":{"0":1}}`} {
		f.Add([]byte(seed))
	}
	var answer []byte
	server := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	client := &http.Client{Transport: roundTripper{server}}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer = data
		d := several(nil)
		d["order"].(map[string]any)["properties"] = map[string]any{"own": "/key/id"}
		s, err := lookup.New(d, map[string][]string{"orders": {"http://a"}}, client, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		ctx := lookup.Together(t.Context(), of("1", "2"))
		for _, id := range []string{"1", "2"} {
			found, err := s.Find(ctx, "order", id)
			own := found["own"]
			if n, ok := own.(json.Number); ok {
				own = string(n)
			}
			if (err == nil) != (found != nil) || err == nil && found["missing"] == nil && own != id {
				t.Errorf("%s: %v, %v of %q", id, found, err, data)
			}
		}
	})
}
