package budget_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/budget"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

const casesText = `reads:
  asks: GET /orders/17
  decision: allow
lists:
  asks: GET /orders
  decision: deny
pays:
  asks: POST /invoices/{id=3}/payments
  type: invoice
  decision: deny
`

func cases(t *testing.T) []golden.Case {
	t.Helper()
	all, err := golden.Parse("cases/c.yaml", []byte(casesText))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func query(t *testing.T, rules string) rego.PreparedEvalQuery {
	t.Helper()
	q, err := rego.New(rego.Query("data.x.y"), rego.Module("x.rego", "package x\n\n"+rules)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func measure(t *testing.T, text string, q rego.PreparedEvalQuery) ([]budget.Cost, error) {
	t.Helper()
	limits, err := budget.Parse("budget.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return limits.Measure(t.Context(), q, cases(t), func(golden.Case) (ast.Value, error) { return ast.NewObject(), nil })
}

func TestTheMostSpecificBudgetCounts(t *testing.T) {
	t.Parallel()
	all, err := measure(t, "p99: {default: 1, order: 2, GET order: 3, 'GET /orders/{id}': 4, 'POST /invoices/{id}/payments': 5}", query(t, "y := 1"))
	if err == nil || !strings.Contains(err.Error(), "p99: order: no case in cases/ is about it") {
		t.Errorf("%v, %v", all, err)
	}
	all, err = measure(t, "p99: {default: 1, GET order: 3, 'GET /orders/{id}': 4}", query(t, "y := 1"))
	if err != nil || len(all) != 3 || all[0].Key != "GET /orders/{id}" || all[1].Key != "GET order" || all[2].Key != "default" || all[2].Cases != 1 {
		t.Errorf("%+v, %v", all, err)
	}
}

// The price is a ratio to a policy that is measured at the same time: what costs as much again costs as much on any machine.
func TestWhatIsDearIsOverItsBudget(t *testing.T) {
	t.Parallel()
	dear := query(t, "y := count([i | some i in numbers.range(1, 3000); i % 3 == 0])")
	for _, c := range []struct {
		budget string
		q      rego.PreparedEvalQuery
		over   bool
	}{{"p99: {default: 100}", query(t, "y := 1"), false}, {"p99: {default: 100}", dear, true}, {"p99: {default: 900000}", dear, false}} {
		all, err := measure(t, c.budget, c.q)
		if err != nil || len(all) != 1 || all[0].Over() != c.over || (budget.Exceeded("budget.yaml", all) != nil) != c.over {
			t.Errorf("%s: %+v, %v", c.budget, all, err)
		}
	}
}

func TestAMeasurementEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	limits := budget.Limits{P99: map[string]float64{"default": 1}}
	if _, err := limits.Measure(ctx, query(t, "y := 1"), cases(t), func(golden.Case) (ast.Value, error) { return ast.NewObject(), nil }); err == nil {
		t.Error("it went on")
	}
}

func TestABudgetThatSaysNothingIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"p99: {order: 0}":       "b.yaml:1: p99: order: a budget is",
		"\np99: {order: .inf}":  "b.yaml:2: p99: order: a budget is",
		"scan: -1":              "b.yaml:1: scan",
		"growing: [a.b]":        "b.yaml:1: growing",
		"growing: ['']":         "b.yaml:1: growing",
		"grwoing: [a]":          "b.yaml:1: field grwoing not found",
		"p99: {order: a word}":  "b.yaml:1: a text (a word) stands where a number is wanted",
		"p99: [":                "b.yaml:",
		"default: {p99_us: 10}": "b.yaml:1: field default not found",
	} {
		if _, err := budget.Parse("b.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestASearchSaysWhatWouldBeCheaper(t *testing.T) {
	t.Parallel()
	bindings := make([]any, 300)
	for i := range bindings {
		bindings[i] = map[string]any{"user": fmt.Sprint("u", i), "role": "clerk"}
	}
	data := map[string]any{"rbac": map[string]any{"bindings": bindings, "users": bindings, "few": bindings[:3]}}
	for _, c := range []struct{ body, want string }{
		{"some b in data.rbac.bindings\n\tb.user == input.subject.id", "searched through at each decision, and has 300 members; make it an object by user, and look up data.rbac.bindings[input.subject.id]"},
		{"b := data.rbac.bindings[_]\n\tb.user == input.subject.id", "make it an object by user, and look up data.rbac.bindings[input.subject.id]"},
		{"data.rbac.bindings[_].user == input.subject.id", "make it an object by user, and look up data.rbac.bindings[input.subject.id]"},
		{"id := input.subject.id\n\tsome b in data.rbac.bindings\n\tb.user == id", "make it an object by user, and look up data.rbac.bindings[input.subject.id]"},
		{"some i\n\tdata.rbac.bindings[i] == input.subject.id", "make it an object that has its members as keys, and look up data.rbac.bindings[input.subject.id]"},
		{"input.subject.id in data.rbac.users", "read whole at each decision, and has 300 members; make it an object that has its members as keys, and look up data.rbac.users[input.subject.id]"},
		{"some b in data.rbac.bindings\n\tstartswith(b.user, \"a\")", "has 300 members; look it up by key"},
		{"some b in data.rbac.few\n\tb.user == input.subject.id", ""},
		{"data.rbac.bindings[3].user == input.subject.id", ""},
		{"some b in data.few\n\tb.user == input.subject.id", "is searched through at each decision, and it grows; make it an object by user, and look up data.few[input.subject.id]"},
	} {
		m, err := ast.ParseModuleWithOpts("x.rego", "package x\n\ny if {\n\t"+c.body+"\n}", ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		compiler := ast.NewCompiler()
		if compiler.Compile(map[string]*ast.Module{"x.rego": m}); compiler.Failed() {
			t.Fatal(compiler.Errors)
		}
		var got []string
		for _, s := range budget.Scans(compiler, data, compiler.Modules["x.rego"].Rules[0]) {
			if why := s.TooMuch(budget.Limits{Scan: 100, Growing: []string{"few"}}, false); why != "" {
				got = append(got, why)
			}
		}
		if text := strings.Join(got, "\n"); (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s\n got %s\nwant %s", c.body, text, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("p99: {order: 3, GET /orders/{id}: 4}\nscan: 5\ngrowing: [rbac/bindings]\n"))
	f.Add([]byte("p99: &a {x: .nan, y: *a}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := budget.Parse("b.yaml", text)
		if err != nil {
			return
		}
		for key, most := range l.P99 {
			if !(most > 0) {
				t.Errorf("%s: %v", key, most)
			}
		}
	})
}
