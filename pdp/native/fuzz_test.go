package native_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/util"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// writer draws Rego.
type writer struct {
	*rapid.T
	locals []string // that are bound here
	n      int
}

func (w *writer) of(all ...string) string { return rapid.SampledFrom(all).Draw(w.T, "of") }

func (w *writer) local() string {
	w.n++
	return fmt.Sprintf("v%d", w.n)
}

const drawnData = `{"d": {"o": {"a": 1, "b": ["a", "b"], "c": {"a": "b"}}, "l": ["a", "b", 1, 1.0, null, {"a": 1}], "nets": ["10.0.0.0/8", "192.168.0.0/16"], "globs": ["a/*", "*/b", "**"],
	"rows": [{"k": "a", "v": 1}, {"k": "b", "v": 2}, {"k": "a", "v": "b"}, {"k": 1}, {"v": "a"}, "a", null, ["k"], {"k": null}, {"k": "c"}, {"k": "a/b"}, {"k": 1.0, "v": "x"}, {"k": ["a"]}, {"k": "b", "v": null}, {"k": true}, {"k": "a"}],
	"lists": {"a": [{"k": "a", "p": "*/b", "v": 1}, {"k": "b", "p": "a/*"}, {"k": "a", "p": "a/*", "v": "b"}, {"k": "a", "p": "a", "v": 2}, {"k": "b", "p": "**", "v": 1}, {"k": "a", "p": 1}, {"k": "a", "p": "{a,b}"}, {"k": "b", "p": "*"}, {"k": 1, "p": "*"},
		{"p": "a/b", "k": "a", "v": "b"}, null, {"k": "a", "p": "[a"}], "b": [{"k": "a", "p": "*"}, {"k": "b"}], "a/b": [], "x": "a", "y": {"a": {"k": "a", "p": "a/b"}}}}}`

// term is a term in which everything is bound.
func (w *writer) term(depth int) string {
	simple := append([]string{`"a"`, `"b"`, `"a/b"`, `1`, `2.0`, `null`, `true`, `false`, `input`, `input.a`, `input.b`, `input.l`, `input.o.a`, `input.l[0]`, `input.x.y.z`,
		`data.d.o`, `data.d.l`, `data.d.o[input.a]`, `data.d.l[input.n]`, `data.d.nope`, `r1`, `r2`, `s1`, `s1[input.a]`, `r2.a`}, w.locals...)
	if depth == 0 {
		return w.of(simple...)
	}
	t := func() string { return w.term(depth - 1) }
	switch w.of("simple", "simple", "simple", "array", "object", "set", "comprehension", "function", "builtin", "builtin", "arithmetic") {
	case "array":
		return "[" + t() + ", " + t() + "]"
	case "object":
		return `{"a": ` + t() + `, "b": ` + t() + "}"
	case "set":
		return "{" + t() + ", " + t() + "}"
	case "comprehension":
		v, before := w.local(), w.locals
		from := t()
		w.locals = append(w.locals[:len(w.locals):len(w.locals)], v)
		text := fmt.Sprintf(w.of("[%s | some %s in %s; %s]", "{%s | some %s in %s; %s}", "{\"k\": %s | some %s in %s; %s}"), t(), v, from, w.condition(0))
		w.locals = before
		return text
	case "function":
		return "f(" + t() + ")"
	case "builtin":
		return fmt.Sprintf(w.of(`count(%s)`, `sort(%s)`, `concat(",", %s)`, `object.get(%s, "a", 1)`, `lower(%s)`, `is_string(%s)`, `is_set(%s)`, `split(%s, "/")`, `sprintf("%%v", [%s])`, `time.parse_rfc3339_ns(%s)`,
			`max(%s)`, `type_name(%s)`, `graph.reachable({"a": ["b"], "b": [1]}, %s)`, `array.concat(%s, [1])`, `upper(%s)`, `trim_prefix(%s, "a")`), t())
	case "arithmetic":
		return t() + w.of(" + ", " - ", " * ", " | ", " & ") + t()
	}
	return w.of(simple...)
}

