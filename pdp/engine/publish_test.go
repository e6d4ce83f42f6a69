package engine_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const owner = `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true, "reasons": ["owner"]} if input.subject.id == input.resource.properties.owner
`

const ownerCase = `the owner reads:
  who: {id: alice}
  asks: GET /orders/17
  known: {owner: alice}
  decision: allow
  reasons: [owner]
`

// published opens a policy that works, offers the same with files changed, and answers what was said of that. Whatever it was, the
// old one decides on if it was refused.
func published(t *testing.T, opts engine.Options, changed map[string]string) error {
	t.Helper()
	files := fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(owner)}, "cases/c.yaml": {Data: []byte(ownerCase)}}
	opts.Policies = files
	e := open(t, opts)
	before := e.Revision()
	for name, text := range changed {
		files[name] = &fstest.MapFile{Data: []byte(text)}
	}
	err := e.Reload(t.Context())
	if decided := may(t, e, "alice"); err != nil && (e.Revision() != before || !decided) {
		t.Errorf("the old policy does not decide any more: %t, %v", decided, err)
	}
	if degraded := e.Ready(); (err == nil) != (degraded == nil) || err != nil && !strings.Contains(degraded.Error(), "revision "+before+" goes on deciding") {
		t.Errorf("ready: %v after %v", degraded, err)
	}
	return err
}

func may(t *testing.T, e *engine.Engine, who string) bool {
	t.Helper()
	r := ask("order", "17")
	r.Subject.ID, r.Resource.Properties = who, map[string]any{"owner": "alice"}
	res, err := e.Evaluate(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res.Decision
}

func refusedAt(t *testing.T, err error, step, why string) {
	t.Helper()
	var r *engine.Refused
	if !errors.As(err, &r) || r.Step != step || !strings.Contains(err.Error(), why) {
		t.Errorf("refused by %v, want %s: %s", err, step, why)
	}
}

// S56: a policy that speaks of what nobody sends is never in force.
func TestAMisspeltMemberKeepsTheOldPolicy(t *testing.T) {
	t.Parallel()
	for text, why := range map[string]string{
		strings.Replace(owner, "input.subject.id ==", "input.subject.departement ==", 1): `gatehouse/authz.rego:5: input.subject.departement: input.subject has no "departement"; did you mean input.subject.attributes.department?`,
		strings.Replace(owner, "input.subject.id ==", "data.gatehouse.nothing ==", 1):    "gatehouse/authz.rego:5: data.gatehouse.nothing: there is neither",
	} {
		refusedAt(t, published(t, engine.Options{}, map[string]string{"gatehouse/authz.rego": text, "cases/c.yaml": ""}), engine.StepSchema, why)
		if err := published(t, engine.Options{Skip: []string{engine.StepSchema}}, map[string]string{"gatehouse/authz.rego": text, "cases/c.yaml": ""}); err != nil {
			t.Errorf("left out: %v", err)
		}
	}
}

func TestAPolicyFolderClosesWhatIsOpen(t *testing.T) {
	t.Parallel()
	text := strings.Replace(owner, "properties.owner", "properties.ownr", 1)
	files := map[string]string{"gatehouse/authz.rego": text, "cases/c.yaml": ""}
	if err := published(t, engine.Options{}, files); err != nil {
		t.Errorf("properties are open: %v", err)
	}
	files["schema.json"] = `{"properties": {"resource": {"properties": {"properties": {"properties": {"owner": {}}, "additionalProperties": false}}}}}`
	refusedAt(t, published(t, engine.Options{}, files), engine.StepSchema, "did you mean input.resource.properties.owner?")
	files["schema.json"] = `{"properties": 7}`
	refusedAt(t, published(t, engine.Options{}, files), engine.StepSchema, "schema.json:1: ")
}

// S53, S59: a policy that decides otherwise than was written down is never in force.
func TestAGoldenDecisionKeepsTheOldPolicy(t *testing.T) {
	t.Parallel()
	strict := strings.Replace(owner, "properties.owner", "properties.owner\n\tinput.subject.tenant == \"acme\"\n}", 1)
	strict = strings.Replace(strict, "if input.subject.id", "if {\n\tinput.subject.id", 1)
	refusedAt(t, published(t, engine.Options{}, map[string]string{"gatehouse/authz.rego": strict}), engine.StepGolden,
		"cases/c.yaml:1: the owner reads: decided deny no_rule, want allow owner")
	if err := published(t, engine.Options{Skip: []string{engine.StepGolden}}, map[string]string{"gatehouse/authz.rego": strict}); err != nil {
		t.Errorf("left out: %v", err)
	}
	refusedAt(t, published(t, engine.Options{}, map[string]string{"cases/d.yaml": strings.Replace(ownerCase, "allow", "alow", 1)}), engine.StepGolden,
		`cases/d.yaml:1: the owner reads: decision: "alow" is neither`)
	refusedAt(t, published(t, engine.Options{}, map[string]string{"cases/m.matrix.yaml": "m:\n  who: {a: {id: bob}}\n  when: {x: {known: {owner: alice}}}\n  decisions: {GET /orders/17: {a: [allow]}}\n"}),
		engine.StepGolden, "cases/m.matrix.yaml:4: m, a, GET /orders/17, x: decided deny no_rule, want allow")
}

func TestOnlySomeStepsCanBeLeftOut(t *testing.T) {
	t.Parallel()
	if _, err := engine.Open(t.Context(), engine.Options{Policies: module(""), Skip: []string{engine.StepTests}}); err == nil {
		t.Error("tests were left out")
	}
}

// A bundle brings what it is checked by, and what belongs to another bundle is not missing.
func TestWhatAPolicyIsCheckedByIsPackedWithIt(t *testing.T) {
	t.Parallel()
	part, err := engine.ReadFolder(fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte(strings.Replace(owner, "input.subject.id ==", "data.roles.of[input.subject.id] ==", 1))},
		"cases/c.yaml":         {Data: []byte(strings.Replace(ownerCase, "allow\n  reasons: [owner]", "deny", 1))}, "schema.json": {Data: []byte("{}")},
	})
	if err != nil {
		t.Fatal(err)
	}
	packed, err := engine.Pack(part)
	if err != nil {
		t.Fatal(err)
	}
	if names := slices.Sorted(maps.Keys(packed.Files)); !slices.Equal(names, []string{"cases/c.yaml", "gatehouse/authz.rego", "schema.json"}) {
		t.Errorf("packed %q", names)
	}
	part.Roots = packed.Roots
	if decides, err := engine.Check(t.Context(), part); err != nil || !decides {
		t.Errorf("checked: %t, %v", decides, err)
	}
	part.Roots = nil
	_, err = engine.Check(t.Context(), part)
	refusedAt(t, err, engine.StepSchema, "data.roles: there is neither")
}

