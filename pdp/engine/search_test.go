package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// searched opens policies that let "even" subjects in, with the search rules given.
func searched(t *testing.T, rules string) *Engine {
	t.Helper()
	e, err := Open(t.Context(), Options{Deadline: 5 * time.Second, Policies: fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte(`package gatehouse.authz
default decision := {"allow": false, "reasons": ["no_rule"]}
decision := {"allow": true} if endswith(input.subject.id, "0")
decision := {"allow": true} if input.subject.properties.parity == "even"
decision := {"allow": "perhaps"} if input.subject.id == "broken"
`)},
		"gatehouse/search.rego": {Data: []byte("package gatehouse.search\n" + rules)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func users(limit, from int) authzen.Search {
	return authzen.Search{For: authzen.Subjects, Limit: limit, From: from, Request: authzen.Request{
		Subject: authzen.Subject{Type: "user"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "1"},
	}}
}

func ids(f authzen.Found) string {
	var all []string
	for _, r := range f.Results {
		all = append(all, r.ID+r.Name)
	}
	return strings.Join(all, " ")
}

func TestASearchFindsWhatIsPermittedAndSaysWhetherThatIsAll(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules, found, reasons string
		undecided             int
	}{
		"all that there is": {`subjects := {"complete": true, "candidates": [{"type": "user", "id": id} | some id in ["10", "11", "20", "20"]]}`, "10 20", "", 0},
		"properties of candidates count": {
			`subjects := {"complete": true, "candidates": [{"type": "user", "id": "a", "properties": {"parity": "even"}}, {"type": "user", "id": "b"}]}`, "a", "", 0,
		},
		"other types are left out": {`subjects := {"complete": true, "candidates": {{"type": "robot", "id": "10"}, {"type": "user", "id": "30"}}}`, "30", "", 0},
		"the policy knows of some": {`subjects := {"complete": false, "candidates": [{"type": "user", "id": "10"}]}`, "10", "candidates_partial", 0},
		"the policy knows of none": {`subjects := {"complete": true, "candidates": []} if input.subject.type == "robot"`, "", "candidates_unknown", 0},
		"one cannot be decided on": {`subjects := {"complete": true, "candidates": [{"type": "user", "id": "broken"}, {"type": "user", "id": "10"}]}`, "10", "undecided", 1},
		"the input is the question": {
			`subjects := {"complete": true, "candidates": [{"type": input.subject.type, "id": concat("", [input.subject.id, input.resource.id, "0"])}]}`, "10", "", 0,
		},
	} {
		e := searched(t, c.rules)
		got, err := e.Search(t.Context(), users(100, 0))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if ids(got) != c.found || strings.Join(got.Reasons, " ") != c.reasons || got.Complete != (c.reasons == "") || got.Undecided != c.undecided || got.More || got.Revision != e.Revision() || got.DecisionID == "" {
			t.Errorf("%s: found %+v", name, got)
		}
	}
}

func TestPagesOfASearchFollowEachOther(t *testing.T) {
	t.Parallel()
	e := searched(t, `subjects := {"complete": true, "candidates": [{"type": "user", "id": format_int(n, 10)} | some n in numbers.range(1, 100)]}`)
	whole, err := e.Search(t.Context(), users(1000, 0))
	if err != nil || len(whole.Results) != 10 || whole.More {
		t.Fatalf("found %+v, %v", whole, err)
	}
	for limit := 1; limit <= 11; limit++ {
		var all []authzen.Entity
		q := users(limit, 0)
		for range 100 {
			page, err := e.Search(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page.Results...)
			if len(page.Results) > limit {
				t.Errorf("a page of %d has %d", limit, len(page.Results))
			}
			if !page.More {
				break
			}
			q.From, q.Revision = page.Next, page.Revision
		}
		if !slices.Equal(all, whole.Results) {
			t.Errorf("pages of %d found %v", limit, all)
		}
	}
	if none, err := e.Search(t.Context(), users(0, 0)); err != nil || len(none.Results) != 0 || !none.More || none.Next != 0 {
		t.Errorf("a page of none: %+v, %v", none, err)
	}
	for _, beyond := range []int{100, 1 << 30} {
		if none, err := e.Search(t.Context(), users(5, beyond)); err != nil || len(none.Results) != 0 || none.More {
			t.Errorf("from %d: %+v, %v", beyond, none, err)
		}
	}
	q := users(5, 10)
	q.Revision = "another"
	if _, err := e.Search(t.Context(), q); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("a page of other policies: %v", err)
	}
}

// A search is bounded: by how many it asks about, how many there may be, and its time. What is left is for the next page.
func TestASearchIsBounded(t *testing.T) {
	t.Parallel()
	e := searched(t, `subjects := {"complete": true, "candidates": [{"type": "user", "id": sprintf("%d.", [n])} | some n in numbers.range(1, 11000)]}`)
	q := users(10, 0)
	page, err := e.Search(t.Context(), q)
	if err != nil || len(page.Results) != 0 || !page.More || page.Next != maxAsked {
		t.Errorf("the first page: %d results, next %d, %v", len(page.Results), page.Next, err)
	}
	q.From = page.Next
	if page, err = e.Search(t.Context(), q); err != nil || page.More {
		t.Errorf("the second page: %+v, %v", page, err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if page, err := e.Search(late, users(10, 0)); err == nil || fault.CodeOf(err) != fault.Unavailable || len(page.Results) != 0 || page.DecisionID == "" {
		t.Errorf("without any time: %+v, %v", page, err)
	}
}

func TestWhatASearchCannotUnderstandIsAnError(t *testing.T) {
	t.Parallel()
	for _, rules := range []string{
		`subjects := 7`,
		`subjects := {"complete": true}`,
		`subjects := {"complete": "yes", "candidates": []}`,
		`subjects := {"complete": true, "candidates": {"a": 1}}`,
		`subjects := {"complete": true, "candidates": [], "total": 1}`,
		`subjects := {"complete": true, "candidates": ["10"]}`,
		`subjects := {"complete": true, "candidates": [{"type": "user"}]}`,
		`subjects := {"complete": true, "candidates": [{"type": "user", "id": 10}]}`,
		`subjects := {"complete": true, "candidates": [{"type": "user", "id": "10", "properties": []}]}`,
		`subjects := {"complete": true, "candidates": [{"type": "user", "id": "10", "name": "x"}]}`,
		`subjects := {"complete": true, "candidates": [net.cidr_contains("nonsense", "x")]}`,
		"subjects := {\"complete\": true, \"candidates\": []}\nsubjects := {\"complete\": false, \"candidates\": []}",
	} {
		got, err := searched(t, rules).Search(t.Context(), users(10, 0))
		if f, ok := fault.As(err); !ok || f.Reason != "policy_failed" || len(got.Results) != 0 || got.DecisionID == "" {
			t.Errorf("%s: found %+v, %v", rules, got, err)
		}
	}
	e := searched(t, `actions := {"complete": true, "candidates": [{"name": "GET"}]}`)
	if kinds := fmt.Sprint(e.Searches()); kinds != "[action]" {
		t.Errorf("offers %s", kinds)
	}
	if _, err := e.Search(t.Context(), users(10, 0)); !errors.Is(err, errUnsearchable) {
		t.Errorf("an unknown search: %v", err)
	}
	q := users(10, 0)
	q.For, q.Request.Subject.ID = authzen.Actions, "10"
	if got, err := e.Search(t.Context(), q); err != nil || ids(got) != "GET" {
		t.Errorf("actions: %+v, %v", got, err)
	}
}

// BenchmarkSearch is one page over a thousand subjects, of whom a hundred are permitted.
func BenchmarkSearch(b *testing.B) {
	e, err := Open(b.Context(), Options{Deadline: time.Minute, Policies: fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte(`package gatehouse.authz
default decision := {"allow": false, "reasons": ["no_rule"]}
decision := {"allow": true} if endswith(input.subject.id, "0")
`)},
		"gatehouse/search.rego": {Data: []byte(`package gatehouse.search
subjects := {"complete": true, "candidates": [{"type": "user", "id": id} | some id, _ in data.gatehouse.users]}
`)},
		"gatehouse/users.json": {Data: func() []byte {
			var all []string
			for i := range 1000 {
				all = append(all, fmt.Sprintf(`"u%d":{}`, i))
			}
			return []byte(`{"users":{` + strings.Join(all, ",") + `}}`)
		}()},
	}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	b.ReportAllocs()
	for b.Loop() {
		if found, err := e.Search(b.Context(), users(1000, 0)); err != nil || len(found.Results) != 100 || found.More {
			b.Fatalf("%+v, %v", found, err)
		}
	}
}
