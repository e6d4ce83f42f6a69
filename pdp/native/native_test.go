package native_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// pair is one policy, compiled here and prepared for topdown.
type pair struct {
	program *native.Program
	query   rego.PreparedEvalQuery
}

func compiled(t testing.TB, module, data string) (*ast.Compiler, map[string]any) {
	t.Helper()
	c := ast.NewCompiler()
	m, err := ast.ParseModuleWithOpts("p.rego", module, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	if c.Compile(map[string]*ast.Module{"p.rego": m}); c.Failed() {
		t.Fatal(c.Errors)
	}
	below := map[string]any{}
	if data != "" {
		if err := util.UnmarshalJSON([]byte(data), &below); err != nil {
			t.Fatal(err)
		}
	}
	return c, below
}

func pairOf(t testing.TB, module, data string) pair {
	t.Helper()
	c, below := compiled(t, module, data)
	p, err := native.Compile(c, below, ast.MustParseRef("data.p.x"))
	if err != nil {
		t.Fatal(err)
	}
	q, err := rego.New(rego.Query("data.p.x"), rego.Compiler(c), rego.Store(inmem.NewFromObjectWithOpts(below, inmem.OptRoundTripOnWrite(false))),
		rego.StrictBuiltinErrors(true)).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return pair{p, q}
}

// answers are what both say, as JSON; "undefined", or "error".
func (p pair) answers(t testing.TB, input any) (here, topdown string) {
	t.Helper()
	v, defined, err := p.program.Eval(t.Context(), native.JSON{Value: input}, time.Minute)
	here = written(t, v, defined, err)
	if err != nil && !errors.Is(err, native.ErrAskTopdown) {
		t.Fatal(err)
	}
	results, err := p.query.Eval(t.Context(), rego.EvalInput(input))
	if err != nil || len(results) == 0 {
		return here, written(t, nil, false, err)
	}
	return here, written(t, results[0].Expressions[0].Value, true, nil)
}

func written(t interface {
	Helper()
	Fatal(...any)
}, v any, defined bool, err error) string {
	t.Helper()
	switch {
	case err != nil:
		return "error"
	case !defined:
		return "undefined"
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func input(t testing.TB, text string) any {
	t.Helper()
	var v any
	if err := util.UnmarshalJSON([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Each body stands behind `package p`. want is what the program answers; where topdown must say the same it is checked besides.
func TestAProgramAnswersWhatTopdownAnswers(t *testing.T) {
	t.Parallel()
	const data = `{"d": {"a": [1, 2, {"k": "v"}], "o": {"x": 1, "y": [true, null]}, "s": "text", "roles": {"ann": ["clerk"], "bob": ["admin", "clerk"]}, "n": 1.0, "big": 123456789012345678901234567890,
		"rows": [{"k": "a", "v": 1}, {"k": "b"}, {"k": 1}, {"k": "a", "v": 3}, 1, null, "a", [], {}, {"k": 1.0}, {"k": null}, {"k": ["a"]}, {"k": {"a": 1}}, {"k": true}, {"k": "c"}, {"k": "a"}],
		"lists": {"x": [{"k": "a", "p": "/a/*", "v": 1}, {"k": "a", "p": "/*/b", "v": 2}, {"k": "b", "p": "/a/b", "v": 3}, {"k": "a", "p": "/a/**", "v": 4}, {"k": "a", "p": "/a/b", "v": 5}, {"k": "a", "v": 6}, {"k": 1, "p": "/a/b", "v": 7}, {"p": "/a/b", "v": 8}],
			"y": [{"k": "a", "p": "/a/b", "v": 9}], "z": [], "o": {"m": {"k": "a", "p": "/*/*", "v": 10}},
			"w": [{"k": "a", "p": "/a/b", "v": 1}, {"k": "a", "p": 1, "v": 2}, {"k": "b", "p": 1}, {"k": "b"}, {"k": "b"}, {"k": "b"}, {"k": "b"}, {"k": "c", "p": "[", "v": 1}]}}}`
	const granted = `x := [row.v | some row in data.d.lists[input.u]; row.k == input.k; glob.match(row.p, ["/"], input.p)]`
	for _, c := range []struct{ body, input, want string }{
		{`x := 1`, `{}`, `1`},
		{`x := 1.0`, `{}`, `1.0`},
		{`x if 1 == 1.0`, `{}`, `true`},
		{`x if input.n == data.d.n`, `{"n": 1}`, `true`},
		{`x if input.n == data.d.n`, `{"n": "1"}`, `undefined`},
		{`x if input.n in {1, 2}`, `{"n": 2.0}`, `true`},
		{`x := data.d.big`, `{}`, `123456789012345678901234567890`},
		{`x if input.a`, `{"a": false}`, `undefined`},
		{`x if input.a`, `{"a": null}`, `true`},
		{`x if not input.a`, `{"a": false}`, `true`},
		{`x if not input.a`, `{}`, `true`},
		{`x if not input.a`, `{"a": 0}`, `undefined`},
		{`x := input.a`, `{"a": false}`, `false`},
		{`default x := 3
x := 4 if input.a`, `{}`, `3`},
		{`default x := 3
x := false if input.a`, `{"a": 1}`, `false`},
		{`x := 1 if input.a else := 2 if input.b else := 3`, `{"b": 1}`, `2`},
		{`x := 1 if input.a else := 2 if input.b`, `{}`, `undefined`},
		{`x := 1 if input.a
x := 2 if input.b`, `{"a": 1, "b": 1}`, `error`},
		{`x := 1 if input.a
x := 2 if input.b`, `{"b": 1}`, `2`},
		{`x := 1 if input.a else := 2
x := 2 if input.b`, `{"b": 1}`, `2`},
		{`x := 1 if input.a else := 2
x := 3 if input.b`, `{"b": 1}`, `error`},
		{`x := 1 if input.a else := 2
x := 1 if input.b`, `{"b": 1}`, `error`},
		{`x := 1 if input.a else := 2
x := 1 if input.b else := 2`, `{}`, `2`},
		{`x contains y if some y in input.l`, `{"l": [3, 1, 1.0, "a", null]}`, `[null,1,3,"a"]`},
		{`x contains y if some y in input.l`, `{}`, `[]`},
		{`x if "b" in s
s contains y if some y in input.l`, `{"l": ["a", "b"]}`, `true`},
		{`x := [k | some k, v in input.o; v > 1]`, `{"o": {"c": 2, "b": 3, "a": 1}}`, `["b","c"]`},
		{`x := {[k]: v | some k, v in input.l}`, `{"l": []}`, `{}`},
		{`x := {v: k | some k, v in input.l}`, `{"l": ["a", "b"]}`, `{"a":0,"b":1}`},
		{`x := {v: k | some k, v in input.l}`, `{"l": ["a", "a"]}`, `error`},
		{`x := {v | some v in input.l}`, `{"l": [[2], [1], {"a": 1}]}`, `[[1],[2],{"a":1}]`},
		{`x if every v in input.l { v > 1 }`, `{"l": [2, 3]}`, `true`},
		{`x if every v in input.l { v > 1 }`, `{"l": []}`, `true`},
		{`x if every v in input.l { v > 1 }`, `{"l": [1, 2]}`, `undefined`},
		{`x if every v in input.l { v > 1 }`, `{"l": 5}`, `undefined`},
		{`x if every v in input.l { v > 1 }`, `{}`, `undefined`},
		{`x if every k, v in input.l { k != v }`, `{"l": {"a": "b"}}`, `true`},
		{`x := input.l[1]`, `{"l": [7, 8]}`, `8`},
		{`x := input.l[1]`, `{"l": {"1": 8}}`, `undefined`},
		{`x := input.l[5]`, `{"l": [7, 8]}`, `undefined`},
		{`x := input.l[i] if i := input.i`, `{"l": [7, 8], "i": 1}`, `8`},
		{`x := input.l[i] if i := input.i`, `{"l": [7, 8], "i": -1}`, `undefined`},
		{`x := input.s.length`, `{"s": "text"}`, `undefined`},
		{`x := data.d.s[0]`, `{}`, `undefined`},
		{`x := data.d.o[input.k]`, `{"k": "y"}`, `[true,null]`},
		{`x if data.d.roles[input.u][_] == "clerk"`, `{"u": "bob"}`, `true`},
		{`x if data.d.roles[input.u][_] == "root"`, `{"u": "bob"}`, `undefined`},
		{`x := u if { some u; data.d.roles[u][_] == "admin" }`, `{}`, `"bob"`},
		{`x := u if { some u; data.d.roles[u][_] == "clerk" }`, `{}`, `error`},
		{`x if { input.a = ["api", y, _]; y == "v" }`, `{"a": ["api", "v", 3]}`, `true`},
		{`x := y if input.a = ["api", y, _]`, `{"a": ["api", "v"]}`, `undefined`},
		{`x := y if {"a": y, "b": 1} = input`, `{"a": 2, "b": 1}`, `2`},
		{`x := y if {"a": y, "b": 1} = input`, `{"a": 2, "b": 1, "c": 3}`, `undefined`},
		{`x if [1, {"a": [true]}] == input.a`, `{"a": [1, {"a": [true]}]}`, `true`},
		{`x if {1, 2} == {2, 1}`, `{}`, `true`},
		{`x if input.a == {2, 1}`, `{"a": [1, 2]}`, `undefined`},
		{`x := f(input.a)
f("a") := 1
f(y) := 2 if y == "b"
f([y, _]) := y`, `{"a": [9, 1]}`, `9`},
		{`x := f(input.a)
f("a") := 1
f("b") := 2`, `{"a": "b"}`, `2`},
		{`x := f(input.a)
f("a") := 1
f("b") := 2`, `{"a": "c"}`, `undefined`},
		{`x := f(input.a)
default f(_) := 7
f("b") := 2`, `{"a": "c"}`, `7`},
		{`x if f(input.a)
f(y) := y`, `{"a": false}`, `undefined`},
		{`x if not f(input.a)
f(y) := y`, `{"a": false}`, `true`},
		{`x := f(input.a)
f(y) := 1 if y.b else := 2 if y.c`, `{"a": {"c": 1}}`, `2`},
		{`x := f(input.a)
f(y) := y
f(y) := "b" if y == "a"`, `{"a": "a"}`, `error`},
		{`x := g(g(input.a))
g(y) := [y]`, `{"a": 1}`, `[[1]]`},
		{`x := startswith(input.a, "/")`, `{"a": "/x"}`, `true`},
		{`x := startswith(input.a, "/")`, `{"a": "x"}`, `false`},
		{`x if not startswith(input.a, "/")`, `{"a": 1}`, `error`},
		{`x if startswith(input.a, "/")`, `{}`, `undefined`},
		{`x := count(input.a)`, `{"a": "äb"}`, `2`},
		{`x := count(input.a)`, `{"a": null}`, `error`},
		{`x := sort(input.a)`, `{"a": [3, "a", null, 1, true, [1], {"a": 1}, 1]}`, `[null,true,1,1,3,"a",[1],{"a":1}]`},
		{`x := concat(",", ["a", input.a])`, `{"a": "b"}`, `"a,b"`},
		{`x := concat(",", {"b", "a", "c"})`, `{}`, `"a,b,c"`},
		{`x := sprintf("%s-%d", [input.a, 3])`, `{"a": "b"}`, `"b-3"`},
		{`x := input.a + 1`, `{"a": 2}`, `3`},
		{`x := input.a + 1`, `{"a": "2"}`, `error`},
		{`x := input.a / 0`, `{"a": 2}`, `error`},
		{`x := {1, 2} - {1}`, `{}`, `[2]`},
		{`x := net.cidr_contains("10.0.0.0/8", input.a)`, `{"a": "10.1.2.3"}`, `true`},
		{`x := net.cidr_contains("10.0.0.0/8", input.a)`, `{"a": "::ffff:10.1.2.3"}`, `true`},
		{`x := net.cidr_contains("fc00::/7", input.a)`, `{"a": "fd00::1"}`, `true`},
		{`x := net.cidr_contains("fc00::/7", input.a)`, `{"a": "10.0.0.1"}`, `false`},
		{`x := net.cidr_contains("10.0.0.0/8", input.a)`, `{"a": "nonsense"}`, `error`},
		{`x := [time.weekday(t), time.clock(t)] if t := time.parse_rfc3339_ns(input.t)`, `{"t": "2026-11-25T10:11:12.5+02:00"}`, `["Wednesday",[8,11,12]]`},
		{`x := time.parse_rfc3339_ns(input.t)`, `{"t": "2026-11-25"}`, `error`},
		{`x := glob.match("/api/*/items", ["/"], input.a)`, `{"a": "/api/v1/items"}`, `true`},
		{`x := glob.match("/api/*/items", ["/"], input.a)`, `{"a": "/api/v1/v2/items"}`, `false`},
		{`x := glob.match("/api/**", ["/"], input.a)`, `{"a": "/api/v1/v2/items"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "a/*/c", "a": "a/b/c"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "a/b*/c", "a": "a/bb/c"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "a/*b/c", "a": "a/bb/c"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "**", "a": "a/bb/c"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "a/{b,c}", "a": "a/c"}`, `true`},
		{`x := glob.match(input.g, ["/"], input.a)`, `{"g": "*", "a": ""}`, `true`},
		{`x := glob.match("*.example", [], input.a)`, `{"a": "a.example"}`, `true`},
		{`x := regex.match("^a+$", input.a)`, `{"a": "aaa"}`, `true`},
		{`x := object.get(input, ["a", "b"], 3)`, `{"a": {"b": null}}`, `null`},
		{`x := object.get(input, "z", 3)`, `{"a": 1}`, `3`},
		{`x if object.get(input.a, "z", 3)`, `{"a": 1}`, `error`},
		{`x := graph.reachable({"a": ["b"], "b": ["a", "z"]}, {"a"})`, `{}`, `["a","b"]`},
		{`x if 1, 2 in [9, 2]`, `{}`, `true`},
		{`x if 2, 2 in {2}`, `{}`, `true`},
		{`x if 3 in input.o`, `{"o": {"a": 3}}`, `true`},
		{`x if "a", 3 in input.o`, `{"o": {"a": 3}}`, `true`},
		{`x := [input.a | true]`, `{"a": 1}`, `[1]`},
		{`x := [input.a | true]`, `{}`, `[]`},
		{`x := {"a": input.a, "b": [input.b]}`, `{"a": 1, "b": {"c": 2}}`, `{"a":1,"b":[{"c":2}]}`},
		{`x := {"a": input.a}`, `{}`, `undefined`},
		{`x := input`, `{"a": 1}`, `{"a":1}`},
		{`x := data.d.a[_].k`, `{}`, `"v"`},
		{`x if input.p.q.r == "s"`, `{"p": {"q": "r"}}`, `undefined`},
		{`x if a
a if b
b if input.c`, `{"c": 1}`, `true`},
		{`x if a.b.c
a := {"b": input}`, `{"c": 1}`, `true`},
		{`x if input.a < input.b`, `{"a": "a", "b": 1}`, `undefined`},
		{`x if input.a < input.b`, `{"a": 2, "b": "1"}`, `true`},
		{`x if input.a != input.b`, `{"a": 2}`, `undefined`},
		{`x := y if { some y in input.l; y > 1 }`, `{"l": [1, 2, 2.0]}`, `2`},
		{`x := [i | some i, row in data.d.rows; row.k == input.k]`, `{"k": "a"}`, `[0,3,15]`},
		{`x := [i | some i, row in data.d.rows; row.k == input.k]`, `{"k": 1.0}`, `[2,9]`},
		{`x := [i | some i, row in data.d.rows; row.k == input.k]`, `{"k": "z"}`, `[]`},
		{`x := [i | some i, row in data.d.rows; row.k == input.k]`, `{}`, `[]`},
		{`x := [row.v | some row in data.d.rows; row.k == input.k; row.v != 3]`, `{"k": "a"}`, `[1]`},
		{granted, `{"u": "x", "k": "a", "p": "/a/b"}`, `[1,2,4,5]`},
		{granted, `{"u": "x", "k": "a", "p": "/a/c"}`, `[1,4]`},
		{granted, `{"u": "x", "k": "a", "p": "/a/b/c"}`, `[4]`},
		{granted, `{"u": "x", "k": "a"}`, `[]`},
		{granted, `{"u": "x", "k": "a", "p": 1}`, `error`},
		{granted, `{"u": "x", "k": "z", "p": 1}`, `[]`},
		{granted, `{"u": "x", "k": 1.0, "p": "/a/b"}`, `[7]`},
		{granted, `{"u": "y", "k": "a", "p": "/a/b"}`, `[9]`},
		{granted, `{"u": "z", "k": "a", "p": "/a/b"}`, `[]`},
		{granted, `{"u": "o", "k": "a", "p": "/a/b"}`, `[10]`},
		{granted, `{"u": "w", "k": "a", "p": "/a/b"}`, `error`},
		{granted, `{"u": "w", "k": "c", "p": "/a/b"}`, `error`},
		{granted, `{"u": "nobody", "k": "a", "p": "/a/b"}`, `[]`},
		{granted, `{"k": "a", "p": "/a/b"}`, `[]`},
		{`x := [row.v | k := input.k; some i, row in data.d.lists[input.u]; k == row.k; v := row.v; p := input.p; v != i; row.p == p]`, `{"u": "x", "k": "a", "p": "/a/b"}`, `[5]`},
		{`x := [row.v | some i, row in data.d.lists.x; i = input.i; row.v = i]`, `{"i": 1}`, `[]`},
		{`x := [[i, row.v] | some i, row in data.d.lists.x; row.k = input.k; i = input.i]`, `{"i": 1, "k": "a"}`, `[[1,2]]`},
		{`x := [row.v | some u in input.l; some row in data.d.lists[u]; row.k == input.k; row.p == r]
r := "/a/b" if startswith(input.p, "/")`, `{"l": ["x", "y"], "k": "a", "p": "/"}`, `[5,9]`},
		{`x := [row.v | some u in input.l; some row in data.d.lists[u]; row.k == input.k; row.p == r]
r := "/a/b" if startswith(input.p, "/")`, `{"l": ["z"], "k": "a", "p": 1}`, `[]`},
	} {
		module := "package p\n\n" + c.body
		here, topdown := pairOf(t, module, data).answers(t, input(t, c.input))
		if here != c.want || topdown != c.want {
			t.Errorf("%s\nof %s is %s here and %s in topdown, want %s", c.body, c.input, here, topdown, c.want)
		}
	}
}

// Of many rules those are tried that can hold, and the answer is the same.
func TestRulesAreFoundByWhatTheyCompare(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("package p\n\nx contains y if some y; r == y\n\nr contains 0 if input.always\n")
	for i := range 60 {
		fmt.Fprintf(&b, "r contains %d if { input.method == %q; input.path = [\"api\", %q%s] }\n", i, []string{"GET", "PUT"}[i%2], fmt.Sprintf("s%d", i%7), []string{"", ", _"}[i/2%2])
		fmt.Fprintf(&b, "d := %q if { input.method == %q; input.path = [\"api\", %q%s]; input.n == %d }\n", fmt.Sprint(i%3), []string{"GET", "PUT"}[i%2], fmt.Sprintf("s%d", i%7), []string{"", ", _"}[i/2%2], i%5)
	}
	b.WriteString("d := \"9\" if input.always\n")
	p := pairOf(t, strings.Replace(b.String(), "x contains y if some y; r == y", "x := [r, object.get({\"d\": d1}, \"d\", 0)]\n\nd1 := d if d\nelse := \"none\"", 1), "")
	for _, method := range []string{`"GET"`, `"PUT"`, `"POST"`, `3`} {
		for s := range 8 {
			for _, tail := range []string{"", `, "x"`, `, 1, 2`} {
				for n := range 6 {
					for _, always := range []string{"false", "true"} {
						in := fmt.Sprintf(`{"method": %s, "path": ["api", "s%d"%s], "n": %d, "always": %s}`, method, s, tail, n, always)
						if here, topdown := p.answers(t, input(t, in)); here != topdown {
							t.Fatalf("of %s: %s here, %s in topdown", in, here, topdown)
						}
					}
				}
			}
		}
	}
}

func TestWhatIsNotCompiledIsNamed(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`x if a with input as {"b": 1}
a if input.b`: "with",
		`x[k] := v if some k, v in input`: "one member of an object",
		`x if walk(input, [_, 3])`:        "builtin walk",
		`x if data.p.y.z
y.z.a := 1`: "rules and data",
		`x := {1: input.a}`:  "keys that are not strings",
		`x := time.now_ns()`: "builtin time.now_ns",
	} {
		c, data := compiled(t, "package p\n\n"+body, "")
		if _, err := native.Compile(c, data, ast.MustParseRef("data.p.x")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
}

// relation is data that is looked up in.
type relation map[string]any

func (r relation) Member(name string) (any, bool) {
	v, ok := r[name]
	return v, ok
}

func TestALargeRelationIsLookedUpIn(t *testing.T) {
	t.Parallel()
	c, _ := compiled(t, "package p\n\nx := data.d.roles[input.u][_]\n\ny := data.d.roles\n\nz := data.d.other.x", "")
	data := map[string]any{"d": map[string]any{"roles": relation{"ann": []any{"clerk"}}, "other": struct{}{}}}
	p, err := native.Compile(c, data, ast.MustParseRef("data.p.x"))
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{`{"u": "ann"}`: `"clerk"`, `{"u": "bob"}`: "undefined", `{"u": 1}`: "undefined"} {
		v, defined, err := p.Eval(t.Context(), native.JSON{Value: input(t, in)}, time.Minute)
		if got := written(t, v, defined, err); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	whole, err := native.Compile(c, data, ast.MustParseRef("data.p.y"))
	if err != nil {
		t.Fatal(err)
	}
	if v, _, err := whole.Eval(t.Context(), native.Nothing{}, time.Minute); !errors.Is(err, native.ErrAskTopdown) {
		t.Errorf("all of it: %v, %v", v, err)
	}
	if _, err := native.Compile(c, data, ast.MustParseRef("data.p.z")); err == nil || !strings.Contains(err.Error(), "its store") {
		t.Errorf("what only the store can read: %v", err)
	}
}

// S56: what takes too long ends, and so does what nobody waits for any more.
func TestAnEvaluationEndsAtItsLimit(t *testing.T) {
	t.Parallel()
	c, _ := compiled(t, "package p\n\nx if { some a in data.l; some b in data.l; some c in data.l; a + b + c == -1 }", "")
	list := make([]any, 5000)
	for i := range list {
		list[i] = json.Number("1")
	}
	p, err := native.Compile(c, map[string]any{"l": list}, ast.MustParseRef("data.p.x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Eval(t.Context(), native.Nothing{}, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("late: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := p.Eval(ctx, native.Nothing{}, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
