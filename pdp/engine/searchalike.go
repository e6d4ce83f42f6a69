package engine

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/schema"
)

// naming is how the rules behind the entry point use one name of the input: whose request it is, or what is to be done.
//
// Where they do nothing with it but ask whether it is equal to something, or is a key of something, two names are alike to them of
// which neither occurs anywhere in what else they see: whatever they say of the one, they say of the other. That is told from the
// rules as OPA's compiler leaves them; whatever is not one of these uses counts as another one.
type naming struct {
	alike  bool            // they do nothing else with it
	beside map[string]bool // texts that it is compared with, where these are written out
}

// namingOf looks at input[section][name].
func namingOf(c *ast.Compiler, section, name string) naming {
	n := &namer{
		compiler: c, target: ast.Ref{ast.InputRootDocument, ast.StringTerm(section), ast.StringTerm(name)},
		vars: map[*ast.Rule]map[ast.Var]bool{}, told: map[string]ast.Ref{}, beside: map[string]bool{},
	}
	all := schema.Deciding(c, ast.MustParseRef(Entrypoint))
	for n.grown = true; n.grown && !n.other; { // what a rule takes for the name, others may be given
		n.grown = false
		for r := range all {
			n.rule(r)
		}
	}
	return naming{alike: !n.other, beside: n.beside}
}

// namer follows a name through rules.
type namer struct {
	compiler *ast.Compiler
	target   ast.Ref
	vars     map[*ast.Rule]map[ast.Var]bool // that stand for the name
	told     map[string]ast.Ref             // rules whose value may be the name
	beside   map[string]bool

	grown, other bool
}

func (n *namer) add(r *ast.Rule, v ast.Var) {
	if n.vars[r] == nil {
		n.vars[r] = map[ast.Var]bool{}
	}
	if !n.vars[r][v] {
		n.vars[r][v], n.grown = true, true
	}
}

// is reports whether a term is the name itself.
func (n *namer) is(r *ast.Rule, t *ast.Term) bool {
	switch v := t.Value.(type) {
	case ast.Var:
		return n.vars[r][v]
	case ast.Ref:
		return v.Equal(n.target) || n.told[v.String()] != nil
	}
	return false
}

// leads reports whether a reference may be the name without saying so: it is a part of the input that holds it, or goes to any.
func (n *namer) leads(ref ast.Ref) bool {
	for i := range min(len(ref), len(n.target)) {
		if i > 0 {
			if _, written := ref[i].Value.(ast.String); !written {
				return true
			}
		}
		if !ref[i].Equal(n.target[i]) {
			return false
		}
	}
	return len(ref) < len(n.target)
}

// within looks at a term that must not hold the name in any place but as a key.
func (n *namer) within(r *ast.Rule, t *ast.Term) {
	if n.is(r, t) {
		n.other = true
		return
	}
	switch v := t.Value.(type) {
	case ast.Ref:
		n.ref(r, v)
	case *ast.Array:
		v.Foreach(func(t *ast.Term) { n.within(r, t) })
	case ast.Set:
		v.Foreach(func(t *ast.Term) { n.within(r, t) })
	case ast.Object:
		v.Foreach(func(k, item *ast.Term) { n.within(r, k); n.within(r, item) })
	case *ast.ArrayComprehension:
		n.within(r, v.Term)
		n.body(r, v.Body)
	case *ast.SetComprehension:
		n.within(r, v.Term)
		n.body(r, v.Body)
	case *ast.ObjectComprehension:
		n.within(r, v.Key)
		n.within(r, v.Value)
		n.body(r, v.Body)
	case ast.Null, ast.Boolean, ast.Number, ast.String, ast.Var:
	default:
		n.other = true
	}
}

// ref looks at a reference that is not the name: it may be a key in it.
func (n *namer) ref(r *ast.Rule, ref ast.Ref) {
	if n.leads(ref) || n.is(r, ref[0]) {
		n.other = true
	}
	prefix := ref.ConstantPrefix()
	for _, told := range n.told { // a document that may hold the value of a rule
		n.other = n.other || len(told) > len(prefix) && told.HasPrefix(prefix)
	}
	for _, t := range ref[1:] {
		if !n.is(r, t) {
			n.within(r, t)
		}
	}
}

// free looks at a term that may be the name.
func (n *namer) free(r *ast.Rule, t *ast.Term) {
	if !n.is(r, t) {
		n.within(r, t)
	}
}

func (n *namer) body(r *ast.Rule, b ast.Body) {
	for _, e := range b {
		n.expr(r, e)
	}
}

func (n *namer) expr(r *ast.Rule, e *ast.Expr) {
	if len(e.With) > 0 {
		n.other = true
		return
	}
	switch t := e.Terms.(type) {
	case *ast.Term:
		n.free(r, t)
	case *ast.Every:
		n.within(r, t.Domain)
		n.body(r, t.Body)
	case []*ast.Term:
		op, _ := t[0].Value.(ast.Ref)
		switch op.String() {
		case ast.Equality.Name, ast.Equal.Name, ast.NotEqual.Name, ast.Assign.Name:
			n.equal(r, t[1], t[2])
			for _, more := range t[3:] {
				n.within(r, more)
			}
		case ast.Member.Name:
			if n.is(r, t[1]) {
				n.written(t[2])
			}
			n.free(r, t[1])
			for _, more := range t[2:] {
				n.within(r, more)
			}
		case ast.ObjectGet.Name:
			n.within(r, t[1])
			n.free(r, t[2])
			for _, more := range t[3:] {
				n.within(r, more)
			}
		default:
			n.call(r, op, t[1:])
		}
	default:
		n.other = true
	}
}