// condition is an expression, or some of them in one line; it may bind locals.
func (w *writer) condition(depth int) string {
	t := func() string { return w.term(depth) }
	bind := func() string {
		v := w.local()
		w.locals = append(w.locals[:len(w.locals):len(w.locals)], v)
		return v
	}
	switch w.of("is", "compare", "compare", "not", "in", "some", "somekey", "assign", "pattern", "every", "builtin", "walk in", "rows", "rows") {
	case "is":
		return t()
	case "compare":
		return t() + w.of(" == ", " == ", " == ", " != ", " < ", " >= ") + t()
	case "not":
		return "not " + w.of(t(), t()+" == "+t(), t()+" in "+t(), `startswith(`+t()+`, "a")`)
	case "in":
		return t() + " in " + t()
	case "some":
		from := t()
		v := bind()
		return "some " + v + " in " + from
	case "somekey":
		from := t()
		return "some " + bind() + ", " + bind() + " in " + from
	case "assign":
		from := t()
		return bind() + " := " + from
	case "pattern":
		from := t()
		return fmt.Sprintf(w.of(`[%s, _] = %s`, `{"a": %s} = %s`, `["a", %s] = %s`), bind(), from)
	case "rows":
		want := t()
		v := bind()
		if w.upTo(0, 1) == 0 {
			text := fmt.Sprintf("some %s in data.d.lists[%s]\n\t%s.%s == %s", v, w.of(`input.a`, `"a"`, `input.b`, "input.l[_]", t()), v, w.of("k", "v", "p"), want)
			for range w.upTo(0, 2) {
				text += fmt.Sprintf(w.of("\n\tglob.match(%s.p, [\"/\"], %s)", "\n\tglob.match(%s.p, [\".\"], %s)", "\n\t%s.v == %s", "\n\t%s.p != %s", "\n\tstartswith(%s.k, %s)"), v, t())
			}
			return text
		}
		return fmt.Sprintf(w.of("some %s in data.d.rows\n\t%s.k == %s", "some _, %s in data.d.rows\n\t%s.v == %s"), v, v, want)
	case "every":
		from, before := t(), w.locals
		v := bind()
		text := "every " + v + " in " + from + " { " + v + w.of(" == ", " != ", " > ") + t() + " }"
		w.locals = before
		return text
	case "walk in":
		return fmt.Sprintf(w.of(`input.l[_] == %s`, `data.d.o[_] == %s`, `%s == s1[_]`, `input.o[_].a == %s`), t())
	}
	return fmt.Sprintf(w.of(`startswith(%s, "a")`, `contains("a/b", %s)`, `glob.match(data.d.globs[_], ["/"], %s)`, `glob.match("a/*", ["/"], %s)`, `regex.match("^a", %s)`, `net.cidr_contains(data.d.nets[_], %s)`, `f(%s)`, `g(%s)`), t())
}

func (w *writer) body() string {
	w.locals = nil
	all := make([]string, w.upTo(1, 4))
	for i := range all {
		all[i] = w.condition(w.upTo(0, 1))
	}
	return "{\n\t" + strings.Join(all, "\n\t") + "\n}"
}

// upTo draws a number.
func (w *writer) upTo(low, high int) int { return rapid.IntRange(low, high).Draw(w.T, "n") }

// module is a policy in which x may reach r1, r2, s1, f and g, each of them what comes after it.
func (w *writer) module() string {
	var b strings.Builder
	b.WriteString("package p\n\n")
	rule := func(head string, value bool) {
		body := w.body()
		if value {
			head += " := " + w.term(1)
		}
		b.WriteString(head + " if " + body)
		if value && w.upTo(0, 4) == 0 {
			b.WriteString(" else := " + w.of("1", `"b"`, "input.b") + " if " + w.body())
		}
		b.WriteString("\n\n")
	}
	if w.upTo(0, 1) == 0 {
		b.WriteString("default x := 0\n\n")
	}
	for range w.upTo(1, 3) {
		if w.upTo(0, 1) == 0 {
			rule("x", true)
		} else {
			rule("x", false)
		}
	}
	return b.String() + w.below()
}

// below are the rules that x can reach. They reach each other in one direction only.
func (w *writer) below() string {
	w.locals = nil
	text := `
r1 := input.b if input.a == "a"

r1 := "b" if input.n > 1

r2 := {"a": input.l, "b": true} if not input.x

s1 contains v if some v in input.l

s1 contains input.a

s1 contains "a" if startswith(input.a, "b")

f("a") := 1

f(y) := y.a if y.a != 2

f([y, _]) := y if y != null

g(y) if y in s1

g(y) if r1 == y
`
	switch w.of("as it is", "indexed", "default") {
	case "indexed":
		for i := range 8 {
			text += fmt.Sprintf("\nr1 := %d if { input.a == %q; input.l = [%q, _, _] }\n", i%3, string(rune('a'+i%3)), string(rune('a'+i/3)))
		}
		for range w.upTo(0, 3) {
			text += "\n" + w.of(`r1 := v if { input.a == "b"; input.l = ["a", v, _] }`, `r1 := 1 if { input.a == "a"; input.a == "b" }`, `r1 := 2 if { input.a == "a"; input.l = [v, v, _] }`, `r1 := 0 if { input.a == "a"; input.l = ["a", "b", 1] }`,
				`r1 := 1 if { input.b == "a"; input.l = ["a", _]; input.n == 2 }`, `r1 := 0 if { input.l = ["a", "b", _]; input.l = ["a", v, "b"]; v == "b" }`, `r1 := 2 if input.l = [_, _]`, `r1 := 1 if { input.a == "a"; input.l[0] == "a"; not input.x }`,
				`f("b") := 0`, `f("a/b") := 1 if input.a == "a"`, `f("b") := y if { input.l = ["a", y, _]; y == "b" }`, `f([_, "a"]) := 1`, `f(y) := 2 if { y == "a"; input.b == "a" }`) + "\n"
		}
	case "default":
		text += "\ndefault r1 := null\n\ndefault g(_) := false\n"
	}
	return text
}

