package engine_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const twoReasons = `decision := {"allow": false, "reasons": sort(misses)} if count(misses) > 0

decision := {"allow": true, "reasons": ["open"]} if input.resource.type == "open"

misses contains "stranger" if not input.subject.id in {"alice", "bob"}

misses contains concat("_", ["not", input.action.name]) if input.resource.type == "secret"
`

// Whichever way a denial comes about, it is by the same rules.
func TestADenialSaysByWhichRules(t *testing.T) {
	t.Parallel()
	mallory, secret, opened := ask("order", "17"), ask("secret", "17"), ask("open", "17")
	mallory.Subject.ID = "mallory"
	for name, opts := range map[string]engine.Options{"native": {}, "topdown": {NoNative: true, NoPartial: true}, "partial": {NoNative: true}} {
		opts.Policies = module(twoReasons)
		e := open(t, opts)
		for range 3 { // remembered, the second time
			for _, c := range []struct {
				asked authzen.Request
				want  string
			}{
				{mallory, `gatehouse.authz.decision#1 gatehouse.authz.misses["stranger"]`},
				{secret, `gatehouse.authz.decision#1 gatehouse.authz.misses`},
				{ask("order", "17"), `gatehouse.authz.decision#default`},
				{opened, ``},
			} {
				res, err := e.Evaluate(t.Context(), c.asked)
				if got := strings.Join(res.Context.Rules, " "); err != nil || got != c.want {
					t.Errorf("%s, %s: %v by %s, want %s, %v", name, res.Context.EvaluatedBy, res.Context.Reasons, got, c.want, err)
				}
			}
		}
		allow, about, err := e.Try(t.Context(), secret, map[string]any{}, monday())
		if err != nil || allow || len(about.Rules) != 2 {
			t.Errorf("%s, tried: %v by %q, %v", name, allow, about.Rules, err)
		}
	}
}

// Two denials for the same reasons are by different rules if only one of them needs, or obliges to, something.
func TestWhatADenialNeedsTellsItsRulesApart(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": false, "reasons": ["weak"]} if input.resource.type == "a"

decision := {"allow": false, "reasons": ["weak"], "need": {"acr": "aal2"}} if input.resource.type == "b"

decision := {"allow": false, "reasons": ["weak"], "obligations": {"x": 1}} if input.resource.type == "c"

decision := {"allow": false} if input.resource.type == "d"

decision := {"allow": false, "reasons": []} if input.resource.type == "e"
`)})
	for range 2 {
		for i, kind := range []string{"a", "b", "c", "d", "e"} {
			res, err := e.Evaluate(t.Context(), ask(kind, "1"))
			if want := fmt.Sprintf("gatehouse.authz.decision#%d", i+1); err != nil || !slices.Equal(res.Context.Rules, []string{want}) {
				t.Errorf("%s: by %q, want %s, %v", kind, res.Context.Rules, want, err)
			}
		}
	}
}

// A failure to decide is by no rule (S56).
func TestWhatIsNotDecidedIsByNoRule(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": "no", "reasons": ["a"]} if input.subject.id == "alice"`)})
	res, err := e.Evaluate(t.Context(), ask("order", "17"))
	if refused(t, res, err); res.Context.Rules != nil {
		t.Errorf("by %q", res.Context.Rules)
	}
}

// The ids are those of the policies that decide.
func TestRuleIDsComeIntoForceWithTheirRules(t *testing.T) {
	t.Parallel()
	own := func(id string) fstest.MapFS {
		files, _ := module("# METADATA\n# custom:\n#   id: " + id + "\ndecision := {\"allow\": false, \"reasons\": [\"a\"]} if input.subject.id == \"alice\"\n").(fstest.MapFS)
		return files
	}
	for _, metadata := range []string{"R-1", "[broken", "{}"} {
		files := own(metadata)
		e := open(t, engine.Options{Policies: files})
		want := map[string]string{"R-1": "R-1", "[broken": "gatehouse.authz.decision", "{}": "gatehouse.authz.decision"}[metadata]
		for range 2 {
			if res, err := e.Evaluate(t.Context(), ask("order", "17")); err != nil || !slices.Equal(res.Context.Rules, []string{want}) {
				t.Errorf("METADATA %s: by %q, %v", metadata, res.Context.Rules, err)
			}
		}
		files["gatehouse/authz.rego"] = own("R-2")["gatehouse/authz.rego"]
		if err := e.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		if res, err := e.Evaluate(t.Context(), ask("order", "17")); err != nil || !slices.Equal(res.Context.Rules, []string{"R-2"}) {
			t.Errorf("after METADATA %s: by %q, %v", metadata, res.Context.Rules, err)
		}
	}
}

