package budget

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Scan is a search through data, or a reading of all of it, at each decision.
type Scan struct {
	At      *ast.Location
	Data    ast.Ref
	Members int
	There   bool // else it comes from elsewhere, and may be of any size
	whole   bool
	rewrite string
}

// TooMuch answers "" where limits allow the scan, else what is wrong with it and what would be cheaper. strict is for data, too,
// that is not there.
func (s Scan) TooMuch(limits Limits, strict bool) string {
	what := "is searched through"
	if s.whole {
		what = "is read whole"
	}
	grows := slices.ContainsFunc(limits.Growing, func(at string) bool { return below(slashed(s.Data), at) })
	switch {
	case grows:
		return fmt.Sprintf("%s %s at each decision, and it grows; %s", s.Data, what, s.rewrite)
	case !s.There && strict && !s.whole:
		return fmt.Sprintf("%s %s at each decision, and may be of any size, for it is not in this folder; %s", s.Data, what, s.rewrite)
	case s.Members > limits.Scan:
		return fmt.Sprintf("%s %s at each decision, and has %d members; %s", s.Data, what, s.Members, s.rewrite)
	}
	return ""
}

func slashed(ref ast.Ref) string {
	var names []string
	for _, t := range ref[1:] {
		name, _ := t.Value.(ast.String)
		names = append(names, string(name))
	}
	return strings.Join(names, "/")
}

// below reports whether a path is another or within it, or holds it.
func below(path, other string) bool {
	return path == other || strings.HasPrefix(path, other+"/") || strings.HasPrefix(other, path+"/")
}

// Scans finds those of a compiled rule.
func Scans(c *ast.Compiler, data map[string]any, r *ast.Rule) []Scan {
	s := scanner{compiler: c, data: data}
	s.rule(r)
	return s.found
}

// scanner finds rules that search through data.
type scanner struct {
	compiler *ast.Compiler
	data     map[string]any
	found    []Scan
}

// on notes a search.
func (s *scanner) on(at *ast.Location, prefix ast.Ref, whole bool, rewrite string) {
	n, there := s.size(prefix)
	s.found = append(s.found, Scan{At: at, Data: prefix, Members: n, There: there, whole: whole, rewrite: rewrite})
}

func (s *scanner) rule(r *ast.Rule) {
	safe := ast.NewVarSet(ast.DefaultRootDocument.Value.(ast.Var), ast.InputRootDocument.Value.(ast.Var))
	for _, arg := range r.Head.Args {
		safe.Update(arg.Vars())
	}
	s.body(r.Body, safe)
}

// body looks at what each expression has to find out: a variable that is bound by looking through data is a search.
func (s *scanner) body(b ast.Body, outer ast.VarSet) {
	all := ast.NewVarSet() // what is bound by the end, and so within comprehensions
	all.Update(outer)
	outputs := make([]ast.VarSet, len(b))
	for i, e := range b { // the compiler has put them into the order of evaluation
		outputs[i] = ast.NewVarSet()
		if _, every := e.Terms.(*ast.Every); !every {
			outputs[i] = ast.OutputVarsFromExpr(s.compiler, e, all).Diff(all)
		}
		all.Update(outputs[i])
	}
	for i, e := range b {
		ast.NewGenericVisitor(func(x any) bool {
			switch x := x.(type) {
			case *ast.ArrayComprehension:
				s.body(x.Body, all)
				return true
			case *ast.SetComprehension:
				s.body(x.Body, all)
				return true
			case *ast.ObjectComprehension:
				s.body(x.Body, all)
				return true
			case *ast.Every:
				inner := ast.NewVarSet()
				inner.Update(all)
				inner.Update(x.KeyValueVars())
				s.body(x.Body, inner)
				return true
			case *ast.Term:
				if r, ok := x.Value.(ast.Ref); ok {
					s.ref(b, e, r, outputs[i])
				}
			}
			return false
		}).Walk(e)
	}
}

// ref looks at one reference: whether a variable in it is looked for, or all that is there is read.
func (s *scanner) ref(b ast.Body, e *ast.Expr, r ast.Ref, outputs ast.VarSet) {
	at := e.Location
	if !r.HasPrefix(ast.DefaultRootRef) || at == nil {
		return
	}
	prefix := r.GroundPrefix()
	if len(prefix) < 2 || len(s.compiler.GetRulesForVirtualDocument(prefix)) > 0 || len(s.compiler.GetRulesWithPrefix(prefix)) > 0 {
		return
	}
	if len(prefix) == len(r) {
		s.on(at, prefix, true, member(b, e, prefix))
		return
	}
	if v, ok := r[len(prefix)].Value.(ast.Var); ok && outputs.Contains(v) { // else a look-up by key
		s.on(at, prefix, false, rewrite(b, e, r, prefix))
	}
}

