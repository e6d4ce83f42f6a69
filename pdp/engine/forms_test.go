package engine_test

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/policies"
)

// Whatever a policy looks at, each form answers as topdown does. Requests hold what JSON has, and what Go code puts together.
func TestNoFormChangesAnAnswer(t *testing.T) {
	t.Parallel()
	policies := anyPolicies()
	native := uint64(0)
	rapid.Check(t, func(rt *rapid.T) {
		body := policies.body(rt)
		if strings.Contains(body, "walk(") {
			rt.Skip("not native")
		}
		var clock int64
		opts := engine.Options{Policies: module(body), Now: func() time.Time { return time.Unix(clock, 0) }, Deadline: time.Minute, Memory: -1, NoNative: true, NoPartial: true, Log: slog.New(slog.DiscardHandler)}
		plain, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Skip(err) // not a policy: a comparison that OPA knows to be of two types, say
		}
		defer plain.Close()
		plain.AskRego()
		topdown, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer topdown.Close()
		opts.NoPartial = false
		partial, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer partial.Close()
		opts.NoNative = false
		fast, err := engine.Open(t.Context(), opts)
		if err != nil {
			rt.Fatal(err)
		}
		defer fast.Close()
		if s := fast.Stats(); s.Wrong > 0 || s.EvaluatedBy != "native" {
			rt.Fatalf("%s\nis evaluated by %s, %d wrong", body, s.EvaluatedBy, s.Wrong)
		}
		for range rapid.IntRange(1, 40).Draw(rt, "questions") {
			clock = int64(rapid.IntRange(0, 1).Draw(rt, "clock"))
			r := policies.request(rt)
			want, wantErr := plain.Evaluate(t.Context(), r)
			for _, e := range []*engine.Engine{topdown, partial, fast} {
				got, gotErr := e.Evaluate(t.Context(), r)
				if got.Decision != want.Decision || !reflect.DeepEqual(got.Context.Reasons, want.Context.Reasons) || (gotErr == nil) != (wantErr == nil) {
					rt.Fatalf("%s\n%+v: %s %v %v %v, plain %v %v %v", body, r, got.Context.EvaluatedBy, got.Decision, got.Context.Reasons, gotErr, want.Decision, want.Context.Reasons, wantErr)
				}
				if by := because(want); !slices.Equal(got.Context.Rules, by) || !slices.Equal(want.Context.Rules, by) {
					rt.Fatalf("%s\n%+v: %s %v by %q, plain by %q, want %q", body, r, got.Context.EvaluatedBy, got.Context.Reasons, got.Context.Rules, want.Context.Rules, by)
				}
			}
		}
		native += fast.Stats().Evaluations["native"]
	})
	if native == 0 {
		t.Error("nothing was answered by native code")
	}
}

func TestThePoliciesShippedAreNative(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: policies.FS, Services: map[string][]string{"orders": {"http://127.0.0.1:1"}}})
	if s := e.Stats(); s.EvaluatedBy != "native" || s.Wrong != 0 {
		t.Errorf("%+v", s)
	}
	r := ask("order", "/orders")
	res, err := e.Evaluate(t.Context(), r)
	if err != nil || !res.Decision || res.Context.EvaluatedBy != "native" {
		t.Errorf("%+v %+v, %v", res, res.Context, err)
	}
	if res, err = e.Evaluate(t.Context(), r); err != nil || res.Context.EvaluatedBy != "remembered" {
		t.Errorf("%+v %+v, %v", res, res.Context, err)
	}
	off := open(t, engine.Options{Policies: policies.FS, Services: map[string][]string{"orders": {"http://127.0.0.1:1"}}, NoNative: true})
	if res, err := off.Evaluate(t.Context(), r); err != nil || !res.Decision || res.Context.EvaluatedBy == "native" {
		t.Errorf("switched off: %+v %+v, %v", res, res.Context, err)
	}
}

// A request for which native code has no answer is topdown's, and so are its errors (S56).
func TestWhatNativeCodeCannotAnswerIsTopdowns(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if { input.resource.type == "x"; net.cidr_contains("10.0.0.0/8", input.context.ip) }`)})
	r := ask("x", "1")
	res, err := e.Evaluate(t.Context(), r)
	if err != nil || !res.Decision || res.Context.EvaluatedBy != "native" {
		t.Errorf("%+v %+v, %v", res, res.Context, err)
	}
	r.Context["ip"] = "no address"
	res, err = e.Evaluate(t.Context(), r)
	refused(t, res, err)
	if s := e.Stats(); s.Left == 0 || s.Evaluations["topdown"] == 0 {
		t.Errorf("%+v", s)
	}
}

// A form that answers otherwise than topdown is not asked again, people are told, and topdown's word holds.
func TestAFormThatIsWrongIsDropped(t *testing.T) {
	t.Parallel()
	const right, wrong = `decision := {"allow": true} if input.subject.id == "alice"`, `decision := {"allow": true} if input.subject.id == "bob"`
	e := open(t, engine.Options{Policies: module(right), Memory: -1})
	other := open(t, engine.Options{Policies: module(wrong)})
	e.TakeNative(other)
	e.DoubtAlways()
	for _, id := range []string{"alice", "bob", "alice"} {
		r := ask("x", "1")
		r.Subject.ID = id
		res, err := e.Evaluate(t.Context(), r)
		if err != nil || res.Decision != (id == "alice") || res.Context.EvaluatedBy != "topdown" {
			t.Errorf("%s: %+v %+v, %v", id, res, res.Context, err)
		}
	}
	if s := e.Stats(); s.Wrong != 1 || s.EvaluatedBy != "topdown" {
		t.Errorf("%+v", s)
	}
	if err := e.Ready(); err == nil || !strings.Contains(err.Error(), "otherwise than topdown") {
		t.Errorf("ready: %v", err)
	}
	if why := e.CheckNative(other); !strings.Contains(why, "otherwise than topdown") {
		t.Errorf("when it comes into force: %q", why)
	}
}

// A document that is asked for often is answered by native code.
func TestDocumentsAreNativeOnceTheyAreAskedForOften(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if input.context.a == ["x", 1]`)})
	by := ""
	for range 20 {
		doc, err := e.Document(t.Context(), question("gatehouse/authz/decision", map[string]any{"context": map[string]any{"a": []any{"x", 1}}}))
		if err != nil || !doc.Defined || !reflect.DeepEqual(doc.Value, map[string]any{"allow": true}) {
			t.Fatalf("%+v, %v", doc, err)
		}
		by = doc.EvaluatedBy
	}
	if by != "topdown" { // the number is Go's, and not as JSON has it
		t.Errorf("by %s", by)
	}
	e.Settle()
	doc, err := e.Document(t.Context(), question("gatehouse/authz/decision", nil))
	if err != nil || doc.EvaluatedBy != "native" || !reflect.DeepEqual(doc.Value, map[string]any{"allow": false, "reasons": []any{"no_rule"}}) {
		t.Errorf("%+v, %v", doc, err)
	}
}

