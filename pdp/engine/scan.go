package engine

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// scans answers where rules go through what a store answers by keys alone. It follows each body in the order in which it is
// evaluated, in which the compiler has put it. What it does not see (a path that is only known at evaluation) fails there.
func scans(c *ast.Compiler, s storage.Store) error {
	own, ok := s.(*store)
	if !ok {
		return nil
	}
	f := &scanFinder{compiler: c, root: own.root, seen: map[string]bool{}}
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		ast.WalkRules(c.Modules[name], func(r *ast.Rule) bool {
			bound := ast.ReservedVars.Copy()
			for _, arg := range r.Head.Args {
				bound.Update(arg.Vars())
			}
			f.body(r.Body, bound)
			return false
		})
	}
	return errors.Join(f.found...)
}

type scanFinder struct {
	compiler *ast.Compiler
	root     *node
	found    []error
	seen     map[string]bool
}

// body looks at expressions with the variables that are bound before them.
func (f *scanFinder) body(b ast.Body, outer ast.VarSet) {
	bound := outer.Copy()
	for _, expr := range b {
		f.expr(expr, bound)
		bound.Update(ast.OutputVarsFromExpr(f.compiler, expr, bound))
	}
}

func (f *scanFinder) expr(expr *ast.Expr, bound ast.VarSet) {
	if len(expr.With) > 0 { // another document may stand there
		return
	}
	var visit *ast.GenericVisitor
	visit = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension:
			f.body(x.Body, bound)
			return true
		case *ast.SetComprehension:
			f.body(x.Body, bound)
			return true
		case *ast.ObjectComprehension:
			f.body(x.Body, bound)
			return true
		case *ast.Every:
			visit.Walk(x.Domain)
			inside := bound.Copy()
			inside.Update(x.KeyValueVars())
			f.body(x.Body, inside)
			return true
		case ast.Ref:
			f.ref(x, expr, bound)
		}
		return false
	})
	visit.Walk(expr)
}

func (f *scanFinder) ref(r ast.Ref, expr *ast.Expr, bound ast.VarSet) {
	if !r[0].Equal(ast.DefaultRootDocument) {
		return
	}
	n, i := f.root, 1
	for ; i < len(r) && n.of == nil; i++ {
		name, ok := r[i].Value.(ast.String)
		if !ok {
			if unbound(r[i], bound) {
				break
			}
			return
		}
		below, ok := n.below[string(name)]
		if !ok {
			return
		}
		n = below
	}
	switch {
	case n.of == nil:
		f.tell(r, expr, i, "a part of it is too large to be read whole")
	case i == len(r) && n.of.many() != "":
		f.tell(r, expr, i, n.of.many())
	case i < len(r) && unbound(r[i], bound) && n.of.many() != "":
		f.tell(r, expr, i, n.of.many())
	}
}

func unbound(t *ast.Term, bound ast.VarSet) bool { return t.Vars().DiffCount(bound) > 0 }

func (f *scanFinder) tell(r ast.Ref, expr *ast.Expr, to int, why string) {
	loc := r[0].Location
	if loc == nil || loc.File == "" {
		loc = expr.Location
	}
	text := fmt.Sprintf("%s:%d: %s is read whole, or gone through: %s. Read it by a key that is known, as %s[input.subject.id]", loc.File, loc.Row, r[:to], why, r[:to])
	if !f.seen[text] {
		f.seen[text] = true
		f.found = append(f.found, errors.New(text))
	}
}