func (s *scanner) size(prefix ast.Ref) (members int, there bool) {
	var v any = s.data
	for _, t := range prefix[1:] {
		name, ok := t.Value.(ast.String)
		m, isMap := v.(map[string]any)
		if !ok || !isMap {
			return 0, false
		}
		if v, ok = m[string(name)]; !ok {
			return 0, false
		}
	}
	switch v := v.(type) {
	case map[string]any:
		return len(v), true
	case []any:
		return len(v), true
	case interface{ Len() int }: // what an engine keeps otherwise
		return v.Len(), true
	}
	return 0, true
}

const lookUp = "look it up by key"

// rewrite says what would find the same without a search: where the members' field is compared with something of the input, an
// object by that field.
func rewrite(b ast.Body, e *ast.Expr, r, prefix ast.Ref) string {
	item := ast.Var("")
	for i, t := range e.Operands() {
		if v, ok := t.Value.(ast.Var); ok && e.IsEquality() && e.Operand(1-i).Value.Compare(r) == 0 {
			item = v
		}
	}
	for _, f := range b {
		if op := f.Operator(); len(f.Operands()) != 2 || !f.IsEquality() && !op.Equal(ast.Equal.Ref()) {
			continue
		}
		for i := range f.Operands() {
			field, ok := fieldOf(f.Operand(i).Value, item, prefix)
			key := asked(b, f.Operand(1-i).Value)
			switch {
			case !ok || key == nil:
			case field == "":
				return fmt.Sprintf("make it an object that has its members as keys, and look up %s[%s]", prefix, key)
			default:
				return fmt.Sprintf("make it an object by %s, and look up %s[%s]", field, prefix, key)
			}
		}
	}
	return lookUp
}

// fieldOf is user in b.user or data.bindings[_].user, and "" for the member itself.
func fieldOf(v ast.Value, item ast.Var, prefix ast.Ref) (field string, ok bool) {
	var rest ast.Ref
	switch v := v.(type) {
	case ast.Var:
		return "", item != "" && v == item
	case ast.Ref:
		switch head, _ := v[0].Value.(ast.Var); {
		case item != "" && head == item:
			rest = v[1:]
		case v.HasPrefix(prefix) && len(v) > len(prefix):
			rest = v[len(prefix)+1:]
		default:
			return "", false
		}
	default:
		return "", false
	}
	var names []string
	for _, t := range rest {
		name, isName := t.Value.(ast.String)
		if !isName {
			return "", false
		}
		names = append(names, string(name))
	}
	return strings.Join(names, "."), true
}

// asked is the part of the input that v is, or stands for; nil where it is something else.
func asked(b ast.Body, v ast.Value) ast.Ref {
	if ref, ok := v.(ast.Ref); ok && ref.HasPrefix(ast.InputRootRef) && ref.IsGround() {
		return ref
	}
	local, ok := v.(ast.Var)
	if !ok {
		return nil
	}
	for _, e := range b {
		for i, t := range e.Operands() {
			if !e.IsEquality() || t.Value.Compare(local) != 0 {
				continue
			}
			if ref, ok := e.Operand(1 - i).Value.(ast.Ref); ok && ref.HasPrefix(ast.InputRootRef) && ref.IsGround() {
				return ref
			}
		}
	}
	return nil
}

// member says the same of `input.x in data.list`.
func member(b ast.Body, e *ast.Expr, prefix ast.Ref) string {
	list := ast.Value(prefix)
	for i, t := range e.Operands() {
		if e.IsEquality() && t.Value.Compare(prefix) == 0 {
			list = e.Operand(1 - i).Value // a local variable
		}
	}
	for _, f := range b {
		if f.IsCall() && f.Operator().Equal(ast.Member.Ref()) && len(f.Operands()) == 2 && f.Operand(1).Value.Compare(list) == 0 {
			if key := asked(b, f.Operand(0).Value); key != nil {
				return fmt.Sprintf("make it an object that has its members as keys, and look up %s[%s]", prefix, key)
			}
		}
	}
	return lookUp
}
