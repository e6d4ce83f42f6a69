package native

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// A join is `item = data.list[_]` (or data.lists[known][_]) where what comes next compares members of the item: `item.name = known`,
// or glob.match of one. Of the list only those items are gone through that come through these, found by an index for the first
// and by texts that were read beforehand for the others. What is passed over would have ended at one of those expressions; none
// of them, and nothing between them, can fail for it; and for the rest they are still looked at.

const (
	manyItems  = 8       // that a list has before it is worth an index
	maxIndexed = 1 << 16 // items of all lists that stand below one value
	maxScreens = 4
)

// screen is one comparison of a member.
type screen struct {
	name  string
	want  value // what it is compared with
	globs byte  // 0 for equality; else what stands between segments
}

// table is what is known of one list.
type table struct {
	items   []any
	places  map[string][]int32 // by the text of the first screen's member
	columns [][]cell           // by screen
}

// cell is an item's member.
type cell struct {
	text  string
	tells bool // the screen can tell by it that the item is not wanted
}

// join compiles the first of expressions as one; nil if it is none.
func (s *scope) join(body []*ast.Expr) (stage, error) {
	e := body[0]
	if !e.IsEquality() || e.Negated || len(e.With) > 0 {
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
	ref, _ := list.Value.(ast.Ref)
	last := len(ref) - 1
	if last < 1 || s.known(ref[last]) || !s.known(ast.NewTerm(ref[:last])) {
		return nil, nil
	}
	at, err := s.resolve(ref, e.Location)
	if err != nil {
		return nil, err
	}
	if at.rules != nil || at.used > last {
		return nil, nil
	}
	screens, err := s.screens(item, ref[last].Vars(), body[1:])
	if err != nil || screens == nil {
		return nil, err
	}
	tables := tablesOf(at.value, last-at.used, screens)
	if len(tables) == 0 {
		return nil, nil
	}
	of, err := s.ref(ref[:last], e.Location)
	if err != nil {
		return nil, err
	}
	isKey, err := s.match(ref[last])
	if err != nil {
		return nil, err
	}
	is, err := s.match(item)
	if err != nil {
		return nil, err
	}
	return func(then rest) rest {
		use := func(f *frame, k, item any) bool { return isKey(f, k) && is(f, item) && then(f) }
		return func(f *frame) bool {
			v := of(f)
			if v == undefined {
				return false
			}
			items, ok := v.([]any)
			if !ok || len(items) == 0 {
				return iterate(f, v, func(k, item any) bool { return use(f, k, item) })
			}
			t := tables[&items[0]]
			if t == nil || len(t.items) != len(items) {
				return iterate(f, v, func(k, item any) bool { return use(f, k, item) })
			}
			return t.through(f, screens, use)
		}
	}, nil
}

// through goes through the items that come through the screens.
func (t *table) through(f *frame, screens []screen, use func(f *frame, k, item any) bool) bool {
	var wants [maxScreens]string
	var tells [maxScreens]bool
	for i := range screens {
		v := screens[i].want(f)
		if v == undefined && i == 0 {
			return false // no item gets beyond it
		}
		wants[i], tells[i] = v.(string)
	}
	if tells[0] {
		for _, i := range t.places[wants[0]] {
			f.step()
			if t.passes(int(i), 1, screens, &wants, &tells) && use(f, int64(i), t.items[i]) {
				return true
			}
		}
		return false
	}
	for i, item := range t.items {
		f.step()
		if t.passes(i, 0, screens, &wants, &tells) && use(f, int64(i), item) {
			return true
		}
	}
	return false
}

// passes reports whether an item may be wanted, by the screens from one on.
func (t *table) passes(item, from int, screens []screen, wants *[maxScreens]string, tells *[maxScreens]bool) bool {
	for i := from; i < len(screens); i++ {
		c := &t.columns[i][item]
		switch {
		case !c.tells || !tells[i]:
		case screens[i].globs == 0:
			if c.text != wants[i] {
				return false
			}
		case !matchSegments(c.text, wants[i], screens[i].globs):
			return false
		}
	}
	return true
}

// screens reads what comes after an item and the variables of its key have been bound, as far as nothing else than comparisons of
// its members does.
func (s *scope) screens(item *ast.Term, keys ast.VarSet, body []*ast.Expr) (all []screen, err error) {
	members := map[ast.Var]string{}      // of the item, by the variable that they are given
	aliases := map[ast.Var]*ast.Term{}   // what other variables are given
	member := func(t *ast.Term) string { // of the item; "" if it is none
		switch v := t.Value.(type) {
		case ast.Var:
			return members[v]
		case ast.Ref:
			if len(v) == 2 && v[0].Equal(item) {
				name, _ := v[1].Value.(ast.String)
				return string(name)
			}
		}
		return ""
	}
	known := func(t *ast.Term) *ast.Term { // which can be worked out before there is an item, and cannot fail; nil if not
		if v, ok := t.Value.(ast.Var); ok && aliases[v] != nil {
			t = aliases[v]
		}
		if !s.known(t) || readsRules(s.builder, t) {
			return nil
		}
		return t
	}
	add := func(name string, want *ast.Term, globs byte) error {
		v, err := s.value(want)
		all = append(all, screen{name, v, globs})
		return err
	}
	for _, e := range body {
		if e.Negated || len(e.With) > 0 || len(all) == maxScreens {
			return all, nil
		}
		if name, want, by := globOf(e); name != nil && len(all) > 0 { // the index is of the first screen, and by equality
			if member(name) == "" || known(want) == nil {
				return all, nil
			}
			if err := add(member(name), known(want), by); err != nil {
				return nil, err
			}
			continue
		}
		if !e.IsEquality() {
			return all, nil
		}
		if of, want, ok := sides(e, func(a, b *ast.Term) bool { return member(a) != "" && known(b) != nil }); ok {
			if err := add(member(of), known(want), 0); err != nil {
				return nil, err
			}
			continue
		}
		name, of, ok := sides(e, func(a, b *ast.Term) bool {
			v, isVar := a.Value.(ast.Var)
			_, bound := s.slots[v]
			return isVar && !bound && !v.Equal(item.Value) && !keys.Contains(v) && members[v] == "" && aliases[v] == nil && (member(b) != "" || known(b) != nil)
		})
		if !ok {
			return all, nil
		}
		v, _ := name.Value.(ast.Var)
		if m := member(of); m != "" {
			members[v] = m
		} else {
			aliases[v] = known(of)
		}
	}
	return all, nil
}

// globOf reads glob.match(pattern, [delimiter], text), nil if it is none, or one of another kind.
func globOf(e *ast.Expr) (pattern, text *ast.Term, by byte) {
	terms, ok := e.Terms.([]*ast.Term)
	if !ok || len(terms) != 4 || !terms[0].Equal(globTerm) {
		return nil, nil, 0
	}
	if by = delimiterOf(terms[2]); by == 0 {
		return nil, nil, 0
	}
	return terms[1], terms[3], by
}

var globTerm = ast.NewTerm(ast.GlobMatch.Ref())

// tablesOf makes tables of the lists that stand so many levels below a value, by their first items; none if there are too many.
func tablesOf(v any, levels int, screens []screen) map[*any]*table {
	all, left := map[*any]*table{}, maxIndexed
	if list, ok := v.([]any); ok && levels == 0 {
		left = len(list) // files of policies are bounded
	}
	var walk func(v any, levels int) bool
	walk = func(v any, levels int) bool {
		switch v := v.(type) {
		case map[string]any:
			if levels == 0 || len(v) > left {
				return levels == 0
			}
			left -= len(v)
			for _, below := range v {
				if !walk(below, levels-1) {
					return false
				}
			}
		case []any:
			if left -= len(v); left < 0 {
				return false
			}
			if levels == 0 {
				if len(v) >= manyItems {
					all[&v[0]] = tableOf(v, screens)
				}
				return true
			}
			for _, below := range v {
				if !walk(below, levels-1) {
					return false
				}
			}
		}
		return true
	}
	if !walk(v, levels) {
		return nil
	}
	return all
}

func tableOf(items []any, screens []screen) *table {
	t := &table{items: items, columns: make([][]cell, len(screens))}
	for i, s := range screens {
		t.columns[i] = make([]cell, len(items))
		for j, item := range items {
			text, isText := lookUp(item, s.name).(string)
			t.columns[i][j] = cell{text, isText && (s.globs == 0 || isSimple(text, s.globs))}
		}
	}
	t.places = map[string][]int32{}
	for i, c := range t.columns[0] {
		if c.tells {
			t.places[c.text] = append(t.places[c.text], int32(i)) //nolint:gosec // files of policies are bounded
		}
	}
	for text, at := range t.places {
		t.places[text] = slices.Clip(at)
	}
	return t
}

// sides answers the operands of an equality in the order in which they are as wanted.
func sides(e *ast.Expr, wanted func(a, b *ast.Term) bool) (a, b *ast.Term, ok bool) {
	a, b = e.Operand(0), e.Operand(1)
	if wanted(a, b) {
		return a, b, true
	}
	return b, a, wanted(b, a)
}
