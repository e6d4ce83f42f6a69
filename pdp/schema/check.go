package schema

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Problem is a reference to what is not there.
type Problem struct {
	File    string
	Line    int
	Message string
	Sure    bool // false: the place is open, but the name is nearly one that is known there
}

// String is "file:line: what".
func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message) }

// Check looks through modules that c has compiled, by name, for references to data that is neither there nor made by a rule, and,
// in the rules that entry comes to, to input that s does not allow: other rules answer OPA's Data API, whose input is the caller's.
func (s *Schema) Check(c *ast.Compiler, entry ast.Ref, data map[string]any, modules []string) []Problem {
	k := &checker{schema: s, compiler: c, data: data, decides: Deciding(c, entry), foreign: map[string]bool{}}
	if s.OtherInputs {
		k.strangers(modules)
	}
	for _, name := range slices.Sorted(slices.Values(modules)) {
		if m := c.Modules[name]; m != nil {
			ast.WalkRules(m, func(r *ast.Rule) bool { k.rule(r); return true })
		}
	}
	slices.SortFunc(k.found, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(k.found)
}

// strangers finds packages that are written for another input: they read a member of input that is neither in the schema nor a
// misspelt one of it.
func (k *checker) strangers(modules []string) {
	members := slices.Collect(maps.Keys(k.schema.Properties))
	for _, name := range modules {
		m := k.compiler.Modules[name]
		if m == nil {
			continue
		}
		ast.WalkRefs(m, func(ref ast.Ref) bool {
			if ref.HasPrefix(ast.InputRootRef) && len(ref) > 1 {
				if member, ok := ref[1].Value.(ast.String); ok && !slices.Contains(members, string(member)) && nearest(string(member), members) == "" {
					k.foreign[m.Package.Path.String()] = true
				}
			}
			return false
		})
	}
}

// Deciding are the compiled rules that entry comes to.
func Deciding(c *ast.Compiler, entry ast.Ref) map[*ast.Rule]bool {
	all := map[*ast.Rule]bool{}
	for todo := c.GetRules(entry); len(todo) > 0; {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if all[r] {
			continue
		}
		all[r] = true
		for next := range c.Graph.Dependencies(r) {
			if r, ok := next.(*ast.Rule); ok {
				todo = append(todo, r)
			}
		}
	}
	return all
}

type checker struct {
	schema   *Schema
	compiler *ast.Compiler
	data     map[string]any
	found    []Problem
	decides  map[*ast.Rule]bool // rules that see the input of s
	asked    bool               // whether the rule that is looked at is one
	foreign  map[string]bool    // packages for another input

	at     *ast.Location // of the expression that is looked at
	stands map[ast.Var]ast.Ref
}

// rule looks at one rule, with its else branches.
func (k *checker) rule(r *ast.Rule) {
	k.stands, k.asked = map[ast.Var]ast.Ref{}, k.decides[r] && !k.foreign[r.Module.Package.Path.String()]
	ast.WalkExprs(r, func(e *ast.Expr) bool { k.local(e); return false })
	k.at = r.Location
	ast.WalkRefs(r.Head, func(ref ast.Ref) bool { k.ref(ref); return false })
	for one := r; one != nil; one = one.Else {
		ast.WalkExprs(one.Body, func(e *ast.Expr) bool {
			if e.Location != nil {
				k.at = e.Location
			}
			k.expr(e)
			return false
		})
	}
}

// local notes what a local variable stands for: s in `s := input.subject`.
func (k *checker) local(e *ast.Expr) {
	if !e.IsEquality() || len(e.Operands()) != 2 {
		return
	}
	for i, t := range e.Operands() {
		v, isVar := t.Value.(ast.Var)
		ref, isRef := e.Operand(1 - i).Value.(ast.Ref)
		if isVar && isRef && strings.HasPrefix(string(v), ast.LocalVarPrefix) && k.stands[v] == nil {
			k.stands[v] = ref
		}
	}
}

// whole puts in place of a local variable what it stands for.
func (k *checker) whole(ref ast.Ref) ast.Ref {
	for range 16 { // a circle would not have compiled
		v, ok := ref[0].Value.(ast.Var)
		if !ok || k.stands[v] == nil {
			break
		}
		ref = append(slices.Clone(k.stands[v]), ref[1:]...)
	}
	return ref
}

func (k *checker) expr(e *ast.Expr) {
	terms := e.Operands()
	if call, ok := e.Terms.([]*ast.Term); ok && len(call) >= 4 && call[0].String() == ast.ObjectGet.Name {
		if ref, ok := k.refOf(call[1]); ok {
			switch key := call[2].Value.(type) {
			case ast.String:
				k.ref(append(slices.Clone(ref), call[2]))
			case *ast.Array:
				if key.IsGround() {
					path := slices.Clone(ref)
					key.Foreach(func(t *ast.Term) { path = append(path, t) })
					k.ref(path)
				}
			}
		}
	}
	if op := e.Operator(); len(terms) == 2 && (e.IsEquality() || op.Equal(ast.Equal.Ref()) || op.Equal(ast.NotEqual.Ref())) {
		for i, t := range terms {
			ref, ok := k.refOf(t)
			if ok && ast.IsConstant(terms[1-i].Value) {
				k.never(ref, terms[1-i])
			}
		}
	}
	ast.WalkRefs(e, func(ref ast.Ref) bool {
		k.ref(ref)
		return false
	})
}

func (k *checker) refOf(t *ast.Term) (ast.Ref, bool) {
	switch v := t.Value.(type) {
	case ast.Ref:
		return k.whole(v), true
	case ast.Var:
		if ref := k.stands[v]; ref != nil {
			return k.whole(ref), true
		}
	}
	return nil, false
}

func (k *checker) ref(ref ast.Ref) {
	if len(ref) == 0 {
		return
	}
	at := k.at
	if l := ref[0].Location; l != nil && l.Row > 0 {
		at = l
	}
	told := 0 // of what a variable stands for is told where it is taken
	if whole := k.whole(ref); !whole[0].Equal(ref[0]) {
		told, ref = len(whole)-len(ref)+1, whole
	}
	switch {
	case ref.HasPrefix(ast.InputRootRef) && k.asked:
		k.walk(ref, told, at)
	case ref.HasPrefix(ast.DefaultRootRef):
		k.inData(ref, told, at)
	}
}

func (k *checker) report(at *ast.Location, sure bool, format string, args ...any) {
	if at == nil {
		at = &ast.Location{}
	}
	k.found = append(k.found, Problem{at.File, at.Row, fmt.Sprintf(format, args...), sure})
}

// walk goes down the schema as ref does. It answers the schema there, nil where anything may be. What is wrong within the first told
// parts of ref is not told again.
func (k *checker) walk(ref ast.Ref, told int, at *ast.Location) *Schema {
	s := k.schema
	report := func(i int, sure bool, format string, args ...any) {
		if i+2 > told {
			k.report(at, sure, format, args...)
		}
	}
	for i, t := range ref[1:] {
		if s == nil || s.never {
			return nil
		}
		here := ref[:i+1]
		name, isName := t.Value.(ast.String)
		_, isNumber := t.Value.(ast.Number)
		switch {
		case isName && s.is("object"):
			next, known := s.Properties[string(name)]
			switch {
			case known && next == nil:
				return nil
			case known && next.never, !known && s.closed():
				report(i, true, "%s: %s has no %q%s", ref[:i+2], here, string(name), k.meant(string(name), s, here))
				return nil
			case known:
				s = next
			default:
				if near := nearest(string(name), slices.Collect(maps.Keys(s.Properties))); near != "" {
					report(i, false, "%s: %q is not known of %s, which is open; did you mean %s.%s?", ref[:i+2], string(name), here, here, near)
				}
				s = s.Additional
			}
		case isNumber && s.is("array"), !isName && !isNumber && s.is("array") && !s.is("object"):
			s = s.Items
		case isName || isNumber:
			report(i, true, "%s: %s is %s", ref[:i+2], here, strings.Join(s.Type, " or "))
			return nil
		case !s.is("object") && !s.is("array"):
			report(i, true, "%s: %s is %s", ref[:i+2], here, strings.Join(s.Type, " or "))
			return nil
		default:
			return nil // whatever key it is
		}
	}
	return s
}

// never reports a comparison with what is not among the values that there can be.
func (k *checker) never(ref ast.Ref, with *ast.Term) {
	text, ok := with.Value.(ast.String)
	if !ok || !k.asked || !ref.HasPrefix(ast.InputRootRef) {
		return
	}
	before := len(k.found)
	s := k.walk(ref, 0, k.at)
	k.found = k.found[:before] // said elsewhere
	if s == nil || len(s.Enum) == 0 {
		return
	}
	var known []string
	for _, v := range s.Enum {
		if word, ok := v.(string); ok {
			known = append(known, word)
		}
	}
	if slices.Contains(known, string(text)) {
		return
	}
	hint := "; there are " + strings.Join(known, ", ")
	if near := nearest(string(text), known); near != "" {
		hint = "; did you mean " + near + "?"
	}
	k.report(k.at, true, "%s is never %q%s", ref, string(text), hint)
}

// meant is a suggestion, or what there is: first the same name elsewhere in the input, then nearly that name here, then elsewhere.
func (k *checker) meant(name string, s *Schema, here ast.Ref) string {
	elsewhere := map[string][]string{}
	k.schema.names("input", elsewhere)
	if same := elsewhere[name]; len(same) > 0 {
		return "; did you mean " + closest(same, here) + "?"
	}
	known := slices.Sorted(maps.Keys(s.Properties))
	if near := nearest(name, known); near != "" {
		return fmt.Sprintf("; did you mean %s.%s?", here, near)
	}
	if near := nearest(name, slices.Collect(maps.Keys(elsewhere))); near != "" {
		return "; did you mean " + closest(elsewhere[near], here) + "?"
	}
	if len(known) == 0 {
		return ""
	}
	return "; it has " + strings.Join(known, ", ")
}

// closest is the path that is most like here.
func closest(paths []string, here ast.Ref) string {
	for n := len(here); n > 1; n-- {
		for _, p := range paths {
			if strings.HasPrefix(p, here[:n].String()+".") {
				return p
			}
		}
	}
	return paths[0]
}

// names collects the paths of all members by their last names, the shortest first.
func (s *Schema) names(at string, into map[string][]string) {
	if s == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		here := at + "." + name
		into[name] = append(into[name], here)
		slices.SortStableFunc(into[name], func(a, b string) int { return cmp.Compare(strings.Count(a, "."), strings.Count(b, ".")) })
		s.Properties[name].names(here, into)
	}
}

