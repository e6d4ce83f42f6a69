package author

import (
	"encoding/json"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// How a mutant differs.
const (
	dropRule   = "rule dropped"
	dropExpr   = "condition dropped"
	negate     = "condition negated"
	compare    = "comparison swapped"
	changed    = "constant changed"
	dropData   = "data dropped"
	changeData = "data changed"
)

// change is one small mistake that an author could have made in a T.
type change[T any] struct {
	to     T
	kind   string
	at     *ast.Location
	before string
	after  string
}

// lift carries changes of a part into the whole.
func lift[P, W any](parts []change[P], whole func(P) W) []change[W] {
	all := make([]change[W], len(parts))
	for i, c := range parts {
		all[i] = change[W]{whole(c.to), c.kind, c.at, c.before, c.after}
	}
	return all
}

// Nothing here changes what it is given: modules are read by many at once, and terms are shared.

// ofRule changes a rule's conditions, what it answers, and its else.
func ofRule(r *ast.Rule) []change[*ast.Rule] {
	with := func(edit func(*ast.Rule)) *ast.Rule {
		c := r.Copy()
		edit(c)
		return c
	}
	var all []change[*ast.Rule]
	if !trivial(r.Body) {
		all = lift(ofBody(r.Body), func(b ast.Body) *ast.Rule { return with(func(c *ast.Rule) { c.Body = b }) })
	}
	head := func(t *ast.Term, set func(*ast.Head, *ast.Term)) {
		if t == nil || t.Location == nil || (r.Head.Location != nil && len(t.Location.Text) == 0) {
			return // a value that nobody wrote
		}
		all = append(all, lift(ofTerm(t), func(to *ast.Term) *ast.Rule { return with(func(c *ast.Rule) { set(c.Head, to) }) })...)
	}
	if r.Head.DocKind() == ast.PartialSetDoc {
		head(r.Head.Key, func(h *ast.Head, t *ast.Term) { h.Key = t })
	} else if !generated(r) {
		head(r.Head.Value, func(h *ast.Head, t *ast.Term) { h.Value = t })
	}
	if r.Else != nil {
		all = append(all, lift(ofRule(r.Else), func(e *ast.Rule) *ast.Rule { return with(func(c *ast.Rule) { c.Else = e }) })...)
	}
	return all
}

// generated reports whether the true that a rule answers was left out by its author.
func generated(r *ast.Rule) bool {
	return !r.Default && ast.Boolean(true).Equal(r.Head.Value.Value) && !strings.Contains(string(r.Head.Location.Text), "true")
}

// trivial is the body of a rule that has none.
func trivial(b ast.Body) bool {
	if len(b) != 1 {
		return false
	}
	t, ok := b[0].Terms.(*ast.Term)
	return ok && ast.Boolean(true).Equal(t.Value)
}

func ofBody(b ast.Body) (all []change[ast.Body]) {
	for i, e := range b {
		with := func(to ...*ast.Expr) ast.Body {
			var exprs []*ast.Expr
			for j, other := range b {
				if j != i {
					exprs = append(exprs, other.Copy())
				} else {
					exprs = append(exprs, to...)
				}
			}
			return ast.NewBody(exprs...)
		}
		dropped := with()
		if len(b) == 1 {
			dropped = ast.NewBody(ast.NewExpr(ast.NewTerm(ast.Boolean(true))))
		}
		all = append(all, change[ast.Body]{dropped, dropExpr, e.Location, source(e), ""})
		all = append(all, lift(ofExpr(e), func(to *ast.Expr) ast.Body { return with(to) })...)
	}
	return all
}

// swaps are comparisons that are easily mistaken for each other. Equality is not among them: its opposite is its negation.
var (
	swaps = map[string]string{"lt": "lte", "lte": "lt", "gt": "gte", "gte": "gt"}
	signs = map[string]string{"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
)

func ofExpr(e *ast.Expr) (all []change[*ast.Expr]) {
	with := func(edit func(*ast.Expr)) *ast.Expr {
		c := e.Copy()
		edit(c)
		return c
	}
	switch terms := e.Terms.(type) {
	case *ast.SomeDecl:
		for i, s := range terms.Symbols {
			all = append(all, lift(ofTerm(s), func(to *ast.Term) *ast.Expr {
				return with(func(c *ast.Expr) { c.Terms.(*ast.SomeDecl).Symbols[i] = to })
			})...)
		}
		return all
	case *ast.Every:
		all = append(all, lift(ofTerm(terms.Domain), func(to *ast.Term) *ast.Expr {
			return with(func(c *ast.Expr) { c.Terms.(*ast.Every).Domain = to })
		})...)
		return append(all, lift(ofBody(terms.Body), func(to ast.Body) *ast.Expr {
			return with(func(c *ast.Expr) { c.Terms.(*ast.Every).Body = to })
		})...)
	case *ast.Term:
		all = lift(ofTerm(terms), func(to *ast.Term) *ast.Expr { return with(func(c *ast.Expr) { c.Terms = to }) })
	case []*ast.Term:
		if to, ok := swaps[terms[0].Value.String()]; ok {
			swapped := with(func(c *ast.Expr) {
				c.Terms.([]*ast.Term)[0] = ast.NewTerm(ast.Ref{ast.VarTerm(to)}).SetLocation(terms[0].Location)
			})
			all = append(all, change[*ast.Expr]{swapped, compare, e.Location, source(e), signs[to]})
		}
		for i, t := range terms[1:] {
			all = append(all, lift(ofTerm(t), func(to *ast.Term) *ast.Expr {
				return with(func(c *ast.Expr) { c.Terms.([]*ast.Term)[i+1] = to })
			})...)
		}
	}
	if !e.IsAssignment() {
		opposite := with(func(c *ast.Expr) { c.Negated = !c.Negated })
		text := source(e)
		after := "not " + text
		if e.Negated {
			after = strings.TrimPrefix(text, "not ")
		}
		all = append(all, change[*ast.Expr]{opposite, negate, e.Location, text, after})
	}
	return all
}

func ofTerm(t *ast.Term) (all []change[*ast.Term]) {
	at := func(v ast.Value) *ast.Term { return ast.NewTerm(v).SetLocation(t.Location) }
	constant := func(v ast.Value) []change[*ast.Term] {
		return []change[*ast.Term]{{at(v), changed, t.Location, short(t), short(v)}}
	}
	switch v := t.Value.(type) {
	case ast.String:
		return constant(v + "~")
	case ast.Boolean:
		return constant(!v)
	case ast.Null:
		return constant(ast.Boolean(false))
	case ast.Number:
		return constant(plusOne(v))
	case ast.Ref: // its words are names, not constants
		for i, part := range v[1:] {
			if _, name := part.Value.(ast.String); name || ast.IsScalar(part.Value) {
				continue
			}
			all = append(all, lift(ofTerm(part), func(to *ast.Term) *ast.Term {
				c := v.Copy()
				c[i+1] = to
				return at(c)
			})...)
		}
	case ast.Call:
		for i, arg := range v[1:] {
			all = append(all, lift(ofTerm(arg), func(to *ast.Term) *ast.Term {
				c := v.Copy()
				c[i+1] = to
				return at(c)
			})...)
		}
	case *ast.Array:
		for i := range v.Len() {
			all = append(all, lift(ofTerm(v.Elem(i)), func(to *ast.Term) *ast.Term {
				var elems []*ast.Term
				for j := range v.Len() {
					elems = append(elems, v.Elem(j))
				}
				elems[i] = to
				return at(ast.NewArray(elems...))
			})...)
		}
	case ast.Set:
		for _, x := range v.Slice() {
			rest := v.Diff(ast.NewSet(x))
			all = append(all, lift(ofTerm(x), func(to *ast.Term) *ast.Term { return at(rest.Union(ast.NewSet(to))) })...)
		}
	case ast.Object:
		return ofObject(v, at)
	case *ast.ArrayComprehension:
		return append(lift(ofTerm(v.Term), func(to *ast.Term) *ast.Term { return at(&ast.ArrayComprehension{Term: to, Body: v.Body.Copy()}) }),
			lift(ofBody(v.Body), func(to ast.Body) *ast.Term { return at(&ast.ArrayComprehension{Term: v.Term, Body: to}) })...)
	case *ast.SetComprehension:
		return append(lift(ofTerm(v.Term), func(to *ast.Term) *ast.Term { return at(&ast.SetComprehension{Term: to, Body: v.Body.Copy()}) }),
			lift(ofBody(v.Body), func(to ast.Body) *ast.Term { return at(&ast.SetComprehension{Term: v.Term, Body: to}) })...)
	case *ast.ObjectComprehension:
		return append(lift(ofTerm(v.Value), func(to *ast.Term) *ast.Term {
			return at(&ast.ObjectComprehension{Key: v.Key, Value: to, Body: v.Body.Copy()})
		}), lift(ofBody(v.Body), func(to ast.Body) *ast.Term {
			return at(&ast.ObjectComprehension{Key: v.Key, Value: v.Value, Body: to})
		})...)
	}
	return all
}

func ofObject(o ast.Object, at func(ast.Value) *ast.Term) (all []change[*ast.Term]) {
	keys := o.Keys()
	for i := range keys {
		rebuilt := func(key, value *ast.Term) *ast.Term {
			items := make([][2]*ast.Term, len(keys))
			for j, k := range keys {
				items[j] = ast.Item(k, o.Get(k))
			}
			items[i] = ast.Item(key, value)
			return at(ast.NewObject(items...))
		}
		value := o.Get(keys[i])
		all = append(all, lift(ofTerm(keys[i]), func(to *ast.Term) *ast.Term { return rebuilt(to, value) })...)
		all = append(all, lift(ofTerm(value), func(to *ast.Term) *ast.Term { return rebuilt(keys[i], to) })...)
	}
	return all
}

func plusOne(n ast.Number) ast.Value {
	if i, ok := n.Int64(); ok {
		return ast.Number(json.Number(ast.IntNumberTerm(int(i) + 1).String()))
	}
	return ast.Number("0")
}

// source is how an author wrote a condition.
func source(e *ast.Expr) string {
	if e.Location == nil || len(e.Location.Text) == 0 {
		return short(e)
	}
	return oneShortLine(string(e.Location.Text))
}

// short is one line of what was or will be.
func short(x interface{ String() string }) string { return oneShortLine(x.String()) }

func oneShortLine(s string) string {
	const most = 100 // runes
	text := []rune(strings.Join(strings.Fields(s), " "))
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}
