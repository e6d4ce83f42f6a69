package ruleid

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// call answers what a function may say.
func (f *flow) call(op ast.Ref, inputs []*ast.Term, s *scope) []may {
	f.depth++
	defer func() { f.depth-- }()
	if !f.step() {
		return unfinished()
	}
	if rules := f.compiler.GetRulesExact(op); len(rules) > 0 {
		var all []may
		for _, r := range rules {
			all = append(all, f.branches(r, inputs, s)...)
		}
		return all
	}
	arg := func(i int) []may { return f.term(inputs[i], s) }
	switch name := op.String(); name {
	case "sort", "array.reverse", "cast_array":
		return loose(arg(0), 1)
	case "array.slice", "minus", "and":
		return loose(arg(0), 0)
	case "or":
		return together([][]may{arg(0), arg(1)}, true)
	case "array.concat":
		return together([][]may{arg(0), arg(1)}, false)
	case "union", "intersection":
		return together(items(arg(0)), true)
	case "object.get":
		return append(slices.Clip(f.get(arg(0), inputs[1], s)), arg(2)...)
	case "object.keys":
		return []may{{is: many, list: listOf(list{set: true, items: keys(arg(0))})}}
	case "object.union":
		return f.merged(arg(0), arg(1))
	case "concat":
		return f.concat(inputs, s)
	case "sprintf":
		return f.sprintf(inputs, s)
	case "internal.template_string":
		if parts := places(arg(0)); parts != nil {
			return f.joined(parts, "")
		}
	}
	return f.made(op, inputs, s)
}

// made is what a function that is not looked into makes of its operands: anything, but a number or a boolean has nothing of them in it.
func (f *flow) made(op ast.Ref, inputs []*ast.Term, s *scope) []may {
	b := ast.BuiltinMap[op.String()]
	if b == nil {
		return anything()
	}
	switch b.Decl.Result().(type) {
	case types.Boolean, types.Number, *types.Boolean, *types.Number:
		return anything()
	}
	var by []string
	for _, t := range inputs {
		by = f.deep(f.term(t, s), by)
	}
	return anything(by...)
}

// deep appends the rules of all that stands in something.
func (f *flow) deep(all []may, by []string) []string {
	return f.below(all, slices.Clip(by), map[any]bool{})
}

// below is deep's, which goes once through what stands in several places: there may be more of these than anybody can count.
func (f *flow) below(all []may, by []string, been map[any]bool) []string {
	for _, m := range all {
		if len(by) >= Most || f.steps <= 0 {
			break
		}
		f.steps--
		for _, id := range m.by {
			if len(by) < Most && !slices.Contains(by, id) {
				by = append(by, id)
			}
		}
		if m.list != nil && !been[m.list] {
			been[m.list] = true
			by = f.below(m.list.items, by, been)
		}
		if at := reflect.ValueOf(m.members).Pointer(); len(m.members) > 0 && !been[at] {
			been[at] = true
			for _, name := range sorted(m.members) {
				by = f.below(m.members[name], by, been)
			}
		}
	}
	return by
}

// get is object.get of a key, or of a path that is an array.
func (f *flow) get(all []may, key *ast.Term, s *scope) []may {
	if path, ok := key.Value.(*ast.Array); ok {
		var ref ast.Ref
		path.Foreach(func(t *ast.Term) { ref = append(ref, t) })
		return f.in(all, ref, s)
	}
	one := f.in(all, ast.Ref{key}, s)
	switch keys := f.term(key, s); {
	case allAre(keys, scalar, text):
		return one
	case allAre(one, scalar, text): // a path leads no further
		return append(slices.Clip(one), all...)
	}
	return anything(f.deep(all, nil)...)
}

func allAre(all []may, kinds ...kind) bool {
	return !slices.ContainsFunc(all, func(m may) bool { return !slices.Contains(kinds, m.is) })
}

// items are what stands in each of several lists.
func items(all []may) [][]may {
	var out [][]may
	for _, m := range all {
		if m.is == many {
			out = append(out, through(m.list.items, m.by))
		} else {
			out = append(out, []may{{by: m.by}})
		}
	}
	return out
}

// loose are lists with their items in any order and, if there are more than some, in any number. What is no list, such as a number of
// which another is taken, becomes anything.
func loose(all []may, known int) []may {
	out := make([]may, len(all))
	for i, m := range all {
		if m.is != many {
			m = may{by: m.by, late: m.late}
		} else if len(m.list.places) > known {
			m.list = listOf(list{items: m.list.items, set: m.list.set})
		}
		out[i] = m
	}
	return out
}

// together is a list with the items of all.
func together(lists [][]may, set bool) []may {
	l := list{set: set}
	for _, some := range lists {
		for _, is := range items(some) {
			l.items = append(l.items, is...)
		}
	}
	return []may{{is: many, list: listOf(l)}}
}