func drawValue(t *rapid.T, depth int) any {
	of := []any{nil, true, false, "a", "b", "", "a/b", "10.1.2.3", "2026-11-25T10:00:00Z", 0, 1, 2, 1.5}
	switch n := rapid.IntRange(0, 9).Draw(t, "kind"); {
	case depth > 0 && n < 3:
		all := make([]any, rapid.IntRange(0, 3).Draw(t, "n"))
		for i := range all {
			all[i] = drawValue(t, depth-1)
		}
		return all
	case depth > 0 && n < 5:
		all := map[string]any{}
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			all[rapid.SampledFrom([]string{"a", "b", "c", "x", "y", "z"}).Draw(t, "name")] = drawValue(t, depth-1)
		}
		return all
	}
	return rapid.SampledFrom(of).Draw(t, "value")
}

func drawInput(t *rapid.T) any {
	if rapid.IntRange(0, 30).Draw(t, "odd") == 0 {
		return drawValue(t, 1)
	}
	all := map[string]any{}
	for name, typical := range map[string]any{"a": "a", "b": "b", "l": []any{"a", "b", 1}, "o": map[string]any{"a": map[string]any{"a": 1}}, "n": 2, "x": map[string]any{"y": map[string]any{"z": "a"}}} {
		switch rapid.IntRange(0, 3).Draw(t, "is "+name) {
		case 0:
		case 1:
			all[name] = typical
		default:
			all[name] = drawValue(t, 2)
		}
	}
	return all
}

// program is the property: where a program answers, it answers what topdown answers, and what topdown calls an error it leaves alone.
func program(counted func(answered bool)) func(*rapid.T) {
	return func(rt *rapid.T) {
		module := (&writer{T: rt}).module()
		m, err := ast.ParseModuleWithOpts("p.rego", module, ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			rt.Skip(err)
		}
		c := ast.NewCompiler()
		if c.Compile(map[string]*ast.Module{"p.rego": m}); c.Failed() {
			rt.Skip(c.Errors)
		}
		data := map[string]any{}
		if err := util.UnmarshalJSON([]byte(drawnData), &data); err != nil {
			rt.Fatal(err)
		}
		p, err := native.Compile(c, data, ast.MustParseRef("data.p.x"))
		if err != nil {
			rt.Skip(err)
		}
		q, err := rego.New(rego.Query("data.p.x"), rego.Compiler(c), rego.Store(inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false))),
			rego.StrictBuiltinErrors(true)).PrepareForEval(rt.Context())
		if err != nil {
			rt.Skip(err)
		}
		for range rapid.IntRange(1, 15).Draw(rt, "inputs") {
			in := drawInput(rt)
			if err := util.RoundTrip(&in); err != nil {
				rt.Fatal(err)
			}
			v, defined, err := p.Eval(rt.Context(), native.JSON{Value: in}, time.Minute)
			counted(err == nil)
			if errors.Is(err, native.ErrAskTopdown) {
				continue
			}
			here := written(rt, v, defined, err)
			results, err := q.Eval(rt.Context(), rego.EvalInput(in))
			there := written(rt, nil, false, err)
			if err == nil && len(results) > 0 {
				there = written(rt, results[0].Expressions[0].Value, true, nil)
			}
			if here != there {
				rt.Fatalf("%s\nof %s\nis %s here, %s in topdown (%v)", module, written(rt, in, true, nil), here, there, err)
			}
		}
	}
}

func TestAnyPolicyThatIsCompiledIsAnsweredAsByTopdown(t *testing.T) {
	t.Parallel()
	answered, left := 0, 0
	rapid.Check(t, program(func(is bool) {
		if is {
			answered++
		} else {
			left++
		}
	}))
	t.Logf("%d answered, %d left to topdown", answered, left)
	if answered == 0 {
		t.Error("nothing was answered")
	}
}

func FuzzProgram(f *testing.F) { f.Fuzz(rapid.MakeFuzz(program(func(bool) {}))) }
