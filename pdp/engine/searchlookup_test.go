package engine_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// orders is an API of orders, of which each that ends in 0 is ann's, that counts what it is asked.
type orders struct {
	mu    sync.Mutex
	asked []string
	fail  func(*http.Request) bool // may be nil
}

func (o *orders) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked = append(o.asked, r.RequestURI)
	o.mu.Unlock()
	if o.fail != nil && o.fail(r) {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	owner := func(id string) string { return map[bool]string{true: "ann", false: "bob"}[strings.HasSuffix(id, "0")] }
	if id, one := strings.CutPrefix(r.URL.Path, "/orders/"); one {
		fmt.Fprintf(w, `{"owner":%q}`, owner(id))
		return
	}
	var items []string
	for id := range strings.SplitSeq(r.URL.Query().Get("ids"), ",") {
		items = append(items, fmt.Sprintf(`{"id":%q,"owner":%q}`, id, owner(id)))
	}
	fmt.Fprintf(w, "[%s]", strings.Join(items, ","))
}

func (o *orders) taken() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.asked
	o.asked = nil
	return all
}

// searching opens a policy that looks orders up, several in one request if batch says how, and knows n of them.
func searching(t testing.TB, o *orders, n int, batch string) *engine.Engine {
	t.Helper()
	api := httptest.NewServer(o)
	t.Cleanup(api.Close)
	return open(t, engine.Options{Deadline: 5 * time.Second, Services: map[string][]string{"orders": {api.URL}}, Policies: fstest.MapFS{
		"gatehouse/authz.rego":   {Data: []byte(strings.Replace(owner, "reasons\": [\"owner", "reasons\": [\"mine", 1))},
		"gatehouse/lookups.yaml": {Data: []byte("lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {owner: /owner}\n    deadline: 2s\n" + batch)},
		"gatehouse/search.rego": {Data: []byte(fmt.Sprintf(`package gatehouse.search

resources := {"complete": true, "candidates": [{"type": "order", "id": format_int(n, 10)} | some n in numbers.range(1, %d)]}

subjects := {"complete": true, "candidates": [{"type": "user", "id": id} | some id in ["ann", "bob", "cid", "dan"]]}

actions := {"complete": true, "candidates": [{"name": "GET"}, {"name": "PUT"}]}
`, n))},
	}})
}

const severalOrders = "    batch: {url: \"http://orders/orders?ids={ids}\"}\n"

func orderSearch(kind authzen.Kind, limit int) authzen.Search {
	return authzen.Search{For: kind, Limit: limit, Request: authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "ann"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "20"},
	}}
}

// S59: what a search may find is looked up as the objects of a batch are: at once where the API can, and never much more of it than
// the page is about.
func TestASearchLooksItsCandidatesUpTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		batch          string
		n, limit       int
		results, asked int
	}{
		"all at once":             {severalOrders, 250, 1000, 25, 3},
		"a page of a few":         {severalOrders, 250, 3, 3, 2},
		"each alone":              {"", 250, 1000, 25, 250},
		"a page of few, alone":    {"", 250, 1, 1, 16},
		"fewer than it looks for": {"", 5, 1000, 0, 5},
		"one candidate":           {severalOrders, 1, 1000, 0, 1},
		"none wanted":             {severalOrders, 250, 0, 0, 0},
	} {
		o := &orders{}
		e := searching(t, o, c.n, c.batch)
		found, err := e.Search(t.Context(), orderSearch(authzen.Resources, c.limit))
		if asked := o.taken(); err != nil || len(found.Results) != c.results || len(asked) != c.asked || found.Undecided != 0 {
			t.Errorf("%s: %d found, %d requests, %v: %.3q", name, len(found.Results), len(asked), err, asked)
		}
		if c.limit == 0 {
			continue
		}
		var every []string
		for i := 10; i <= c.n; i += 10 {
			every = append(every, fmt.Sprint(i))
		}
		if all, last := everything(t, e, orderSearch(authzen.Resources, c.limit)); !slices.Equal(all, every) || !last.Complete {
			t.Errorf("%s: all are %q, %+v", name, all, last)
		}
	}
}

// The one object that all candidates are asked about is looked up once.
func TestASearchLooksItsObjectUpOnce(t *testing.T) {
	t.Parallel()
	o := &orders{}
	e := searching(t, o, 1, severalOrders)
	for kind, want := range map[authzen.Kind]string{authzen.Subjects: "ann", authzen.Actions: "GET PUT"} {
		all, last := everything(t, e, orderSearch(kind, 10))
		if asked := o.taken(); strings.Join(all, " ") != want || !last.Complete || !slices.Equal(asked, []string{"/orders/20"}) {
			t.Errorf("%s: %q, asked %q", kind, all, asked)
		}
	}
	o.fail = func(*http.Request) bool { return true }
	if found, err := e.Search(t.Context(), orderSearch(authzen.Subjects, 10)); fault.CodeOf(err) != fault.Unavailable || len(found.Results) != 0 || found.DecisionID == "" {
		t.Errorf("found %+v, %v", found, err)
	}
}

// S59: candidates that could not be looked up are not found, and the answer says so; the others are decided on.
func TestCandidatesThatCannotBeLookedUpAreUndecided(t *testing.T) {
	t.Parallel()
	o := &orders{fail: func(r *http.Request) bool { return strings.HasPrefix(r.URL.Query().Get("ids"), "101,") }}
	e := searching(t, o, 250, severalOrders)
	found, err := e.Search(t.Context(), orderSearch(authzen.Resources, 1000))
	if err != nil || found.Undecided != 100 || len(found.Results) != 15 || found.Complete || !slices.Equal(found.Reasons, []string{authzen.ReasonUndecided}) {
		t.Errorf("%d found, %+v, %v", len(found.Results), found.Undecided, err)
	}
}

// Where time is over in the middle of a look-up, the next page begins with what had none.
func TestASearchEndsInTheMiddleOfALookUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	o := &orders{fail: func(r *http.Request) bool {
		if strings.HasPrefix(r.URL.Query().Get("ids"), "101,") {
			cancel()
			<-r.Context().Done()
		}
		return false
	}}
	e := searching(t, o, 250, severalOrders)
	found, err := e.Search(ctx, orderSearch(authzen.Resources, 1000))
	if err != nil || len(found.Results) != 10 || found.Next != 100 || !found.More || found.Undecided != 0 {
		t.Errorf("%d found, %+v, %v", len(found.Results), found, err)
	}
}

// BenchmarkSearchLooksUp is a page over 250 orders of an API that needs 2 ms for an answer.
func BenchmarkSearchLooksUp(b *testing.B) {
	for name, batch := range map[string]string{"in requests for several": severalOrders, "one request each": ""} {
		b.Run(name, func(b *testing.B) {
			o := &orders{fail: func(*http.Request) bool { time.Sleep(2 * time.Millisecond); return false }}
			e := searching(b, o, 250, batch)
			requests := 0
			for b.Loop() {
				if found, err := e.Search(b.Context(), orderSearch(authzen.Resources, 1000)); err != nil || len(found.Results) != 25 {
					b.Fatalf("%+v, %v", found, err)
				}
				requests += len(o.taken())
			}
			b.ReportMetric(float64(requests)/float64(b.N), "requests/op")
		})
	}
}
