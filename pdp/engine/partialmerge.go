package engine

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Partial evaluation writes a rule for each value that a known part of data has: "one of the user's roles is r07, and …" for every
// role that may do what follows, or a rule for every network. Rules that differ in nothing but one such text are one rule here. An
// iteration that is compared with it comes last, and what it finds is looked for in a set; where a builtin is given it, it is gone
// through instead. Nothing that can fail is left out by that: it is come to more often, if anything, and the rules as written are
// asked where it fails. The order of rules is another one, as partial evaluation sorts them in any case, so that topdown must not
// end at the first that holds.

// onlyNames answers the reference that all of a partially evaluated query is; nil if there is more to it.
func onlyNames(queries []ast.Body, answer *ast.Term) ast.Ref {
	if len(queries) != 1 || len(queries[0]) != 1 || !queries[0][0].IsEquality() || len(queries[0][0].With) > 0 || queries[0][0].Negated {
		return nil
	}
	_, of, ok := operands(queries[0][0], func(a, b *ast.Term) bool {
		ref, isRef := b.Value.(ast.Ref)
		return a.Equal(answer) && isRef && ref.IsGround()
	})
	if !ok {
		return nil
	}
	ref, _ := of.Value.(ast.Ref)
	return ref
}

// operands answers those of an equality in the order in which they are as wanted.
func operands(e *ast.Expr, wanted func(a, b *ast.Term) bool) (a, b *ast.Term, ok bool) {
	a, b = e.Operand(0), e.Operand(1)
	if wanted(a, b) {
		return a, b, true
	}
	return b, a, wanted(b, a)
}

// mergeRules makes one of such rules; others stay as they are.
func mergeRules(all []*ast.Rule) []*ast.Rule {
	return mergeBy(mergeBy(all, compared{}), networks{})
}

// difference is a kind of expression by whose text alone rules may differ.
type difference interface {
	// text answers the text of an expression of this kind, and the expression without it; nil for others.
	text(e *ast.Expr) (text *ast.Term, without string)
	// of makes expressions of the texts of all. They replace the one that all have, or come last.
	of(e *ast.Expr, texts []*ast.Term) (exprs []*ast.Expr, last bool)
}

func mergeBy(all []*ast.Rule, by difference) []*ast.Rule {
	groups := map[string][]*ast.Rule{}
	names := make([]string, len(all))
	for i, r := range all {
		if names[i] = likeness(r, by); names[i] != "" {
			groups[names[i]] = append(groups[names[i]], r)
		}
	}
	merged := all[:0:0]
	for i, r := range all {
		switch group := groups[names[i]]; {
		case len(group) < 2:
			merged = append(merged, r)
		case group[0] == r:
			merged = append(merged, mergedRule(group, by))
		}
	}
	return merged
}

// differsAt is where a rule's expression of a kind is, the first; -1 if there is none, or the rule is one that is left alone.
func differsAt(r *ast.Rule, by difference) int {
	if r.Default || r.Else != nil || len(r.Head.Args) > 0 || r.Head.Key != nil || r.Head.Value == nil || !ast.IsConstant(r.Head.Value.Value) {
		return -1
	}
	return slices.IndexFunc(r.Body, func(e *ast.Expr) bool {
		text, _ := by.text(e)
		return text != nil && len(e.With) == 0 && !e.Negated
	})
}

// likeness is all that a rule says but the text; "" for one that is left alone.
func likeness(r *ast.Rule, by difference) string {
	at := differsAt(r, by)
	if at < 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(r.Head.String())
	for i, e := range r.Body {
		b.WriteByte('\n')
		if i == at {
			_, without := by.text(e)
			b.WriteString(without)
			continue
		}
		b.WriteString(e.String())
	}
	return b.String()
}

func mergedRule(group []*ast.Rule, by difference) *ast.Rule {
	r := group[0].Copy()
	at := differsAt(r, by)
	texts := make([]*ast.Term, len(group))
	for i, like := range group {
		texts[i], _ = by.text(like.Body[at])
	}
	exprs, last := by.of(r.Body[at], texts)
	body := slices.Delete(slices.Clone(r.Body), at, at+1)
	if last {
		at = len(body)
	}
	r.Body = ast.NewBody(slices.Insert(body, at, exprs...)...)
	return r
}

// compared is `"text" = ref`, where the last of the ref is a wildcard, and nothing else of it is a variable.
type compared struct{}

func (compared) text(e *ast.Expr) (*ast.Term, string) {
	if !e.IsEquality() {
		return nil, ""
	}
	text, of, ok := operands(e, func(a, b *ast.Term) bool {
		_, isText := a.Value.(ast.String)
		r, isRef := b.Value.(ast.Ref)
		if !isText || !isRef || len(r) < 2 || !r.HasPrefix(ast.DefaultRootRef) {
			return false
		}
		v, isVar := r[len(r)-1].Value.(ast.Var)
		return isVar && (v.IsWildcard() || v.IsGenerated()) && r[:len(r)-1].IsGround()
	})
	if !ok {
		return nil, ""
	}
	return text, of.String()
}

func (compared) of(e *ast.Expr, texts []*ast.Term) ([]*ast.Expr, bool) {
	_, ref, _ := operands(e, func(a, _ *ast.Term) bool { _, isText := a.Value.(ast.String); return isText })
	held := ast.VarTerm("__gatehouse_compared__")
	return []*ast.Expr{ast.Equality.Expr(held, ref), ast.Member.Expr(held, ast.NewTerm(ast.NewSet(texts...)))}, true
}

// networks is a call of net.cidr_contains. Calls that OPA's rule index knows are no difference: the index is worth more.
type networks struct{}

func (networks) text(e *ast.Expr) (*ast.Term, string) {
	terms, ok := e.Terms.([]*ast.Term)
	if !ok || len(terms) != 3 || !terms[0].Equal(cidrContains) {
		return nil, ""
	}
	if _, isText := terms[1].Value.(ast.String); !isText {
		return nil, ""
	}
	return terms[1], "net.cidr_contains of " + terms[2].String()
}

var cidrContains = ast.NewTerm(ast.NetCIDRContains.Ref())

func (networks) of(e *ast.Expr, texts []*ast.Term) ([]*ast.Expr, bool) {
	one := ast.VarTerm("__gatehouse_network__")
	each := ast.RefTerm(ast.NewTerm(ast.NewArray(texts...)), ast.VarTerm("__gatehouse_networks__"))
	return []*ast.Expr{ast.Equality.Expr(one, each), ast.NetCIDRContains.Expr(one, e.Operand(1))}, false
}