// S56: partial evaluation forgets, in a rule that others read, that what is compared with itself must be there.
func TestWhatIsComparedWithItselfMustBeThere(t *testing.T) {
	t.Parallel()
	for _, condition := range []string{"input.subject.roles == input.subject.roles", "same(input.subject.roles, input.subject.roles)", "x := input.subject.roles\n\tx == input.subject.roles"} {
		e := open(t, engine.Options{NoNative: true, Memory: -1, Policies: module("decision := {\"allow\": count(met) > 0} if count(met) > 0\n\n" +
			"met contains \"r0\" if {\n\tinput.subject.type == \"user\"\n\tinput.resource.route == input.resource.type\n\t" + condition + "\n}\n\nsame(x, y) if x == y\n")})
		r := ask("a", "1")
		r.Resource.Properties = map[string]any{"route": "a"}
		for _, roles := range []any{nil, []any{"clerk"}} {
			if r.Subject.Properties = map[string]any{}; roles != nil {
				r.Subject.Properties["roles"] = roles
			}
			for range 4 {
				res, err := e.Evaluate(t.Context(), r)
				if err != nil || res.Decision != (roles != nil) {
					t.Errorf("%s, roles %v: %+v %+v, %v", condition, roles, res, res.Context, err)
				}
			}
		}
	}
}

func TestAPartiallyEvaluatedFormMustBeFasterForRealQuestions(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		partial, plain time.Duration
		won            bool
	}{{20, 100, true}, {95, 100, false}, {150, 100, false}} {
		if won, n := engine.Trial(c.partial, c.plain); won != c.won || n > 200 {
			t.Errorf("%+v: %v after %d questions", c, won, n)
		}
	}
}

// Native programs read the very input that topdown is given, whatever path into it they look at.
func TestEveryWayToReadAnInputFindsTheSame(t *testing.T) {
	t.Parallel()
	drawn := anyPolicies()
	name := rapid.SampledFrom([]string{"subject", "action", "resource", "context", "id", "type", "name", "properties", "roles", "groups", "tenant", "attributes", "path", "segments", "route", "params", "owner", "ip", "time", "x"})
	rapid.Check(t, func(rt *rapid.T) {
		r := drawn.request(rt)
		r.Action.Name = rapid.SampledFrom([]string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "user", "get", ""}).Draw(rt, "action")
		var looked map[string]any
		if rapid.Bool().Draw(rt, "looked up") {
			looked = drawn.members.Draw(rt, "looked")
		}
		for range 20 {
			path := append([]string{rapid.SampledFrom([]string{"subject", "action", "resource", "context"}).Draw(rt, "first")}, rapid.SliceOfN(name, 0, 3).Draw(rt, "path")...)
			read, found, given, err := engine.Read(r, looked, path)
			if err != nil {
				rt.Skip(err)
			}
			for _, got := range []any{read, found} {
				if inJSON(rt, got) != inJSON(rt, given) {
					rt.Fatalf("%+v, looked up %v, at %v: %v, found %v, given %v", r, looked, path, read, found, given)
				}
			}
		}
	})
}

func inJSON(rt *rapid.T, v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		rt.Fatal(err)
	}
	return string(b)
}

// S56: what compares a part of the input with itself does not hold where there is none; partial evaluation forgets that.
func TestAFormThatForgetsWhatMustBeThereIsNotUsed(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Memory: -1, NoNative: true, Policies: module("decision := {\"allow\": true} if {\n\tinput.subject.type == \"user\"\n\tinput.resource.id == \"a\"\n\tinput.action.properties.x == input.action.properties.x\n}\n")})
	r := ask("order", "a")
	for range 300 { // beyond any trial
		if res, err := e.Evaluate(t.Context(), r); err != nil || res.Decision {
			t.Fatalf("allowed by %s, %v", res.Context.EvaluatedBy, err)
		}
	}
	r.Action.Properties = map[string]any{"x": true}
	if res, err := e.Evaluate(t.Context(), r); err != nil || !res.Decision {
		t.Errorf("denied by %s, %v", res.Context.EvaluatedBy, err)
	}
}