// inData looks for what a reference names among rules and data, and tells of it as walk does.
func (k *checker) inData(ref ast.Ref, told int, at *ast.Location) {
	prefix := ref.ConstantPrefix()
	if len(prefix) < 2 || k.made(prefix) {
		return
	}
	var v any = k.data
	for i, t := range prefix[1:] {
		name, ok := t.Value.(ast.String)
		here := prefix[:i+2]
		if !ok || k.elsewhere(here) {
			return
		}
		if k.leads(here) && i+2 < len(prefix) {
			if next, _, isObject := member(v, string(name)); isObject {
				v = next
			}
			continue
		}
		next, there, isObject := member(v, string(name))
		switch {
		case there:
			v = next
			continue
		case k.made(here):
			v = nil // only rules are below
			continue
		case i+2 <= told:
			return
		case v != nil && !isObject:
			k.report(at, true, "%s: %s has no members", here, prefix[:i+1])
			return
		}
		hint := ""
		if near := nearest(string(name), k.below(prefix[:i+1], v)); near != "" {
			hint = fmt.Sprintf("; did you mean %s.%s?", prefix[:i+1], near)
		}
		k.report(at, true, "%s: there is neither such data nor such a rule%s", here, hint)
		return
	}
}

// member looks into an object, also one that an engine keeps otherwise.
func member(v any, name string) (next any, there, isObject bool) {
	switch v := v.(type) {
	case map[string]any:
		next, there = v[name]
		return next, there, true
	case interface{ Member(name string) (any, bool) }:
		next, there = v.Member(name)
		return next, there, true
	}
	return nil, false, false
}