func TestADocumentThatIsFalseSaysByWhichRules(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{OtherInputs: true, Policies: module(twoReasons + `
default allow := false

allow if input.subject.id == "alice"

closed := false if input.subject.id == "alice"

envoy := {"allowed": false, "headers": {"x": "y"}} if input.subject.id == "alice"

shown := {"value": false}
`)})
	alice := map[string]any{"subject": map[string]any{"id": "alice"}}
	for range 40 { // natively at last
		for path, want := range map[string]string{
			"gatehouse/authz/closed": "gatehouse.authz.closed", "gatehouse/authz/envoy": "gatehouse.authz.envoy", "gatehouse/authz/allow": "", "gatehouse/authz/shown": "",
			"gatehouse/authz/absent": "",
		} {
			doc, err := e.Document(t.Context(), question(path, alice))
			if got := strings.Join(doc.Rules, " "); err != nil || got != want {
				t.Fatalf("%s: %v by %s, want %s, %v", path, doc.Value, got, want, err)
			}
		}
		doc, err := e.Document(t.Context(), question("gatehouse/authz/allow", map[string]any{}))
		if err != nil || !slices.Equal(doc.Rules, []string{"gatehouse.authz.allow#default"}) {
			t.Fatalf("%v by %q, %v", doc.Value, doc.Rules, err)
		}
	}
}

// Reasons that a policy makes of its input are without number; what is known of them is not.
func TestTheDenialsThatAreKnownAreBounded(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Memory: -1, Policies: module(`decision := {"allow": false, "reasons": [sprintf("not_%s", [input.subject.id])]} if input.subject.type == "user"`)})
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			r := ask("order", "17")
			for n := range 500 {
				r.Subject.ID = fmt.Sprint(i, n)
				if res, err := e.Evaluate(t.Context(), r); err != nil || !slices.Equal(res.Context.Rules, []string{"gatehouse.authz.decision"}) {
					t.Errorf("by %q, %v", res.Context.Rules, err)
					return
				}
			}
		})
	}
	all.Wait()
	if n := e.Known(); n == 0 || n > 1024 {
		t.Errorf("%d are known", n)
	}
}

// Reasons are told apart by more than what stands between them.
func TestReasonsOfAnyCharactersHaveTheirOwnRules(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": false, "reasons": ["a", "b"]} if input.resource.type == "two"

decision := {"allow": false, "reasons": ["a\u0000b"]} if input.resource.type == "one"

decision := {"allow": false, "reasons": ["as\u0001b"]} if input.resource.type == "other"
`)})
	for i, kind := range []string{"two", "one", "other"} {
		res, err := e.Evaluate(t.Context(), ask(kind, "1"))
		if want := fmt.Sprintf("gatehouse.authz.decision#%d", i+1); err != nil || !slices.Equal(res.Context.Rules, []string{want}) {
			t.Errorf("%s: by %q, want %s, %v", kind, res.Context.Rules, want, err)
		}
	}
}

// A denial like one before costs nothing but a look.
func TestToSayByWhichRulesTakesNoMemory(t *testing.T) { //nolint:paralleltest // allocations of others would count
	e := open(t, engine.Options{Policies: module(twoReasons)})
	about := authzen.ResponseContext{Reasons: []string{"stranger"}}
	if n := testing.AllocsPerRun(100, func() { e.Tell(&about) }); n != 0 || len(about.Rules) != 2 {
		t.Errorf("%v allocations, %q", n, about.Rules)
	}
}
