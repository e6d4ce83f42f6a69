package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const canary = "canary-value"

// shop is policies with a package that the Data API is asked for.
func shop(rules string) fs.FS {
	return fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n")},
		"shop/shop.rego":       {Data: []byte("package shop\n\n" + rules)},
		"shop/data.yaml":       {Data: []byte("prices: {tea: 3, \"7\": 4}\nlist: [a, b]\n")},
	}
}

func question(path string, input any) dataapi.Question {
	q := dataapi.Question{Path: strings.FieldsFunc(path, func(c rune) bool { return c == '/' }), Input: input, HasInput: input != nil}
	return q
}

func TestADocumentIsTheValueAtAPath(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: shop("allow if input.user == \"ann\"\n\nseen := input\n\ntotal := data.shop.prices.tea + input.n\n")})
	ann := map[string]any{"user": "ann"}
	for path, c := range map[string]struct {
		input any
		want  any // nil: undefined
	}{
		"shop/allow": {ann, true}, "/shop//allow/": {ann, true}, "shop/seen": {ann, ann}, "shop/seen ": {ann, nil}, "shop/prices/tea": {nil, json.Number("3")},
		"shop/list/1": {nil, "b"}, "shop/total": {map[string]any{"n": json.Number("4")}, json.Number("7")}, "shop/none": {ann, nil},
		"no/such/thing": {ann, nil}, "shop/list/2": {nil, nil}, "shop/prices/7": {nil, json.Number("4")},
	} {
		doc, err := e.Document(t.Context(), question(path, c.input))
		if err != nil || doc.Defined != (c.want != nil) || !reflect.DeepEqual(doc.Value, c.want) {
			t.Errorf("%s: %+v, %v; want %v", path, doc, err, c.want)
		}
		if len(doc.DecisionID) != 36 || doc.Revision != e.Revision() {
			t.Errorf("%s: %+v", path, doc)
		}
	}
	for _, input := range []any{nil, map[string]any{"user": "bob"}} {
		if doc, err := e.Document(t.Context(), question("shop/allow", input)); err != nil || doc.Defined {
			t.Errorf("%v: %+v, %v", input, doc, err)
		}
	}
}

// S56: for documents too, what fails is an error and never a value; S67: which does not hold what the rule was working on.
func TestADocumentThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Deadline: 200 * time.Millisecond, Policies: shop(`conflict := x if some x in [1, 2]

builtin if not net.cidr_contains("10.0.0.0/8", input.ip)

late if {
	some x in numbers.range(1, 30000)
	some y in numbers.range(1, 30000)
	x * y == -1
}
`)})
	start := time.Now()
	defer func() {
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %s", took)
		}
	}()
	for _, path := range []string{"shop/conflict", "shop/builtin", "shop/late", "shop"} {
		doc, err := e.Document(t.Context(), question(path, map[string]any{"ip": canary}))
		f, ok := fault.As(err)
		if !ok || f.Reason != "policy_failed" || doc.Defined || doc.Value != nil || doc.DecisionID == "" || doc.Revision == "" {
			t.Errorf("%s: %+v, %v", path, doc, err)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the error repeats the input: %v", path, err)
		}
	}
	if _, err := e.Document(t.Context(), question("shop/conflict", make(chan int))); fault.CodeOf(err) != fault.Invalid {
		t.Errorf("no JSON: %v", err)
	}
}

// S56
func TestAPanicWithinADocumentIsAnError(t *testing.T) {
	t.Parallel()
	var armed bool
	e := open(t, engine.Options{Policies: shop("allow := true\n"), Now: func() time.Time {
		if armed {
			panic("clock")
		}
		return time.Now()
	}})
	armed = true
	if doc, err := e.Document(t.Context(), question("shop/allow", nil)); fault.CodeOf(err) != fault.Unavailable || doc.Defined {
		t.Errorf("%+v, %v", doc, err)
	}
}

