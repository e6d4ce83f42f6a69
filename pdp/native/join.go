package native

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// manyItems is how many items an array of the data has before it is worth an index.
const manyItems = 16

// join compiles `item = data.list[_]` where `item.name = known` comes next: of the list only those items are gone through whose
// member is equal, found by an index that is made once. What is passed over would have ended at that next expression, which
// cannot fail, and which is still looked at. It answers nil for anything else.
func (s *scope) join(e, next *ast.Expr) (stage, error) {
	if !e.IsEquality() || !next.IsEquality() || e.Negated || next.Negated || len(e.With)+len(next.With) > 0 {
		return nil, nil
	}
	item, list, ok := sides(e, func(a, b *ast.Term) bool {
		v, isVar := a.Value.(ast.Var)
		r, isRef := b.Value.(ast.Ref)
		_, bound := s.slots[v]
		return isVar && !bound && isRef && r.HasPrefix(ast.DefaultRootRef)
	})
	if !ok {
		return nil, nil
	}
	member, known, ok := sides(next, func(a, b *ast.Term) bool {
		r, isRef := a.Value.(ast.Ref)
		if !isRef || len(r) != 2 || !r[0].Equal(item) || !s.known(b) {
			return false
		}
		_, named := r[1].Value.(ast.String)
		return named
	})
	ref, _ := list.Value.(ast.Ref)
	if !ok || len(ref) < 2 || s.known(ref[len(ref)-1]) {
		return nil, nil
	}
	at, err := s.resolve(ref, e.Location)
	if err != nil {
		return nil, err
	}
	items, ok := at.value.([]any)
	if !ok || at.rules != nil || at.used != len(ref)-1 || len(items) < manyItems {
		return nil, nil
	}
	want, err := s.value(known)
	if err != nil {
		return nil, err
	}
	isKey, err := s.match(ref[len(ref)-1])
	if err != nil {
		return nil, err
	}
	is, err := s.match(item)
	if err != nil {
		return nil, err
	}
	path, _ := member.Value.(ast.Ref)
	name, _ := path[1].Value.(ast.String)
	places := map[string][]int32{}
	for i, item := range items {
		if text, ok := lookUp(item, string(name)).(string); ok {
			places[text] = append(places[text], int32(i)) //nolint:gosec // files of policies are bounded
		}
	}
	return func(then rest) rest {
		return func(f *frame) bool {
			v := want(f)
			text, isText := v.(string)
			switch {
			case v == undefined:
				return false
			case !isText:
				return iterate(f, items, func(k, item any) bool { return isKey(f, k) && is(f, item) && then(f) })
			}
			for _, i := range places[text] {
				f.step()
				if isKey(f, int64(i)) && is(f, items[i]) && then(f) {
					return true
				}
			}
			return false
		}
	}, nil
}

// sides answers the operands of an equality in the order in which they are as wanted.
func sides(e *ast.Expr, wanted func(a, b *ast.Term) bool) (a, b *ast.Term, ok bool) {
	a, b = e.Operand(0), e.Operand(1)
	if wanted(a, b) {
		return a, b, true
	}
	return b, a, wanted(b, a)
}
