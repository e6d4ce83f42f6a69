package ruleid

import (
	"encoding/json"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// flow follows values through rules. It takes more to be possible than is, and never less.
type flow struct {
	compiler *ast.Compiler
	data     map[string]any
	names    Names
	entry    map[*ast.Rule]bool
	known    map[*ast.Rule][]may
	looked   map[uintptr][]may // objects of data, by where they are
	used     map[string]map[place]bool
	steps    int // left
	turn     int // of 512 steps
	depth    int
	breathe  func()
}

// maxDepth is how far references may lead to references.
const maxDepth = 64

// step reports whether there is more to find out; if not, everything is possible.
func (f *flow) step() bool {
	f.steps--
	if turn := f.steps / 512; turn != f.turn && f.breathe != nil {
		f.turn = turn
		f.breathe()
	}
	return f.steps > 0 && f.depth < maxDepth
}

// scope is where variables stand for something: in one rule, function call or comprehension.
type scope struct {
	body  ast.Body
	args  map[ast.Var]argument
	busy  map[ast.Var]bool
	outer *scope
}

type argument struct {
	term *ast.Term
	of   *scope
}

func within(body ast.Body, outer *scope) *scope {
	return &scope{body: body, outer: outer, busy: map[ast.Var]bool{}}
}

// term answers all that a term may be.
func (f *flow) term(t *ast.Term, s *scope) []may {
	f.depth++
	defer func() { f.depth-- }()
	if !f.step() {
		return unfinished()
	}
	switch v := t.Value.(type) {
	case ast.Null:
		return []may{{is: scalar}}
	case ast.Boolean:
		return []may{{is: scalar, scalar: bool(v)}}
	case ast.String:
		return []may{{is: scalar, scalar: string(v)}}
	case ast.Number:
		return []may{{is: scalar, scalar: json.Number(v)}}
	case ast.Var:
		return f.variable(v, s)
	case ast.Ref:
		return f.ref(v, s)
	case *ast.Array:
		l := list{places: make([][]may, 0, v.Len())}
		v.Foreach(func(item *ast.Term) {
			is := f.term(item, s)
			l.places, l.items = append(l.places, is), append(l.items, is...)
		})
		return []may{{is: many, list: listOf(l)}}
	case ast.Set:
		l := list{set: true}
		v.Foreach(func(item *ast.Term) { l.items = append(l.items, f.term(item, s)...) })
		return []may{{is: many, list: listOf(l)}}
	case ast.Object:
		return f.object(v, s)
	case *ast.ArrayComprehension:
		return []may{{is: many, list: listOf(list{items: f.term(v.Term, within(v.Body, s))})}}
	case *ast.SetComprehension:
		return []may{{is: many, list: listOf(list{set: true, items: f.term(v.Term, within(v.Body, s))})}}
	case *ast.ObjectComprehension:
		in := within(v.Body, s)
		return []may{{is: many, list: listOf(list{items: f.term(v.Value, in), keys: f.term(v.Key, in)})}}
	}
	return anything()
}

func (f *flow) object(o ast.Object, s *scope) []may {
	named := may{is: object, members: map[string][]may{}}
	l, plain := list{}, true
	o.Foreach(func(k, v *ast.Term) {
		is := f.term(v, s)
		name, ok := k.Value.(ast.String)
		plain = plain && ok
		named.members[string(name)] = is
		l.items, l.keys = append(l.items, is...), append(l.keys, f.term(k, s)...)
	})
	if plain {
		return []may{named}
	}
	return []may{{is: many, list: listOf(l)}}
}

// ref answers what stands at a reference.
func (f *flow) ref(r ast.Ref, s *scope) []may {
	switch {
	case r[0].Equal(ast.InputRootDocument):
		return anything()
	case r[0].Equal(ast.DefaultRootDocument):
		if len(r) > 1 && r[1].Equal(ast.StringTerm("directory")) {
			return anything()
		}
		return f.under(f.compiler.RuleTree.Child(r[0].Value), f.data, r[1:], s)
	}
	return f.in(f.term(r[0], s), r[1:], s)
}

// under answers what stands in data below a node of rules and a piece of data.
func (f *flow) under(node *ast.TreeNode, base any, rest ast.Ref, s *scope) []may {
	f.depth++
	defer func() { f.depth-- }()
	switch {
	case !f.step():
		return unfinished()
	case node == nil:
		return f.plain(base, rest, s)
	case len(node.Values) > 0:
		all := f.in(f.rules(node.Values), rest, s)
		if len(node.Children) == 0 {
			return all
		}
		return append(slices.Clip(all), f.children(node, nil, rest, s)...)
	}
	return f.children(node, base, rest, s)
}

func (f *flow) children(node *ast.TreeNode, base any, rest ast.Ref, s *scope) []may {
	below, _ := base.(map[string]any)
	if len(rest) == 0 {
		m := may{is: object, open: true, members: map[string][]may{}}
		for _, key := range node.Sorted {
			if name, ok := key.(ast.String); ok {
				m.members[string(name)] = f.under(node.Child(key), below[string(name)], nil, s)
			}
		}
		return []may{m}
	}
	if key, ok := rest[0].Value.(ast.String); ok {
		child, is := below[string(key)]
		if next := node.Child(key); next != nil || is {
			return f.under(next, child, rest[1:], s)
		}
		return nil
	}
	var all []may
	for _, key := range node.Sorted { // any of them
		name, _ := key.(ast.String)
		all = append(all, f.under(node.Child(key), below[string(name)], rest[1:], s)...)
	}
	if base != nil {
		all = append(all, f.plain(base, rest, s)...)
	}
	return all
}

// plain reads plain data; nothing but what stands at the reference is looked at.
func (f *flow) plain(base any, rest ast.Ref, s *scope) []may {
	for len(rest) > 0 {
		below, isObject := base.(map[string]any)
		key, named := rest[0].Value.(ast.String)
		if !isObject || !named {
			break
		}
		var there bool
		if base, there = below[string(key)]; !there {
			return nil
		}
		rest = rest[1:]
	}
	return f.in(f.ofJSON(base), rest, s)
}

// in answers what stands at a path in one of several things.
func (f *flow) in(all []may, path ast.Ref, s *scope) []may {
	for _, key := range path {
		if !f.step() {
			return unfinished()
		}
		var next []may
		for _, m := range all {
			next = append(next, m.at(key)...)
		}
		f.steps -= len(next)
		all = next
	}
	return all
}

func (m may) at(key *ast.Term) []may {
	switch m.is {
	case unknown:
		return []may{m}
	case object:
		var all []may
		name, named := key.Value.(ast.String)
		member, there := m.members[string(name)]
		switch {
		case named && (there || !m.open):
			return through(member, m.by)
		case m.open: // of the data beside rules it is not known what it is
			all = append(all, may{by: m.by})
		}
		if ast.IsConstant(key.Value) {
			return all
		}
		for _, name := range sorted(m.members) {
			all = append(all, through(m.members[name], m.by)...)
		}
		return all
	case many:
		if n, ok := key.Value.(ast.Number); ok && m.list.places != nil {
			if i, ok := n.Int(); ok && i >= 0 && i < len(m.list.places) {
				return through(m.list.places[i], m.by)
			}
			return nil
		}
		return through(m.list.items, m.by)
	case scalar, text:
	}
	return nil
}

// keys are what a variable goes through that stands in the place of a key.
func keys(all []may) []may {
	var out []may
	for _, m := range all {
		switch {
		case m.is == unknown:
			out = append(out, m)
		case m.is == object:
			for _, name := range sorted(m.members) {
				out = append(out, may{by: m.by, is: scalar, scalar: name})
			}
			if m.open {
				out = append(out, may{by: m.by})
			}
		case m.is == many && m.list.set:
			out = append(out, through(m.list.items, m.by)...)
		case m.is == many && m.list.keys != nil:
			out = append(out, through(m.list.keys, m.by)...)
		case m.is == many:
			out = append(out, may{by: m.by})
		}
	}
	return out
}

// variable answers what a variable may stand for: what gives it a value, in the innermost body that does.
func (f *flow) variable(v ast.Var, s *scope) []may {
	for ; s != nil; s = s.outer {
		if s.busy[v] {
			return nil // it is what else it is said to be
		}
		if arg, ok := s.args[v]; ok {
			return f.term(arg.term, arg.of)
		}
		s.busy[v] = true
		all, found := f.bound(v, s)
		delete(s.busy, v)
		if found {
			return all
		}
	}
	return anything()
}

func (f *flow) bound(v ast.Var, s *scope) (all []may, found bool) {
	for _, e := range s.body {
		is, ok := f.binds(e, v, s)
		if !ok {
			continue
		}
		if len(is) == 1 && is[0].is == scalar && len(is[0].by) == 0 {
			return is, true // whatever else it is, it is that
		}
		all, found = append(all, is...), true
	}
	return all, found
}

// binds answers what an expression makes of a variable, if it says something of it.
func (f *flow) binds(e *ast.Expr, v ast.Var, s *scope) ([]may, bool) {
	if e.Negated {
		return nil, false
	}
	var all []may
	found := false
	add := func(is []may, ok bool) {
		if ok {
			all, found = append(all, is...), true
		}
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		add(f.key(terms, v, s))
	case []*ast.Term:
		operands := terms[1:]
		if e.IsEquality() || e.IsAssignment() {
			for i, t := range operands {
				other := operands[1-i]
				add(f.pattern(t, v, func() []may { return f.term(other, s) }))
				add(f.key(t, v, s))
			}
			break
		}
		for _, t := range operands {
			add(f.key(t, v, s))
		}
		op, ok := terms[0].Value.(ast.Ref)
		if n := f.compiler.GetArity(op); ok && n >= 0 && len(operands) == n+1 {
			add(f.pattern(operands[n], v, func() []may { return f.call(op, operands[:n], s) }))
		}
	}
	if found && slices.ContainsFunc(e.With, func(w *ast.With) bool { return !w.Target.Value.(ast.Ref).HasPrefix(ast.InputRootRef) }) {
		return anything(), true // rules or data are others there
	}
	return all, found
}

// pattern answers what v is where a pattern that holds it is one of several things.
func (f *flow) pattern(p *ast.Term, v ast.Var, is func() []may) (all []may, found bool) {
	switch t := p.Value.(type) {
	case ast.Var:
		if t == v {
			return is(), true
		}
	case *ast.Array:
		for i := range t.Len() {
			more, ok := f.pattern(t.Elem(i), v, func() []may { return f.in(is(), ast.Ref{ast.IntNumberTerm(i)}, nil) })
			all, found = append(all, more...), found || ok
		}
	case ast.Object:
		t.Foreach(func(key, item *ast.Term) {
			more, ok := f.pattern(item, v, func() []may { return f.in(is(), ast.Ref{key}, nil) })
			all, found = append(all, more...), found || ok
		})
	}
	return all, found
}

// key answers what v is where it stands in a reference in the place of a key.
func (f *flow) key(t *ast.Term, v ast.Var, s *scope) (all []may, found bool) {
	r, ok := t.Value.(ast.Ref)
	if !ok {
		return nil, false
	}
	for i := 1; i < len(r); i++ {
		if r[i].Equal(ast.NewTerm(v)) {
			all, found = append(all, keys(f.ref(r[:i], s))...), true
		}
	}
	return all, found
}

// rules answers what a document of rules may be.
func (f *flow) rules(rules []*ast.Rule) []may {
	var all []may
	set, keyed := list{set: true}, list{}
	for _, r := range rules {
		is := f.rule(r)
		switch path := r.Head.Ref(); {
		case r.Head.RuleKind() == ast.MultiValue && path.IsGround():
			set.items = append(set.items, is...)
		case !path.IsGround() && len(path) == len(path.GroundPrefix())+1 && r.Head.RuleKind() == ast.SingleValue:
			keyed.items = append(keyed.items, is...)
			keyed.keys = append(keyed.keys, through(f.term(path[len(path)-1], within(r.Body, nil)), f.id(r))...)
		case !path.IsGround():
			all = append(all, may{by: f.id(r)})
		default:
			all = append(all, is...)
		}
	}
	if set.items != nil {
		all = append(all, may{is: many, list: listOf(set)})
	}
	if keyed.items != nil {
		all = append(all, may{is: many, list: listOf(keyed)})
	}
	return all
}

// rule answers what a rule says: its value, or a member that it adds.
func (f *flow) rule(r *ast.Rule) []may {
	if is, ok := f.known[r]; ok {
		return is
	}
	f.known[r] = nil // no rule asks itself
	is := f.branches(r, nil)
	f.known[r] = is
	return is
}

// branches are a rule's and those of its else.
func (f *flow) branches(r *ast.Rule, inputs []*ast.Term, outer ...*scope) []may {
	var all []may
	by := f.id(r)
	for one := r; one != nil; one = one.Else {
		in := within(one.Body, nil)
		if len(outer) > 0 {
			in.args = map[ast.Var]argument{}
			for i, arg := range one.Head.Args {
				if v, ok := arg.Value.(ast.Var); ok && i < len(inputs) {
					in.args[v] = argument{inputs[i], outer[0]}
				}
			}
		}
		value := one.Head.Value
		if value == nil {
			value = one.Head.Key
		}
		is := through(f.term(value, in), by)
		for i := range is {
			if is[i].late && f.entry[r] { // this much is known
				is[i].by = by
			}
		}
		all = append(all, is...)
	}
	f.steps -= len(all)
	return all
}

// id is the rule's among those that a value came through; nothing where it does not decide.
func (f *flow) id(r *ast.Rule) []string {
	n := f.names.of(r)
	if n.id == "" || !n.decides && !f.entry[r] {
		return nil
	}
	if f.used[n.id] == nil {
		f.used[n.id] = map[place]bool{}
	}
	f.used[n.id][placeOf(r)] = true
	return []string{n.id}
}