// More paths than are kept prepared, asked by many at once.
func TestAnyNumberOfPathsIsAnswered(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: shop("twice[x] := 2 * x if x := input.n\n")})
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 600 {
				doc, err := e.Document(t.Context(), question(fmt.Sprintf("shop/twice/%d", i), map[string]any{"n": i}))
				if err != nil || doc.Value != json.Number(fmt.Sprint(2*i)) {
					t.Errorf("%d: %+v, %v", i, doc, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := e.Prepared(); n > 256 {
		t.Errorf("%d queries are kept", n)
	}
}

func TestADocumentIsOfThePoliciesThatDecideNow(t *testing.T) {
	t.Parallel()
	files := shop("allow := 1\n").(fstest.MapFS)
	e := open(t, engine.Options{Policies: files})
	if doc, err := e.Document(t.Context(), question("shop/allow", nil)); err != nil || doc.Value != json.Number("1") {
		t.Fatalf("%+v, %v", doc, err)
	}
	files["shop/shop.rego"] = &fstest.MapFile{Data: []byte("package shop\n\nallow := 2\n"), ModTime: time.Unix(1, 0)}
	if err := e.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if doc, err := e.Document(t.Context(), question("shop/allow", nil)); err != nil || doc.Value != json.Number("2") || doc.Revision != e.Revision() {
		t.Errorf("%+v, %v", doc, err)
	}
	s := e.Stats()
	if s.Loads != 2 || s.Failures != 0 || !s.Newest || s.Revision != e.Revision() || s.Since.IsZero() {
		t.Errorf("stats %+v", s)
	}
	files["shop/shop.rego"] = &fstest.MapFile{Data: []byte("package shop\n\nallow := "), ModTime: time.Unix(2, 0)}
	for range 2 {
		if err := e.Reload(t.Context()); err == nil {
			t.Fatal("broken policies were loaded")
		}
	}
	if s := e.Stats(); s.Loads != 2 || s.Failures != 1 || s.Newest {
		t.Errorf("stats %+v", s)
	}
}

// What no rule covers, what a rule denies and what fails are three things.
func TestOutcomesAreToldApart(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if input.resource.id == "yes"

decision := {"allow": false, "reasons": ["not_owner"]} if input.resource.id == "no"

decision := {"allow": false} if input.resource.id == "silent"

decision := {"allow": false, "reasons": ["action_unknown", "not_owner"]} if input.resource.id == "both"

decision := {"allow": 1} if input.resource.id == "malformed"
`)})
	for id, want := range map[string]authzen.Outcome{
		"yes": authzen.Permit, "no": authzen.Deny, "silent": authzen.Deny, "both": authzen.Deny, "other": authzen.NotApplicable, "malformed": authzen.Indeterminate,
	} {
		_, _ = e.Evaluate(t.Context(), ask("x", id)) // so that the next may be remembered
		res, err := e.Evaluate(t.Context(), ask("x", id))
		if res.Context.Outcome != want || res.Decision != (want == authzen.Permit) || (err != nil) != (want == authzen.Indeterminate) {
			t.Errorf("%s: %+v, %v; want %s", id, res.Context, err, want)
		}
	}
}

// S56: an evaluation that finds no processor within its deadline has failed; the next ones go on when there is one.
func TestWaitingForAProcessorEndsAtTheDeadline(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{NoNative: true, Deadline: time.Second, Policies: module(`decision := {"allow": true} if input.subject.id == "alice"`)})
	leave := e.Occupy()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	res, err := e.Evaluate(ctx, ask("x", "1"))
	refused(t, res, err)
	if doc, err := e.Document(ctx, question("gatehouse/authz/decision", nil)); err == nil || doc.Defined {
		t.Errorf("%+v, %v", doc, err)
	}
	leave()
	for range 3 * runtime.GOMAXPROCS(0) { // none is lost, whatever happens
		if res, err := e.Evaluate(t.Context(), ask("x", "1")); err != nil || !res.Decision {
			t.Fatalf("%+v, %v", res, err)
		}
	}
}