// merged is an object with the members of both; the latter's go before, but for objects, which are merged themselves.
func (f *flow) merged(a, b []may) []may {
	work := 0
	for _, m := range a {
		work += (1 + len(m.members)) * len(b)
	}
	for _, m := range b {
		work += len(m.members) * len(a)
	}
	if work > f.steps/2 { // with the next it may be that often as much
		return anything(f.deep(b, f.deep(a, nil))...)
	}
	f.steps -= work
	var all []may
	for _, x := range a {
		for _, y := range b {
			by := append(slices.Clip(x.by), y.by...)
			if x.is != object || y.is != object || x.open || y.open {
				all = append(all, may{by: f.deep([]may{x, y}, by)})
				continue
			}
			m := may{by: by, is: object, members: maps.Clone(x.members)}
			for name, over := range y.members {
				if under := x.members[name]; mayMerge(under) && mayMerge(over) {
					over = anything(f.deep(over, f.deep(under, nil))...)
				}
				m.members[name] = over
			}
			all = append(all, m)
		}
	}
	return all
}

// mayMerge reports whether something may be an object.
func mayMerge(all []may) bool {
	return slices.ContainsFunc(all, func(m may) bool {
		return m.is == unknown || m.is == object || m.is == many && m.list.keys != nil
	})
}

// places are the items of an array of which the length is known; nil if that is not so.
func places(all []may) [][]may {
	if len(all) == 1 && all[0].is == many {
		return all[0].list.places
	}
	return nil
}

func (f *flow) concat(inputs []*ast.Term, s *scope) []may {
	between, all := f.term(inputs[0], s), f.term(inputs[1], s)
	if parts := places(all); parts != nil && len(between) == 1 && between[0].is == scalar {
		if sep, ok := between[0].scalar.(string); ok {
			return f.joined(parts, sep)
		}
	}
	return anything(f.deep(all, nil)...)
}

// sprintf reads a format: what stands before and behind its verbs is known.
func (f *flow) sprintf(inputs []*ast.Term, s *scope) []may {
	format, all := f.term(inputs[0], s), f.term(inputs[1], s)
	values := places(all)
	var out []may
	for _, one := range format {
		text, ok := one.scalar.(string)
		if !ok || values == nil {
			out = append(out, anything(f.deep(all, one.by)...)...)
			continue
		}
		var parts [][]may
		n := 0
		for text != "" {
			plain, rest, verb := strings.Cut(text, "%")
			parts = append(parts, []may{{is: scalar, scalar: plain}})
			if !verb {
				break
			}
			switch {
			case strings.HasPrefix(rest, "%"):
				parts = append(parts, []may{{is: scalar, scalar: "%"}})
			case (strings.HasPrefix(rest, "s") || strings.HasPrefix(rest, "v")) && n < len(values):
				parts = append(parts, values[n])
				n++
			default: // of other verbs it is not known where they end
				parts = append(parts, anything(f.deep(all, nil)...))
				rest = " "
			}
			text = rest[1:]
		}
		out = append(out, through(f.joined(parts, ""), one.by)...)
	}
	return out
}

// joined is the text that parts make behind each other, where what each may be is said.
func (f *flow) joined(parts [][]may, sep string) []may {
	const most = 64
	all := []may{{is: scalar, scalar: ""}}
	for i, part := range parts {
		if i > 0 && sep != "" {
			all = f.behind(all, []may{{is: scalar, scalar: sep}})
		}
		if len(part) == 0 {
			return nil // undefined
		}
		if len(all)*len(part) > most {
			part = anything(f.deep(part, nil)...)
		}
		all = f.behind(all, part)
	}
	return all
}

// behind is each of some texts with each of others behind it.
func (f *flow) behind(all, part []may) []may {
	var out []may
	for _, m := range all {
		for _, p := range part {
			by := append(slices.Clip(m.by), p.by...)
			if p.is == object || p.is == many {
				by = f.deep([]may{p}, by)
			}
			said, plain := p.scalar.(string)
			if !plain && p.is == scalar && p.scalar != nil {
				said, plain = fmt.Sprint(p.scalar), true
			}
			switch plain = plain && p.is == scalar; {
			case plain && m.is == scalar:
				out = append(out, may{by: by, is: scalar, scalar: m.scalar.(string) + said}) //nolint:forcetypeassert // joined makes no other
			case plain:
				out = append(out, may{by: by, is: text, before: m.before, after: m.after + said})
			case m.is == scalar:
				out = append(out, may{by: by, is: text, before: m.scalar.(string) + p.before, after: p.after}) //nolint:forcetypeassert // as above
			default:
				out = append(out, may{by: by, is: text, before: m.before, after: p.after})
			}
		}
	}
	return out
}
