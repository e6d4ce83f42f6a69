package engine_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

func TestADecisionIsMadeOnceForAllThatThePolicySeesAlike(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	e := open(t, engine.Options{
		Policies: module(`decision := {"allow": true, "reasons": [input.subject.id]} if {
			input.action.name == "GET"
			input.subject.attributes.department == "sales"
			input.context.time != ""
		}`),
		Now: func() time.Time { return time.Unix(clock.Load(), 0) },
	})
	r := ask("order", "17")
	r.Subject.Properties["attributes"] = map[string]any{"department": "sales", "floor": 3.0}
	ids := map[string]bool{}
	check := func(want bool, hits, misses uint64) {
		t.Helper()
		res, err := e.Evaluate(t.Context(), r)
		if err != nil || res.Decision != want || ids[res.Context.DecisionID] || res.Context.Revision != e.Revision() {
			t.Errorf("%+v %+v, %v", res, res.Context, err)
		}
		if want && res.Context.Reasons[0] != r.Subject.ID {
			t.Errorf("another's answer: %v", res.Context.Reasons)
		}
		ids[res.Context.DecisionID] = true
		if h, m := e.Remembered(); h != hits || m != misses {
			t.Errorf("%d hits and %d misses, want %d and %d", h, m, hits, misses)
		}
	}
	check(true, 0, 1)
	check(true, 1, 1)
	r.Resource.ID, r.Context["ip"] = "18", "10.0.0.2" // nothing looks there
	r.Subject.Properties["attributes"] = map[string]any{"department": "sales"}
	check(true, 2, 1)
	r.Subject.ID = "bob"
	check(true, 2, 2)
	r.Action.Name = "POST"
	check(false, 2, 3)
	check(false, 3, 3)
	clock.Add(1)
	check(false, 3, 4)
}

// What a look-up found counts as the policy sees it.
func TestWhatALookUpFoundTellsQuestionsApart(t *testing.T) {
	t.Parallel()
	var owner atomic.Value
	owner.Store("alice")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"owner":%q}`, owner.Load()) }))
	t.Cleanup(s.Close)
	var clock atomic.Int64
	files := fstest.MapFS{
		"gatehouse/authz.rego":   {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n")},
		"gatehouse/lookups.yaml": {Data: []byte("lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {owner: /owner}\n    ttl: 1s\n    deadline: 1s\n")},
	}
	e := open(t, engine.Options{Policies: files, Services: map[string][]string{"orders": {s.URL}}, Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	for i, want := range []bool{true, true, false} {
		if i == 2 {
			owner.Store("bob")
			clock.Add(10)
		}
		if res, err := e.Evaluate(t.Context(), ask("order", "17")); err != nil || res.Decision != want {
			t.Errorf("%d: %+v %+v, %v", i, res, res.Context, err)
		}
	}
}

func TestFailuresAreNotRemembered(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{NoNative: true, Policies: module(`decision := {"allow": "yes"} if input.action.name == "GET"

decision := {"allow": true} if input.context.ip == "nowhere"`)})
	for range 2 {
		res, err := e.Evaluate(t.Context(), ask("order", "17"))
		refused(t, res, err)
	}
	if hits, _ := e.Remembered(); hits != 0 {
		t.Error("a failure is remembered")
	}
	odd := ask("order", "17")
	odd.Action.Name, odd.Context["ip"] = "PUT", make(chan int) // no JSON
	if res, err := e.Evaluate(t.Context(), odd); err == nil || res.Decision {
		t.Errorf("%+v", res)
	}
}

// A policy must not know more than its input, or an answer would not hold for the next who asks (S62).
func TestNoPolicyAsksTheProcessForTheTime(t *testing.T) {
	t.Parallel()
	for _, call := range []string{`time.now_ns() > 0`, `crypto.x509.parse_and_verify_certificates("x")`, `crypto.x509.parse_and_verify_certificates_with_options("x", {})`, `rand.intn("x", 2) == 1`} {
		_, err := engine.Open(t.Context(), engine.Options{Policies: module(`decision := {"allow": true} if ` + call)})
		if err == nil || !strings.Contains(err.Error(), "undefined function") {
			t.Errorf("%s: %v", call, err)
		}
	}
}

func TestRememberedDecisionsStayWithinTheirMemory(t *testing.T) {
	t.Parallel()
	const bound = 1 << 20
	e := open(t, engine.Options{Policies: module(`decision := {"allow": false, "reasons": [input.subject.id]} if input.action.name == "GET"`), Memory: bound})
	r := ask("order", "17")
	for i := range 20_000 {
		r.Subject.ID = fmt.Sprintf("%0100d", i)
		if _, err := e.Evaluate(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n, bytes := e.Kept(); n < 1000 || bytes > bound {
		t.Errorf("%d decisions in %d bytes, of %d", n, bytes, bound)
	}
}

// Whatever a policy looks at, an engine that remembers answers as one that does not.
func TestRememberingChangesNoAnswer(t *testing.T) {
	t.Parallel()
	policies := anyPolicies()
	rapid.Check(t, func(rt *rapid.T) {
		body := policies.body(rt)
		var clock int64
		opts := engine.Options{Policies: module(body), Now: func() time.Time { return time.Unix(clock, 0) }, Deadline: time.Minute, Log: slog.New(slog.DiscardHandler)}
		remembering, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Skip(err) // not a policy: a comparison that OPA knows to be of two types, say
		}
		defer remembering.Close()
		opts.Memory = -1
		plain, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer plain.Close()
		for range rapid.IntRange(1, 40).Draw(rt, "questions") {
			clock = int64(rapid.IntRange(0, 1).Draw(rt, "clock"))
			r := policies.request(rt)
			want, wantErr := plain.Evaluate(t.Context(), r)
			for range 2 {
				got, gotErr := remembering.Evaluate(t.Context(), r)
				if got.Decision != want.Decision || !reflect.DeepEqual(got.Context.Reasons, want.Context.Reasons) || !reflect.DeepEqual(got.Context.Rules, want.Context.Rules) || (gotErr == nil) != (wantErr == nil) {
					rt.Fatalf("%s\n%+v: remembering %v %v %v, plain %v %v %v", body, r, got.Decision, got.Context.Reasons, gotErr, want.Decision, want.Context.Reasons, wantErr)
				}
			}
		}
	})
}

// What a look-up says under the name of one of the request's own members is not what a request says there, which policies do not see.
func TestWhatALookUpFoundIsNotWhatARequestSays(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"service":"shop"}`) }))
	t.Cleanup(s.Close)
	for _, looks := range []string{"input.resource.properties.service == \"shop\"", "input.resource.properties == {\"service\": \"shop\"}", "input.resource == object.union(input.resource, {\"properties\": {\"service\": \"shop\"}})"} {
		files := fstest.MapFS{
			"gatehouse/authz.rego":   {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if " + looks + "\n")},
			"gatehouse/lookups.yaml": {Data: []byte("lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {service: /service}\n    ttl: 1s\n    deadline: 1s\n")},
		}
		e := open(t, engine.Options{Policies: files, Services: map[string][]string{"orders": {s.URL}}, Skip: []string{engine.StepSchema, engine.StepBudget}})
		if res, err := e.Evaluate(t.Context(), ask("order", "17")); err != nil || !res.Decision {
			t.Fatalf("%s, looked up: %+v %+v, %v", looks, res, res.Context, err)
		}
		said := ask("invoice", "17")
		said.Resource.Properties = map[string]any{"service": "shop"}
		if res, err := e.Evaluate(t.Context(), said); err != nil || res.Decision {
			t.Errorf("%s, said: %+v, %v", looks, res, err)
		}
	}
}

