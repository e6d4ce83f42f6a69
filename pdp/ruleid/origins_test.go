package ruleid_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// policy compiles modules, each of a file of its own, and data that is JSON.
func policy(t *testing.T, data string, modules ...string) ruleid.Policy {
	t.Helper()
	p := ruleid.Policy{Names: ruleid.Names{}, Steps: 100_000}
	if err := json.Unmarshal([]byte(data), &p.Data); err != nil {
		t.Fatal(err)
	}
	parsed := map[string]*ast.Module{}
	for i, text := range modules {
		file := fmt.Sprintf("%d.rego", i)
		m, err := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		parsed[file] = m
		p.Names.Add(m)
	}
	p.Compiler = ast.NewCompiler()
	if p.Compiler.Compile(parsed); p.Compiler.Failed() {
		t.Fatal(p.Compiler.Errors)
	}
	return p
}

func value(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

const denied = `{"allow": false, "reasons": ["a"]}`

func TestAValueHasTheRulesThatMadeIt(t *testing.T) {
	t.Parallel()
	const reasons = `default decision := {"allow": false, "reasons": ["none"]}
decision := {"allow": false, "reasons": sort(why)} if count(why) > 0
`
	for _, c := range []struct{ about, rules, data, value, want string }{
		{"a member that a rule adds", reasons + `why contains "a" if input.x
why contains "b" if input.y`, `{}`, denied, `p.decision p.why["a"]`},
		{"several", reasons + `why contains "a" if input.x
why contains "b" if input.y`, `{}`, `{"allow": false, "reasons": ["a", "b"]}`, `p.decision p.why["a"] p.why["b"]`},
		{"the default alone", reasons + `why contains "a" if input.x`, `{}`, `{"allow": false, "reasons": ["none"]}`, `p.decision#default`},
		{"what no rule says", reasons + `why contains "a" if input.x`, `{}`, `{"allow": false, "reasons": ["z"]}`, ``},
		{"another member", reasons + `why contains "a" if input.x`, `{}`, `{"allow": false, "reasons": ["a"], "need": {}}`, ``},
		{"members that are made", reasons + `why contains concat("_", ["a", x]) if some x in input.xs
why contains sprintf("%s-%d%%", [x, 1]) if some x in input.xs
why contains $"{input.a}!" if input.b`, `{}`, `{"allow": false, "reasons": ["a_1", "1-1%", "b!"]}`, `p.decision p.why#1 p.why#2 p.why#3`},
		{"how a member begins and ends", reasons + `why contains sprintf("a_%s_b%s", [x, "c"]) if some x in input.xs
why contains sprintf("a_%s_c", [x]) if some x in input.xs
why contains sprintf("b_%s_bc", [x]) if some x in input.xs`, `{}`, `{"allow": false, "reasons": ["a_x_c"]}`, `p.decision p.why#2`},
		{"a member that is a variable", reasons + `why contains reason if some reason in ["a", "b"]
why contains reason if { reason := "c"; input.x }`, `{}`, denied, `p.decision p.why#1`},
		{"a member that is compared", reasons + `why contains reason if { some reason in input.all; reason == "a" }
why contains reason if { some reason in input.all; reason == "b" }`, `{}`, denied, `p.decision p.why#1`},
		{"a table", reasons + `why contains words[x] if some x in input.xs
why contains "b" if input.y
words := {"x": "a", "y": "c"}`, `{}`, denied, `p.decision p.why`},
		{"a table in data", reasons + `why contains data.words[x] if some x in input.xs
why contains "b" if input.y`, `{"words": {"x": "a"}}`, `{"allow": false, "reasons": ["a", "b"]}`, `p.decision p.why p.why["b"]`},
		{"its keys", reasons + `why contains x if some x, _ in data.words
why contains y if data.words[_] = y`, `{"words": {"a": "b"}}`, denied, `p.decision p.why#1`},
		{"a function without a condition", reasons + `why contains say(x) if some x in input.xs
say(x) := concat("", [x, "s"])
why contains "b" if input.y`, `{}`, `{"allow": false, "reasons": ["xs"]}`, `p.decision p.why`},
		{"a function with conditions", reasons + `why contains say(x) if some x in input.xs
say(x) := "a" if x > 1
say(x) := "b" if x <= 1`, `{}`, denied, `p.decision p.say#1 p.why`},
		{"a function by its argument", reasons + `why contains say("a") if input.x
why contains say("b") if input.y
say(what) := sprintf("%s", [what])`, `{}`, denied, `p.decision p.why#1`},
		{"a function for one argument", reasons + `why contains say(x) if some x in input.xs
say("x") := "a"
say("y") := "b"
default say(_) := "c"`, `{}`, denied, `p.decision p.say#1 p.why`},
		{"sets of sets", `decision := {"allow": false, "reasons": sort((one | two) | union({three}))}
one contains "a" if input.x
two contains "b" if input.x
three contains "c" if input.x`, `{}`, `{"allow": false, "reasons": ["a", "c"]}`, `p.decision p.one["a"] p.three["c"]`},
		{"a comprehension", `decision := {"allow": false, "reasons": [r | some r in why; r != "b"]}
why contains "a" if input.x
why contains "b" if input.x`, `{}`, denied, `p.decision p.why["a"]`},
		{"an object of reasons", `decision := {"allow": false, "reasons": [r | why[r]]}
why["a"] := 1 if input.x
why["b"] := 2 if input.x`, `{}`, denied, `p.decision`},
		{"reasons by keys", `decision := {"allow": false, "reasons": [r | some r, _ in why]}
why[x] := 1 if { x := "a"; input.x }
why[x] := 2 if { x := "b"; input.x }`, `{}`, denied, `p.decision p.why#1`},
		{"members of an object that is joined", `decision := object.union({"allow": false}, {"reasons": sort(why)})
why contains "a" if input.x`, `{}`, denied, `p.decision p.why["a"]`},
		{"another rule's decision", `decision := other if input.x
default decision := {"allow": false, "reasons": ["b"]}
other := {"allow": false, "reasons": ["a"]} if input.y`, `{}`, denied, `p.decision p.other`},
		{"else", `decision := {"allow": true, "reasons": []} if input.x else := {"allow": false, "reasons": ["a"]} if input.y
default decision := {"allow": false, "reasons": ["b"]}`, `{}`, denied, `p.decision`},
		{"its own id", `# METADATA
# custom:
#   id: R-7
decision := {"allow": false, "reasons": ["a"]} if input.x`, `{}`, denied, `R-7`},
		{"what allows is a rule", `decision := {"allow": allow, "reasons": ["a"]}
default allow := false
allow if input.x`, `{}`, denied, `p.decision p.allow#default`},
		{"a number says nothing of what was counted", `decision := {"allow": count(why) == 0, "reasons": ["a"]}
why contains "b" if input.x`, `{}`, denied, `p.decision`},
		{"what cannot be followed names all that went into it", `decision := {"allow": false, "reasons": json.remove({"x": sort(why)}, ["y"]).x}
why contains "a" if input.x
why contains "b" if input.x`, `{}`, denied, `p.decision p.why["a"] p.why["b"]`},
		{"what the input says", `decision := {"allow": false, "reasons": input.reasons}`, `{}`, denied, `p.decision`},
		{"the input in another rule's place", reasons + `why contains x if { x := words with data.p.words as {"a"} }
words contains "b" if input.x`, `{}`, denied, `p.decision p.why`},
		{"taken apart", reasons + `why contains r if [_, r] = pair
why contains s if {"s": s} = thing
pair := ["b", "a"]
thing := {"s": "c"}`, `{}`, `{"allow": false, "reasons": ["a", "c"]}`, `p.decision p.why#1 p.why#2`},
		{"a number less another", `decision := {"allow": false, "left": 10 - input.n}`, `{}`, `{"allow": false, "left": 7}`, `p.decision`},
		{"a table by a path", reasons + `why contains object.get(data.words, ["order", "late"], "none") if input.x
why contains object.get(data.words, ["order", input.y], "none") if input.y
why contains r if { some path in [["order", "late"]]; r := object.get(data.words, path, "none") }
why contains object.get(data.words, input.path, "none") if input.z
why contains object.get(data.few, input.key, "b") if input.z`, `{"words": {"order": {"late": "a"}}, "few": {"a": "c"}}`, denied, `p.decision p.why#1 p.why#2 p.why#3 p.why#4`},
		{"an object joined with one in the same place", `decision := object.union({"allow": false, "why": {"a": one}}, {"why": {"b": 2}})
one := 1 if input.x`, `{}`, `{"allow": false, "why": {"a": 1, "b": 2}}`, `p.decision p.one`},
		{"a list in a text", `decision := {"allow": false, "reasons": [sprintf("%v", [why]), $"{say(input.x)}"]}
why contains "a" if input.x
say(x) := "b" if x > 1`, `{}`, `{"allow": false, "reasons": ["{\"a\"}", "b"]}`, `p.decision p.say p.why["a"]`},
	} {
		t.Run(c.about, func(t *testing.T) {
			t.Parallel()
			o := policy(t, c.data, "package p\n\n"+c.rules).Origins(ast.MustParseRef("data.p.decision"))
			if got := strings.Join(o.Of(value(t, c.value)), " "); got != c.want {
				t.Errorf("%s is by %s, want %s", c.value, got, c.want)
			}
		})
	}
}

func TestADocumentOfTheDataAPIHasRules(t *testing.T) {
	t.Parallel()
	const rules = `package p
default allow := false
allow if input.x
open := false if input.y
deny contains "a" if input.z`
	p := policy(t, `{}`, rules, "package p.q\nimport data.p\nallow := p.open", "package teams.one\nallow := false if input.x", "package teams.two\nallow := false if input.x",
		"package any\nallow := data.teams[input.team].allow")
	for path, want := range map[string]string{
		"data.p.allow": "p.allow#default", "data.p.open": "p.open", "data.p": "p.allow#default", "data.p.q.allow": "p.q.allow p.open",
		"data.any.allow": "any.allow teams.one.allow teams.two.allow", "data.p.absent": "", "data.nowhere.allow": "",
	} {
		var v any = false
		if path == "data.p" {
			v = map[string]any{"allow": false, "deny": []any{"a"}}
		}
		if got := strings.Join(p.Origins(ast.MustParseRef(path)).Of(v), " "); got != want {
			t.Errorf("%s is by %s, want %s", path, got, want)
		}
	}
}

// Below a package there may be data beside its rules.
func TestDataBesideRulesMayBeAReason(t *testing.T) {
	t.Parallel()
	for about, rule := range map[string]string{
		"a name":     `why contains r if { all := data.q; r := all.two }`,
		"a variable": `why contains r if { all := data.q; r := all[input.k] }`,
		"a key":      `why contains r if some r, _ in data.q`,
		"all keys":   `why contains r if some r in object.keys(data.q)`,
		"an operand": "why contains at(data.q) if input.x\nat(all) := all.two",
		"joined":     `why contains object.union({}, data.q).two if input.x`,
	} {
		p := policy(t, `{"q": {"two": "a", "a": 1}}`, "package p\ndecision := {\"allow\": false, \"reasons\": sort(why)}\n"+rule, "package q.one\nz := 1 if input.z")
		got := p.Origins(ast.MustParseRef("data.p.decision")).Of(value(t, denied))
		if !slices.Contains(got, "p.why") {
			t.Errorf("%s: by %q", about, got)
		}
	}
}

const before = `package p
default decision := {"allow": false, "reasons": ["none"]}
decision := {"allow": false, "reasons": sort(why)} if count(why) > 0
why contains "a" if input.x
why contains "b" if input.y
# METADATA
# custom: {id: own}
why contains reason if { reason := input.z; is_string(reason) }`

// A rule is called the same when lines move, when it moves to another file, and when others that have names of their own come before it.
func TestAnIDStaysWhereRulesMove(t *testing.T) {
	t.Parallel()
	const says = `{"allow": false, "reasons": ["a", "c"]}`
	ref := ast.MustParseRef("data.p.decision")
	want := policy(t, `{}`, before).Origins(ref).Of(value(t, says))
	if len(want) != 3 {
		t.Fatalf("by %q", want)
	}
	lines := strings.Split(before, "\n")
	head, tail := strings.Join(lines[:3], "\n"), strings.Join(slices.Concat(lines[5:], []string{"", "", lines[4], "# further down", lines[3]}), "\n")
	for about, modules := range map[string][]string{
		"other lines":   {head + "\n\n\n" + tail},
		"other files":   {head, "package p\n" + tail},
		"another order": {"package p\n" + tail, head},
		"more rules":    {head + "\nwhy contains \"new\" if input.new\n" + tail, "package p\nother := 1"},
	} {
		if got := policy(t, `{}`, modules...).Origins(ref).Of(value(t, says)); !slices.Equal(got, want) {
			t.Errorf("%s: by %q, want %q", about, got, want)
		}
	}
}

func TestWhatTwoRulesSayIsSeen(t *testing.T) {
	t.Parallel()
	o := policy(t, `{}`, `package p
decision := {"allow": false, "reasons": sort(why)} if input.x
decision := {"allow": false, "reasons": sort(why), "need": 1} if input.y
decision := {"allow": false, "reasons": ["d", "e"]} if input.u
decision := {"allow": false, "reasons": ["d", "e"]} if input.v
decision := {"allow": false, "reasons": ["d", "f"]} if input.v
decision := {"allow": true, "reasons": ["g"]} if input.v
decision := {"allow": true, "reasons": ["g"]} if input.w
why contains "a" if input.x
why contains r if { some r in ["a", "b"]; input.y }
why contains "c" if input.y`, "package p\nwhy contains \"c\" if input.z").Origins(ast.MustParseRef("data.p.decision"))
	all := o.Doubles()
	if len(all) != 2 || all[0].Says != "a" || !slices.Equal(all[0].Rules, []string{"p.why", `p.why["a"]`}) || all[0].At.Row != 10 ||
		all[1].Says != "d, e" || !slices.Equal(all[1].Rules, []string{"p.decision#3", "p.decision#4"}) {
		t.Errorf("doubles %+v", all)
	}
	if got := strings.Join(o.Of(value(t, `{"allow": false, "reasons": ["d", "e"]}`)), " "); got != `p.decision#3 p.decision#4` {
		t.Errorf("by %s", got)
	}
	if got := strings.Join(o.Of(value(t, `{"allow": false, "reasons": ["a"]}`)), " "); got != `p.decision#1 p.why p.why["a"]` {
		t.Errorf("by %s", got)
	}
	if shared := o.Shared(); len(shared) != 1 || len(shared[`p.why["c"]`]) != 2 || shared[`p.why["c"]`][1].File != "1.rego" {
		t.Errorf("shared %+v", shared)
	}
}

// Many reasons are looked up, and many rules that could have said one are not all named.
func TestManyRules(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("package p\ndecision := {\"allow\": false, \"reasons\": sort(why)}\n")
	for i := range 500 {
		fmt.Fprintf(&b, "why contains \"r%d\" if input.x == %d\n", i, i)
	}
	for range 40 {
		b.WriteString("why contains input.y if input.z\n")
	}
	p := policy(t, `{}`, b.String())
	got := p.Origins(ast.MustParseRef("data.p.decision")).Of(value(t, `{"allow": false, "reasons": ["r7", "r499"]}`))
	if len(got) != ruleid.Most || !slices.Contains(got, `p.why["r7"]`) {
		t.Errorf("by %q", got)
	}
	for steps, most := range map[int]int{20: 1, 200: 2, 1000: 2} { // it knows less then, and does not guess
		p.Steps = steps
		if got := p.Origins(ast.MustParseRef("data.p.decision")).Of(value(t, `{"allow": false, "reasons": ["r7"]}`)); len(got) == 0 || len(got) > most || got[0] != "p.decision" {
			t.Errorf("after %d steps by %q", steps, got)
		}
	}
}

// Much data is not kept a second time: a reason that is in it may be any.
func TestReasonsInMuchData(t *testing.T) {
	t.Parallel()
	all := map[string]string{}
	for i := range 5000 {
		all[fmt.Sprint(i)] = fmt.Sprint("r", i)
	}
	data, err := json.Marshal(map[string]any{"much": all, "little": map[string]string{"x": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	o := policy(t, string(data), "package p\ndecision := {\"allow\": false, \"reasons\": sort(why)}\nwhy contains data.much[input.x]\nwhy contains data.little[input.x]").Origins(ast.MustParseRef("data.p.decision"))
	for says, want := range map[string]string{"r7": "p.decision p.why#1", "none of them": "p.decision p.why#1", "a": "p.decision p.why#1 p.why#2"} {
		if got := strings.Join(o.Of(map[string]any{"allow": false, "reasons": []any{says}}), " "); got != want {
			t.Errorf("%s is by %s, want %s", says, got, want)
		}
	}
}

// Rules that lead to each other in many ways do not take forever, and neither does what has no end.
func TestAnAnalysisEnds(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("package p\ndecision := f0(input.x)\n")
	for i := range 30 {
		fmt.Fprintf(&b, "f%d(x) := f%d([x, x]) if x\nf%d(x) := f%d([x, \"a\"]) if not x\n", i, i+1, i, i+1)
	}
	b.WriteString("f30(x) := x\n")
	if got := policy(t, `{}`, b.String()).Origins(ast.MustParseRef("data.p.decision")).Of("a"); len(got) == 0 || got[0] != "p.decision" {
		t.Errorf("by %q", got)
	}
}

// Neither do what many rules may be together, nor what stands in itself again and again: who publishes waits for it.
func TestAnAnalysisOfProductsEnds(t *testing.T) {
	t.Parallel()
	var many, nested strings.Builder
	many.WriteString("package p\ndecision := object.union(object.union(object.union(a, b), c), d)\n")
	for _, name := range []string{"a", "b", "c", "d"} {
		for i := range 60 {
			fmt.Fprintf(&many, "%s := {\"%s%d\": 1} if input.x == %d\n", name, name, i, i)
		}
	}
	nested.WriteString("package p\ndecision := {\"allow\": false, \"reasons\": [json.marshal(x) | some x in [")
	for i := range 60 {
		fmt.Fprintf(&nested, "r%d, ", i)
	}
	nested.WriteString("1]]}\nr0 := [\"a\"]\n")
	for i := range 60 {
		fmt.Fprintf(&nested, "r%d := [r%d, r%d]\n", i+1, i, i)
	}
	for _, text := range []string{many.String(), nested.String()} {
		if got := policy(t, `{}`, text).Origins(ast.MustParseRef("data.p.decision")).Of(value(t, denied)); len(got) == 0 {
			t.Errorf("by %q:\n%s", got, text)
		}
	}
}

// A denial does not wait for all that a value within values may have come from, and is not said to be by some of it.
func TestWhatAValueIsComparedWithIsBounded(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	var b strings.Builder
	b.WriteString("package p\n")
	for i := range 6 {
		for j := range 8 {
			fmt.Fprintf(&b, "r%d := {\"allow\": false, \"x\": r%d} if input.x == %d\n", i, i+1, j)
		}
	}
	b.WriteString("r6 := input.a\n")
	p := policy(t, `{}`, b.String())
	var v any
	for i := 5; i >= 0; i-- {
		v = map[string]any{"allow": false, "x": v}
		o := p.Origins(ast.MustParseRef(fmt.Sprintf("data.p.r%d", i)))
		got := o.Of(v)
		if i >= 4 && len(got) != 8*(6-i) || i == 0 && got != nil {
			t.Errorf("r%d is by %q", i, got)
		}
		if allocs := testing.AllocsPerRun(1, func() { o.Of(v) }); allocs > 20_000 {
			t.Errorf("r%d: %v allocations", i, allocs)
		}
	}
}

// Of many objects that rules add nearly all are passed over at a glance.
func TestManyObjects(t *testing.T) { //nolint:paralleltest // AllocsPerRun
	var b strings.Builder
	b.WriteString("package p\ndecision := {\"allow\": count(deny) == 0, \"deny\": deny}\n")
	for i := range 3000 {
		fmt.Fprintf(&b, "deny contains {\"code\": \"c%d\", \"at\": input.at} if input.x == %d\n", i, i)
	}
	o := policy(t, `{}`, b.String()).Origins(ast.MustParseRef("data.p.decision"))
	v := value(t, `{"allow": false, "deny": [{"code": "c7", "at": "x"}, {"code": "c2999", "at": "x"}]}`)
	if got := strings.Join(o.Of(v), " "); got != "p.decision p.deny#3000 p.deny#8" {
		t.Errorf("by %s", got)
	}
	if allocs := testing.AllocsPerRun(1, func() { o.Of(v) }); allocs > 100 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkOriginsOfTenThousandRules(b *testing.B) {
	var text strings.Builder
	text.WriteString("package p\ndecision := {\"allow\": false, \"reasons\": sort(why)}\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, "why contains \"r%d\" if input.x == %d\n", i, i)
	}
	m, err := ast.ParseModuleWithOpts("p.rego", text.String(), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		b.Fatal(err)
	}
	p := ruleid.Policy{Names: ruleid.Names{}, Compiler: ast.NewCompiler(), Steps: 1_000_000}
	p.Names.Add(m)
	if p.Compiler.Compile(map[string]*ast.Module{"p.rego": m}); p.Compiler.Failed() {
		b.Fatal(p.Compiler.Errors)
	}
	var o *ruleid.Origins
	for b.Loop() {
		o = p.Origins(ast.MustParseRef("data.p.decision"))
	}
	if got := o.Of(map[string]any{"allow": false, "reasons": []any{"r9"}}); len(got) != 2 {
		b.Fatal(got)
	}
}
