package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

func rulesOf(t interface {
	Helper()
	Fatal(...any)
}, text string,
) *ast.Module {
	t.Helper()
	m, err := ast.ParseModuleWithOpts("p.rego", "package p\n\n"+text, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Rules that partial evaluation has multiplied are one again, and say what they said.
func TestRulesThatDifferInOneTextAreOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		rules string
		left  int
	}{
		{`allow if { "r1" = data.roles[input.id][__local1__]; input.a = "x" }
allow if { "r2" = data.roles[input.id][__local1__]; input.a = "x" }
allow if { "r3" = data.roles[input.id][__local1__]; input.a = "y" }`, 2},
		{`allow if { "r1" = data.roles[input.id][__local1__]; net.cidr_contains("10.0.0.0/8", input.ip) }
allow if { "r1" = data.roles[input.id][__local1__]; net.cidr_contains("192.168.0.0/16", input.ip) }
allow if { "r2" = data.roles[input.id][__local1__]; net.cidr_contains("10.0.0.0/8", input.ip) }
allow if { "r2" = data.roles[input.id][__local1__]; net.cidr_contains("192.168.0.0/16", input.ip) }`, 1},
		{`default allow := false
allow if { "r1" = data.roles[input.id][__local1__]; input.a = "x" } else := false
allow if { "r2" = data.roles[input.id][__local1__]; input.a = "x" } else := false
f(x) if { "r1" = data.roles[input.id][__local1__]; x = "x" }
f(x) if { "r2" = data.roles[input.id][__local1__]; x = "x" }`, 5},
		{`allow := 1 if "r1" = data.roles[input.id][__local1__]
allow := 2 if "r2" = data.roles[input.id][__local1__]
allow := input.a if "r1" = data.roles[input.id][__local1__]
allow := input.a if "r2" = data.roles[input.id][__local1__]`, 4},
		{`allow if not "r1" = data.roles[input.id][0]
allow if not "r2" = data.roles[input.id][0]
allow if { "r1" = data.roles[input.id][i]; i > input.n }
allow if { "r2" = data.roles[input.id][i]; i > input.n }`, 4},
		{`allow if { glob.match("/a/*", ["/"], input.a); input.b = "x" }
allow if { glob.match("/b/*", ["/"], input.a); input.b = "x" }`, 2},
	} {
		if left := engine.MergeRules(rulesOf(t, c.rules).Rules); len(left) != c.left {
			t.Errorf("%s\nare %v", c.rules, left)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		var b strings.Builder
		one := func(of ...string) string { return rapid.SampledFrom(of).Draw(rt, "of") }
		for range rapid.IntRange(1, 12).Draw(rt, "rules") {
			var body []string
			if n := rapid.IntRange(0, 1).Draw(rt, "order"); n == 0 {
				body = append(body, fmt.Sprintf("%q = input.a", one("x", "y")))
			}
			body = append(body, fmt.Sprintf("%q = data.roles[input.id][__local1__]", one("r1", "r2", "r3")))
			switch one("a", "network", "second", "nothing") {
			case "a":
				body = append(body, fmt.Sprintf("input.a = %q", one("x", "y")))
			case "network":
				body = append(body, fmt.Sprintf("net.cidr_contains(%q, input.ip)", one("10.0.0.0/8", "192.168.0.0/16", "0.0.0.0/1")))
			case "second":
				body = append(body, fmt.Sprintf("%q = data.groups[input.a][__local2__]", one("r1", "r2")))
			}
			fmt.Fprintf(&b, "allow if { %s }\n\n", strings.Join(body, "; "))
		}
		m := rulesOf(rt, b.String())
		merged := m.Copy()
		if merged.Rules = engine.MergeRules(merged.Rules); len(merged.Rules) > len(m.Rules) {
			rt.Fatal("more of them")
		}
		ask := func(m *ast.Module) rego.PreparedEvalQuery {
			c := ast.NewCompiler()
			if c.Compile(map[string]*ast.Module{"p.rego": m}); c.Failed() {
				rt.Fatal(c.Errors, m)
			}
			store := inmem.NewFromObject(map[string]any{"roles": map[string]any{"ann": []any{"r1", "r2"}, "bob": []any{"r3"}, "eve": "r1", "dan": map[string]any{"r": "r2"}, "joe": []any{1}}, "groups": map[string]any{"x": []any{"r1"}, "y": []any{}}})
			q, err := rego.New(rego.Query("data.p.allow"), rego.Compiler(c), rego.Store(store), rego.StrictBuiltinErrors(true)).PrepareForEval(t.Context())
			if err != nil {
				rt.Fatal(err)
			}
			return q
		}
		before, after := ask(m), ask(merged)
		for range 8 {
			in := map[string]any{"id": one("ann", "bob", "eve", "dan", "joe", "who"), "a": one("x", "y", "z"), "ip": one("10.1.1.1", "192.168.1.1", "200.1.1.1", "none")}
			want, wantErr := before.Eval(t.Context(), rego.EvalInput(in))
			got, err := after.Eval(t.Context(), rego.EvalInput(in), rego.EvalEarlyExit(false))
			if err != nil { // the rules as written are asked then
				continue
			}
			if wantErr != nil || len(got) != len(want) || len(got) > 0 && got[0].Expressions[0].Value != want[0].Expressions[0].Value {
				rt.Fatalf("%v\nof %v is %v, was %v (%v)", merged, in, got, want, wantErr)
			}
		}
	})
}