// What a method changes is looked up anew behind it, whatever the action is called.
func TestWhatAnAllowedActionMayHaveChangedIsLookedUpAnew(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action authzen.Action
		anew   bool
	}{
		"a method":                {authzen.Action{Name: "DELETE"}, true},
		"a name of its own":       {authzen.Action{Name: "cancel", Properties: map[string]any{"method": "POST"}}, true},
		"a name, and a reading":   {authzen.Action{Name: "export", Properties: map[string]any{"method": "GET"}}, false},
		"a method, behind a POST": {authzen.Action{Name: "DELETE", Properties: map[string]any{"method": "POST"}}, true},
		"a name alone":            {authzen.Action{Name: "can_read"}, false},
	} {
		var asked atomic.Int64
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); fmt.Fprint(w, `{"owner":"alice"}`) }))
		t.Cleanup(s.Close)
		files := fstest.MapFS{
			"gatehouse/authz.rego":   {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n")},
			"gatehouse/lookups.yaml": {Data: []byte("lookups:\n  order:\n    url: http://orders/orders/{id}\n    properties: {owner: /owner}\n    ttl: 1m\n    deadline: 1s\n")},
		}
		e := open(t, engine.Options{Policies: files, Services: map[string][]string{"orders": {s.URL}}})
		r := ask("order", "17")
		r.Action = c.action
		for range 2 {
			if res, err := e.Evaluate(t.Context(), r); err != nil || !res.Decision {
				t.Fatalf("%s: %+v, %v", name, res, err)
			}
		}
		if anew := asked.Load() == 2; anew != c.anew {
			t.Errorf("%s: asked %d times", name, asked.Load())
		}
	}
}

// Two inputs whose keys have one hash are two inputs.
func TestAnAnswerIsForTheWholeKeyAlone(t *testing.T) {
	t.Parallel()
	a := engine.NewAnswers(1 << 20)
	a.Keep(7, "alice", "first")
	if got := a.Recall(7, "bob"); got != "" {
		t.Errorf("bob has the answer to alice: %s", got)
	}
	a.Keep(7, "bob", "second")
	a.Keep(7, "bob", "third") // asked at the same moment as the second
	if alice, bob := a.Recall(7, "alice"), a.Recall(7, "bob"); alice != "" || bob != "second" {
		t.Errorf("alice %q, bob %q", alice, bob)
	}
	if counted, kept := a.Size(); counted != kept {
		t.Errorf("%d bytes counted of %d", counted, kept)
	}
}

// Keys that need more room than most are remembered like others, up to those that are too long.
func TestAnswersToLongQuestionsAreRememberedToo(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if endswith(input.subject.attributes.note, "!")`)})
	var hits, misses uint64
	for _, length := range []int{10, 250, 300, 5000, 9000, 20} {
		for turn, end := range []string{"!", "!", "?"} {
			r := ask("order", "17")
			r.Subject.Properties["attributes"] = map[string]any{"note": strings.Repeat("x", length) + end}
			res, err := e.Evaluate(t.Context(), r)
			if err != nil || res.Decision != (end == "!") {
				t.Errorf("%d %s: %+v, %v", length, end, res, err)
			}
			switch {
			case length == 9000:
			case turn == 1:
				hits++
			default:
				misses++
			}
		}
	}
	if h, m := e.Remembered(); h != hits || m != misses {
		t.Errorf("%d hits and %d misses, want %d and %d", h, m, hits, misses)
	}
}
