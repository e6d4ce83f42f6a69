package ruleid_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// words makes something in Rego that is a text.
func words(t *rapid.T, depth int) string {
	draw := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "word") }
	if depth == 0 {
		return draw(`"a"`, `"b"`, `"c_a"`, `input.text`, `table["x"]`, `data.words.x`, `data.words[input.key]`, `table[input.key]`, `pair[1]`, `{"x": "a"}[input.key]`, `object.get(table, input.key, "b")`)
	}
	inner := func() string { return words(t, depth-1) }
	switch rapid.IntRange(0, 7).Draw(t, "form") {
	case 0:
		return fmt.Sprintf(`concat("_", [%s, %s])`, inner(), inner())
	case 1:
		return fmt.Sprintf(`sprintf("c_%%s", [%s])`, inner())
	case 2:
		return fmt.Sprintf(`sprintf("%%v%%v%%%%", [%s, 1])`, inner())
	case 3:
		return fmt.Sprintf(`same(%s)`, inner())
	case 4:
		return fmt.Sprintf(`turned(%s)`, inner())
	case 5:
		return fmt.Sprintf(`upper(%s)`, inner())
	case 6:
		return fmt.Sprintf(`$"c_{%s}"`, inner())
	}
	return inner()
}

// texts makes something that is a set or an array of texts.
func texts(t *rapid.T, depth int) string {
	if depth == 0 {
		return rapid.SampledFrom([]string{`other`, `more`, `["a", "b"]`, `{"c_a"}`, `data.list`, `object.keys(data.words)`, `input.list`, `split("a,b", ",")`}).Draw(t, "texts")
	}
	inner := func() string { return texts(t, depth-1) }
	switch rapid.IntRange(0, 5).Draw(t, "form of texts") {
	case 0:
		return fmt.Sprintf(`({x | some x in %s} | {y | some y in %s})`, inner(), inner())
	case 1:
		return fmt.Sprintf(`[concat("_", [x, %s]) | some x in %s]`, words(t, 0), inner())
	case 2:
		return fmt.Sprintf(`array.concat([%s], [x | some x in %s])`, words(t, depth-1), inner())
	case 3:
		return fmt.Sprintf(`{x | some x in %s; x != "b"}`, inner())
	case 4:
		return fmt.Sprintf(`{x | {x: 1 | some x in %s}[x]}`, inner())
	}
	return inner()
}

const drawnHead = `package p

default decision := {"allow": false, "reasons": ["none"]}

table := {"x": "a", "y": "b"}

pair := ["x", "c_a"] if input.c0

pair := ["x", "d"] if not input.c0

same(x) := x

turned(x) := concat("", ["t", x]) if input.c1

turned(x) := "b" if not input.c1

other contains "a" if input.c2

other contains data.words[k] if some k in input.keys

more contains x if some x in other
`

// Whatever rule adds a reason is among those that are named, however it comes by it.
func TestNoRuleThatSaysSomethingIsLeftOut(t *testing.T) {
	t.Parallel()
	named, ambiguous := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		var b strings.Builder
		b.WriteString(drawnHead)
		reasons := rapid.SampledFrom([]string{`sort(why)`, `[r | some r in why]`, `[r | why[r]]`, `array.concat([], sort(why))`, `sort(why | {"a"})`}).Draw(rt, "reasons")
		fmt.Fprintf(&b, "\ndecision := {\"allow\": false, \"reasons\": %s} if count(why) > 0\n", reasons)
		for range rapid.IntRange(1, 4).Draw(rt, "rules") {
			condition := rapid.SampledFrom([]string{"input.c0", "input.c1", "not input.c2", "input.text != \"b\""}).Draw(rt, "condition")
			switch rapid.IntRange(0, 2).Draw(rt, "head") {
			case 0:
				fmt.Fprintf(&b, "\nwhy contains %s if %s\n", words(rt, rapid.IntRange(0, 2).Draw(rt, "depth")), condition)
			case 1:
				fmt.Fprintf(&b, "\nwhy contains r if {\n\t%s\n\tr := %s\n}\n", condition, words(rt, rapid.IntRange(0, 2).Draw(rt, "depth")))
			default:
				fmt.Fprintf(&b, "\nwhy contains r if {\n\tsome r in %s\n\t%s\n}\n", texts(rt, rapid.IntRange(0, 2).Draw(rt, "depth")), condition)
			}
		}
		m, err := ast.ParseModuleWithOpts("p.rego", b.String(), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			rt.Fatal(err)
		}
		data := map[string]any{"words": map[string]any{"x": "a", "y": "e"}, "list": []any{"a", "f"}}
		p := ruleid.Policy{Names: ruleid.Names{}, Compiler: ast.NewCompiler(), Data: data, Steps: 100_000}
		p.Names.Add(m)
		if p.Compiler.Compile(map[string]*ast.Module{"p.rego": m}); p.Compiler.Failed() {
			rt.Skip(p.Compiler.Errors)
		}
		o := p.Origins(ast.MustParseRef("data.p.decision"))
		ids := map[int]string{}
		for i, id := range ruleid.Of(m) {
			ids[m.Rules[i].Location.Row] = id
		}
		bit := func(name string) bool { return rapid.Bool().Draw(rt, name) }
		input := map[string]any{"c0": bit("c0"), "c1": bit("c1"), "c2": bit("c2"), "text": rapid.SampledFrom([]string{"a", "b", "z"}).Draw(rt, "text"), "key": rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "key"), "keys": []any{"x"}, "list": []any{"g"}}
		trace := topdown.NewBufferTracer()
		results, err := rego.New(rego.Query("data.p.decision"), rego.Compiler(p.Compiler), rego.Store(inmem.NewFromObject(data)), rego.Input(input), rego.QueryTracer(trace)).Eval(t.Context())
		if err != nil || len(results) != 1 {
			rt.Skip(err)
		}
		v := results[0].Expressions[0].Value
		got := o.Of(v)
		said, _ := json.Marshal(v) // what OPA says is JSON
		if len(got) == 0 {
			rt.Fatalf("%s\n%s is by no rule", &b, said)
		}
		held := 0
		for _, e := range *trace {
			r, ok := e.Node.(*ast.Rule)
			if !ok || e.Op != topdown.ExitOp {
				continue
			}
			id := ids[r.Location.Row]
			if !strings.HasPrefix(id, "p.why") && !strings.HasPrefix(id, "p.decision") {
				continue
			}
			held++
			if !slices.Contains(got, id) {
				rt.Fatalf("%s\n%v\n%s is by %q, and not by %s", &b, input, said, got, id)
			}
		}
		if named += held; len(got) > held+2 {
			ambiguous++
		}
	})
	if named == 0 {
		t.Error("no rule ever held")
	}
	t.Logf("%d rules held and were named; %d denials could have been by others as well", named, ambiguous)
}