// A decision that may come to cost any time is never in force.
func TestASearchThroughWhatGrowsKeepsTheOldPolicy(t *testing.T) {
	t.Parallel()
	search := strings.Replace(owner, "if input.subject.id", "if {\n\tsome b in data.rbac.bindings\n\tb.user == input.subject.id\n\tinput.subject.id", 1) + "}\n"
	files := map[string]string{"gatehouse/authz.rego": search, "rbac/data.yaml": "bindings: [{user: alice}]"}
	if err := published(t, engine.Options{}, files); err != nil {
		t.Fatal(err)
	}
	files["budget.yaml"] = "growing: [rbac/bindings]"
	refusedAt(t, published(t, engine.Options{}, files), engine.StepBudget,
		"gatehouse/authz.rego:6: data.rbac.bindings is searched through at each decision, and it grows; make it an object by user, and look up data.rbac.bindings[input.subject.id]")
	files["budget.yaml"] = "scan: 2"
	files["rbac/data.yaml"] = "bindings: [{user: alice}, {user: bob}, {user: carol}]"
	refusedAt(t, published(t, engine.Options{}, files), engine.StepBudget, "has 3 members")
	if err := published(t, engine.Options{Skip: []string{engine.StepBudget}}, files); err != nil {
		t.Errorf("left out: %v", err)
	}
	delete(files, "budget.yaml")
	files["rbac/data.yaml"] = "bindings: [" + strings.Repeat("{user: alice}, ", 10_001) + "]"
	refusedAt(t, published(t, engine.Options{}, files), engine.StepBudget, "has 10001 members")
}

func TestADecisionThatIsTooDearKeepsTheOldPolicy(t *testing.T) {
	t.Parallel()
	dear := strings.Replace(owner, "if input.subject.id", "if {\n\tcount([i | some i in numbers.range(1, 3000); i % 3 == 0]) > 3\n\tinput.subject.id", 1) + "}\n"
	files := map[string]string{"gatehouse/authz.rego": dear, "budget.yaml": "p99: {GET order: 100}"}
	opts := engine.Options{Tests: time.Minute}
	refusedAt(t, published(t, opts, files), engine.StepBudget, "budget.yaml: p99: GET order: a decision costs")
	files["budget.yaml"] = "p99: {GET order: 900000}"
	if err := published(t, opts, files); err != nil {
		t.Error(err)
	}
	files["budget.yaml"] = "p99: {GET ordr: 100}"
	refusedAt(t, published(t, opts, files), engine.StepBudget, "budget.yaml: p99: GET ordr: no case in cases/ is about it")
}