// equal looks at an equation. A variable on one side stands for what the other is.
func (n *namer) equal(r *ast.Rule, a, b *ast.Term) {
	for _, pair := range [][2]*ast.Term{{a, b}, {b, a}} {
		if !n.is(r, pair[0]) {
			continue
		}
		if v, ok := pair[1].Value.(ast.Var); ok {
			n.add(r, v)
		}
		n.written(pair[1])
	}
	n.free(r, a)
	n.free(r, b)
}

// written keeps the texts of what the name is compared with.
func (n *namer) written(t *ast.Term) {
	keep := func(t *ast.Term) {
		if s, ok := t.Value.(ast.String); ok {
			n.beside[string(s)] = true
		}
	}
	switch v := t.Value.(type) {
	case ast.String:
		keep(t)
	case *ast.Array:
		v.Foreach(keep)
	case ast.Set:
		v.Foreach(keep)
	}
}

// call looks at a call of a function: what is given to it stands there for the name as well. No other builtin may see it.
func (n *namer) call(r *ast.Rule, op ast.Ref, operands []*ast.Term) {
	functions := n.compiler.GetRulesExact(op)
	for i, t := range operands {
		if len(functions) == 0 || !n.is(r, t) {
			n.within(r, t)
			continue
		}
		for _, f := range functions {
			for ; f != nil; f = f.Else {
				if i >= len(f.Head.Args) { // where the result goes
					n.other = true
					continue
				}
				switch v := f.Head.Args[i].Value.(type) {
				case ast.Var:
					n.add(f, v)
				case ast.String:
					n.beside[string(v)] = true
				case ast.Null, ast.Boolean, ast.Number:
				default:
					n.other = true
				}
			}
		}
	}
}

func (n *namer) rule(r *ast.Rule) {
	n.body(r, r.Body)
	if r.Head.Key != nil {
		n.within(r, r.Head.Key)
	}
	for _, t := range r.Head.Reference[1:] {
		if _, written := t.Value.(ast.String); !written {
			n.within(r, t)
		}
	}
	if r.Head.Value != nil {
		if len(r.Head.Args) == 0 && r.Head.Key == nil && n.is(r, r.Head.Value) {
			if name := r.Ref().String(); n.told[name] == nil {
				n.told[name], n.grown = r.Ref(), true
			}
		} else {
			n.within(r, r.Head.Value)
		}
	}
	if r.Else != nil {
		n.rule(r.Else)
	}
}

// mostTexts bounds the texts that are kept of a policy's data.
const mostTexts = 100_000

// textsOf are all texts that the rules behind the entry point hold, and that small data holds, names of members among them. It answers
// false where these are not all that the rules can see: data is large, or of a kind that only its store can read.
func textsOf(c *ast.Compiler, data map[string]any) (all map[string]bool, whole bool) {
	all, whole = map[string]bool{}, true
	for r := range schema.Deciding(c, ast.MustParseRef(Entrypoint)) {
		ast.WalkTerms(r, func(t *ast.Term) bool {
			if s, ok := t.Value.(ast.String); ok {
				all[string(s)] = true
			}
			return false
		})
	}
	for name, v := range data {
		if name != "directory" || !isDirectory(v) {
			all[name] = true
			whole = collect(all, v) && whole
		}
	}
	return all, whole
}

// isDirectory reports whether data.directory is a directory, and not a file of tests.
func isDirectory(v any) bool {
	m, _ := v.(map[string]any)
	_, ok := m["subjects"].(subjects)
	return ok
}

// collect adds the texts that stand in v; false if it cannot see all of it.
func collect(all map[string]bool, v any) bool {
	if len(all) > mostTexts {
		return false
	}
	switch v := v.(type) {
	case string:
		all[v] = true
	case []any:
		for _, item := range v {
			if !collect(all, item) {
				return false
			}
		}
	case []string:
		for _, s := range v {
			all[s] = true
		}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all[name] = true
			if !collect(all, v[name]) {
				return false
			}
		}
	default:
		return plainValue(v)
	}
	return true
}

// plainValue reports whether v is one without texts.
func plainValue(v any) bool {
	switch v.(type) {
	case nil, bool, json.Number, int, int64, float64:
		return true
	}
	return false
}

// SubjectIDs says which ids of subjects the rules behind the entry point may tell apart by themselves.
type SubjectIDs struct {
	compared bool
	special  map[string]bool
}

// SubjectIDsOf reads it from rules, and from the data that they see but for a directory. Ids in the texts of more are told apart too.
func SubjectIDsOf(c *ast.Compiler, data map[string]any, more ...any) SubjectIDs {
	rest := maps.Clone(data)
	delete(rest, "directory")
	texts, whole := textsOf(c, rest)
	for _, v := range more {
		whole = collect(texts, v) && whole
	}
	return SubjectIDs{compared: whole && namingOf(c, "subject", "id").alike, special: texts}
}

// Alike reports whether the rules say of an id what they say of every other that is alike, of subjects of which else the same is known.
func (s SubjectIDs) Alike(id string) bool { return s.compared && !s.special[id] }
