package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// What evaluations keep rules' values in does what OPA's own does, however many there are.
func TestValuesOfRulesAreKeptAsOPAKeepsThem(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		here, there := engine.RuleValues(), topdown.NewVirtualCache()
		name := rapid.Map(rapid.IntRange(0, 6), func(i int) *ast.Term {
			return []*ast.Term{ast.StringTerm("a"), ast.StringTerm("b"), ast.IntNumberTerm(1), ast.BooleanTerm(true), ast.ArrayTerm(ast.StringTerm("a")), ast.NullTerm(), ast.StringTerm("1")}[i]
		})
		ref := rapid.Map(rapid.SliceOfN(name, 1, 3), func(names []*ast.Term) ast.Ref { return append(ast.Ref{ast.DefaultRootDocument}, names...) })
		depth := 0
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			switch what := rapid.SampledFrom([]string{"put", "put", "put", "get", "get", "push", "pop"}).Draw(rt, "step"); {
			case what == "push":
				here.Push()
				there.Push()
				depth++
			case what == "pop" && depth > 0:
				here.Pop()
				there.Pop()
				depth--
			case what == "put":
				r := ref.Draw(rt, "ref")
				if v, undefined := there.Get(r); v != nil || undefined {
					continue // no rule has two values
				}
				var v *ast.Term
				if rapid.Bool().Draw(rt, "defined") {
					v = ast.StringTerm(r.String())
				}
				here.Put(r, v)
				there.Put(r, v)
				r[len(r)-1] = ast.StringTerm("changed") // whose it is
			default:
				r := ref.Draw(rt, "ref")
				got, gone := here.Get(r)
				want, wantGone := there.Get(r)
				if got != want || gone != wantGone {
					rt.Fatalf("%v is %v %v, want %v %v", r, got, gone, want, wantGone)
				}
			}
			if got, want := len(here.Keys()), len(there.Keys()); got != want {
				rt.Fatalf("%d keys, want %d", got, want)
			}
		}
	})
}

// Rules that put something in the place of the input, or look at all of it, are shown all of it.
func TestTopdownIsShownWhatRulesLookAt(t *testing.T) {
	t.Parallel()
	for i, body := range []string{
		`decision := {"allow": true} if ok with input.subject.id as "bob" with input.extra as 1
ok if { input.subject.id == "bob"; input.extra == 1; input.resource.type == "order" }`,
		`decision := {"allow": true} if { input.subject.id == "alice"; ok with input as {"a": {"b": 1}} }
ok if input.a.b == 1`,
		`decision := {"allow": true} if walk(input, [_, "alice"])`,
		`decision := {"allow": true} if { some part in ["subject"]; input[part].id == "alice" }`,
		`decision := {"allow": true} if { s := input.subject; s.id == "alice"; input.subject.type == "user" }`,
		`decision := {"allow": true} if { not input.resource.nothing.at.all; not input.nobody; f(input.subject) == "alice" }
f(s) := s.id`,
		`decision := {"allow": true} if { object.get(input, ["subject", "id"], "") == "alice"; every k in ["subject", "action"] { input[k] } }`,
	} {
		e := open(t, engine.Options{Policies: module(body), NoNative: true, NoPartial: true, Skip: []string{engine.StepSchema}})
		reference := open(t, engine.Options{Policies: module(body), NoNative: true, NoPartial: true, Skip: []string{engine.StepSchema}})
		reference.AskRego()
		for _, id := range []string{"alice", "carol", ""} {
			r := ask("order", "17")
			r.Subject.ID = id
			got, err := e.Evaluate(t.Context(), r)
			want, wantErr := reference.Evaluate(t.Context(), r)
			if err != nil || wantErr != nil || got.Decision != want.Decision || id == "alice" && !got.Decision {
				t.Errorf("%d for %q: %v %v, want %v %v", i, id, got.Decision, err, want.Decision, wantErr)
			}
		}
	}
}

// Decisions that stand in rules as they are say all that they say when they are read each time, and so do others beside them.
func TestDecisionsAsTheyAreWrittenSayAllThatTheySay(t *testing.T) {
	t.Parallel()
	const body = `decision := {"allow": true, "reasons": ["clerk"], "obligations": {"upstream_headers": {"x-a": "1"}}} if input.subject.id == "alice"
else := {"allow": false, "reasons": ["weak"], "need": {"acr": "high", "max_age": 60}} if input.subject.id == "bob"
else := {"allow": true, "reasons": [sprintf("%s", [input.subject.id])]} if input.subject.id == "carol"
else := {"allow": "yes"} if input.subject.id == "dave"
else := {"allow": false, "reasons": ["resource_unknown"]} if input.subject.id == "erin"`
	for _, opts := range []engine.Options{{NoNative: true, NoPartial: true}, {NoNative: true}} {
		opts.Policies, opts.Memory = module(body), -1
		e, reference := open(t, opts), open(t, opts)
		reference.AskRego()
		for range 2 {
			for _, id := range []string{"alice", "bob", "carol", "dave", "erin", "frank"} {
				r := ask("order", "17")
				r.Subject.ID = id
				got, err := e.Evaluate(t.Context(), r)
				want, wantErr := reference.Evaluate(t.Context(), r)
				if (err == nil) != (wantErr == nil) || (err != nil) != (id == "dave") {
					t.Errorf("%s: %v, want %v", id, err, wantErr)
				}
				got.Context.DecisionID, got.Context.EvaluatedBy, want.Context.DecisionID, want.Context.EvaluatedBy = "", "", "", ""
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%s: %+v %+v, want %+v %+v", id, got, got.Context, want, want.Context)
				}
			}
		}
	}
}

// S56: nobody waits for topdown beyond the deadline, or goes on once the caller has gone.
func TestTopdownEndsWithItsCaller(t *testing.T) {
	t.Parallel()
	const forever = `decision := {"allow": true} if {
	some x in numbers.range(1, 30000)
	some y in numbers.range(1, 30000)
	x * y == -1
	input.subject.id == "alice"
}`
	e, err := engine.Open(t.Context(), engine.Options{Policies: module(forever), Skip: []string{engine.StepBudget}, Deadline: 20 * time.Second, Memory: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := time.AfterFunc(50*time.Millisecond, func() { cancel(gone) })
	defer stop.Stop()
	began := time.Now()
	res, err := e.Evaluate(ctx, ask("order", "17"))
	refused(t, res, err)
	if took := time.Since(began); !errors.Is(err, context.Canceled) || took > 15*time.Second {
		t.Errorf("%v after %s", err, took)
	}
	if _, err := e.Evaluate(ctx, ask("order", "17")); err == nil {
		t.Error("an evaluation that nobody waits for")
	}
}

// BenchmarkTopdown is topdown as the engine asks it beside package rego with an input that is made in the same way as it was before.
func BenchmarkTopdown(b *testing.B) {
	const body = `decision := {"allow": true} if { input.action.name == "GET"; some role in input.subject.roles; role == "clerk"; input.resource.type == "order" }`
	r := ask("order", "17")
	r.Subject.Properties = map[string]any{"roles": []any{"guest", "clerk"}, "attributes": map[string]any{"department": "d1"}}
	for _, way := range []string{"rego", "engine"} {
		b.Run(way, func(b *testing.B) {
			e, err := engine.Open(b.Context(), engine.Options{Policies: module(body), NoNative: true, NoPartial: true, Memory: -1, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			if way == "rego" {
				e.AskRego()
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := e.Evaluate(b.Context(), r); err != nil {
					b.Fatal(fmt.Errorf("%s: %w", way, err))
				}
			}
		})
	}
}
