package engine

import (
	"io/fs"
	"slices"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"

	"github.com/gatehouse-auth/gatehouse/policies"
)

// What is remembered stands on these references: they are those that OPA finds, none less.
func TestWhatARuleDependsOnIsWhatOPAFinds(t *testing.T) {
	t.Parallel()
	shipped, err := fs.ReadFile(policies.FS, "gatehouse/authz.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(shipped),
		"package p\n\nd := {\"allow\": f(input.a)}\n\nf(x) if x == input.b[input.c].d\n\nf(x) := data.e[x] if not g\n\ng if some h in input.list\n",
		"package p\n\nd := x if {\n\tx := data.q.r\n\tx in input.s\n} else := y if {\n\ty := [z | z := input.t[_]; z > data.u[input.v]]\n}\n",
		"package p\n\nd := data.p.inner[input.k]\n\ninner.a := input.a\n\ninner.b := input.b\n\ninner[x] := x if some x in input.many\n",
		"package p\n\nd if input == {\"a\": 1}\n", "package p\n\nd if every x in input.xs { x.y == data.z[x.w] }\n", "package p\n\nd if input.a with input.b as data.c\n",
	} {
		m, err := ast.ParseModule("m.rego", text)
		if err != nil {
			t.Fatal(err)
		}
		c := ast.NewCompiler()
		if c.Compile(map[string]*ast.Module{"m": m}); c.Failed() {
			t.Fatal(c.Errors)
		}
		query := ast.MustParseBody("x = " + m.Package.Path.String())
		want, err := dependencies.Base(c, query)
		if err != nil {
			t.Fatal(err)
		}
		have, err := baseOf(c, query)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(have, ast.RefCompare)
		if !slices.EqualFunc(have, want, ast.RefEqual) {
			t.Errorf("%s\nhave %v\nwant %v", text, have, want)
		}
	}
}