// made reports whether rules stand at, above or below a path.
func (k *checker) made(path ast.Ref) bool {
	return len(k.compiler.GetRulesForVirtualDocument(path)) > 0 || len(k.compiler.GetRulesWithPrefix(path)) > 0
}

// slashed is data.a.b as a/b.
func slashed(path ast.Ref) string {
	var names []string
	for _, t := range path[1:] {
		name, _ := t.Value.(ast.String)
		names = append(names, string(name))
	}
	return strings.Join(names, "/")
}

// leads reports whether a path is on the way to one that is said to come from elsewhere.
func (k *checker) leads(path ast.Ref) bool {
	here := slashed(path) + "/"
	return slices.ContainsFunc(k.schema.Data, func(at string) bool { return strings.HasPrefix(at, here) })
}

// elsewhere reports whether a path is said to come from elsewhere.
func (k *checker) elsewhere(path ast.Ref) bool {
	here := slashed(path)
	if k.schema.Outside != nil && k.schema.Outside(here) {
		return true
	}
	return slices.ContainsFunc(k.schema.Data, func(at string) bool { return here == at || strings.HasPrefix(here, at+"/") })
}

// below are the names of data and rules right below a path.
func (k *checker) below(path ast.Ref, v any) []string {
	object, _ := v.(map[string]any) // names of one that is too large for that are no help
	names := slices.Collect(maps.Keys(object))
	for _, r := range k.compiler.GetRulesWithPrefix(path) {
		full := r.Module.Package.Path.Extend(r.Head.Ref())
		if len(full) > len(path) {
			if name, ok := full[len(path)].Value.(ast.String); ok {
				names = append(names, string(name))
			}
		}
	}
	return names
}
