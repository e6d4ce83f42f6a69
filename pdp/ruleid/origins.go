package ruleid

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Most is how many rules stand for one value. Where more could have made it, to name them all says nothing.
const Most = 16

// Origins says which rules made a document what it is: those that it came through on its way to what was asked for, as far as something
// hung on them. Where two rules could have said the same, both are named; Doubles tells of them. It is safe for concurrent use.
type Origins struct {
	alternatives []may
	used         map[string]map[place]bool
	entry        map[string]bool // ids of the document's own rules
}

// Policy is what Origins are found out of.
type Policy struct {
	Compiler *ast.Compiler
	Data     map[string]any // that rules look into
	Names    Names          // of the same rules, as they were parsed

	Steps   int    // how much work it may be; beyond it less is known. A million take about a second
	Breathe func() // called every so many steps; may be nil
}

// Origins follows what rules say on the way to the document ref. Members of the document in except are not followed: they need only be
// there.
func (p Policy) Origins(ref ast.Ref, except ...string) *Origins {
	f := &flow{
		compiler: p.Compiler, data: p.Data, names: p.Names, steps: p.Steps, breathe: p.Breathe,
		known: map[*ast.Rule][]may{}, looked: map[uintptr][]may{}, used: map[string]map[place]bool{}, entry: map[*ast.Rule]bool{},
	}
	for _, r := range p.Compiler.GetRulesExact(ref) {
		f.entry[r] = true
	}
	o := &Origins{alternatives: f.ref(ref, nil), used: f.used, entry: map[string]bool{}}
	for r := range f.entry {
		o.entry[p.Names.of(r).id] = true
	}
	for i, a := range o.alternatives {
		if a.is != object {
			continue
		}
		o.alternatives[i].members = maps.Clone(a.members)
		for _, name := range except {
			if _, there := a.members[name]; there {
				o.alternatives[i].members[name] = anything()
			}
		}
	}
	return o
}

// Of answers the ids of the rules that made a document this value, in JSON's types: those of the document first, and else in the order
// of their names. There are none where nothing is known of it, or to find out would take long. The rules of a package as a whole are those of its members allow, allowed and reasons.
func (o *Origins) Of(value any) []string {
	m := matching{left: mostMatched}
	by, ok := m.any(o.alternatives, value, nil)
	if !ok || m.left < 0 {
		return nil
	}
	all := make([]string, 0, len(by))
	for _, id := range by {
		if !slices.Contains(all, id) {
			if all = append(all, id); len(all) == Most {
				break
			}
		}
	}
	slices.SortFunc(all, func(a, b string) int {
		if of, other := o.entry[a], o.entry[b]; of != other {
			if of {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return slices.Clip(all)
}

// Shared are the ids that more than one rule has by which the document comes to be, and where these stand: file and line.
func (o *Origins) Shared() map[string][]*ast.Location {
	all := map[string][]*ast.Location{}
	for id, places := range o.used {
		if len(places) > 1 {
			all[id] = o.places(id)
		}
	}
	return all
}

func (o *Origins) places(id string) []*ast.Location {
	var all []*ast.Location
	for p := range o.used[id] {
		all = append(all, &ast.Location{File: p.file, Row: p.row, Col: p.col})
	}
	slices.SortFunc(all, func(a, b *ast.Location) int { return a.Compare(b) })
	return all
}

// may is one of the things that something may be.
type may struct {
	by []string // ids of the rules that it came through, that of the document first
	is kind

	late bool // see unfinished

	scalar        any    // string, bool, json.Number or nil
	before, after string // of a text of which more is not known

	members map[string][]may // of an object
	open    bool             // some of them may be absent, and there may be others
	list    *list
}

type kind int

const (
	unknown kind = iota
	scalar
	text   // that begins and ends as said
	object // of which the names of the members are known
	many   // any number of items, in any order
)

// list is a set, an array, or an object with names that are not known. It never changes once it is made.
type list struct {
	items  []may
	places [][]may // of an array of a known length; items are then all of them
	keys   []may   // of an object; nil for others
	set    bool

	texts map[string][]int // places in items of what is one text, where there are many
	rest  []int            // of the others
}

// few is up to how many items are looked at one by one.
const few = 8

func listOf(l list) *list {
	if len(l.items) > few {
		l.texts = map[string][]int{}
		for i, m := range l.items {
			if s, ok := m.scalar.(string); ok && m.is == scalar {
				l.texts[s] = append(l.texts[s], i)
			} else {
				l.rest = append(l.rest, i)
			}
		}
	}
	return &l
}

func anything(by ...string) []may { return []may{{by: by}} }

// unfinished is anything, of a rule that there was no time to look at. Such rules are not named: it might be all the others.
func unfinished() []may { return []may{{late: true}} }

// maker is the rule that put something where it is: the last that it came through on its way from there.
func (m may) maker() string {
	if len(m.by) == 0 {
		return ""
	}
	return m.by[len(m.by)-1]
}

// through is m with rules before those that it came through.
func (m may) through(by []string) may {
	if len(by) > 0 && !m.late {
		all := append(slices.Clone(by), m.by...)
		m.by = all[:min(len(all), Most)]
	}
	return m
}

func through(all []may, by []string) []may {
	if len(by) == 0 {
		return all
	}
	out := make([]may, len(all))
	for i, m := range all {
		out[i] = m.through(by)
	}
	return out
}

// mostMatched is how many objects and lists are compared with parts of one value: each denial waits for it.
const mostMatched = 2000

// matching is the comparison of one value with what it may be.
type matching struct{ left int }

// any appends the rules of each alternative that a value may be.
func (c *matching) any(all []may, v any, by []string) (_ []string, ok bool) {
	for i := range all {
		more, fits := c.one(&all[i], v, by)
		by, ok = more, ok || fits
	}
	return by, ok
}

// one appends the rules by which m is v, or none if it cannot be.
func (c *matching) one(m *may, v any, by []string) (_ []string, ok bool) {
	switch m.is {
	case unknown:
		return append(by, m.by...), true
	case scalar:
		ok = v == m.scalar
	case text:
		s, is := v.(string)
		ok = is && len(s) >= len(m.before)+len(m.after) && strings.HasPrefix(s, m.before) && strings.HasSuffix(s, m.after)
	case object:
		members, is := v.(map[string]any)
		if !is || !m.open && m.other(members) {
			return by, false
		}
		if c.left--; c.left >= 0 {
			if all, ok := c.object(m, members, append(by, m.by...)); ok {
				return all, true
			}
		}
		return by, false
	case many:
		if c.left--; c.left >= 0 {
			if all, ok := c.list(m.list, v, append(by, m.by...)); ok {
				return all, true
			}
		}
		return by, false
	}
	if !ok {
		return by, false
	}
	return append(by, m.by...), true
}

// other reports whether m is plainly not an object of these members. Of many alternatives nearly all are not.
func (m *may) other(members map[string]any) bool {
	if len(members) != len(m.members) {
		return true
	}
	for name, all := range m.members {
		v, there := members[name]
		if !there || len(all) == 1 && all[0].is == scalar && v != all[0].scalar {
			return true
		}
	}
	return false
}

func (c *matching) object(m *may, members map[string]any, by []string) (_ []string, ok bool) {
	if m.open {
		for _, name := range []string{"allow", "allowed", "reasons"} {
			if v, there := members[name]; there {
				by, _ = c.any(m.members[name], v, by)
			}
		}
		return by, true
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if by, ok = c.any(m.members[name], members[name], by); !ok {
			return by, false
		}
	}
	return by, true
}

func (c *matching) list(l *list, v any, by []string) (_ []string, ok bool) {
	switch v := v.(type) {
	case []any:
		return c.items(l, v, by)
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if by, ok = c.any(l.items, v[name], by); !ok {
				return by, false
			}
		}
		return by, true
	}
	return by, false
}

func (c *matching) items(l *list, v []any, by []string) (_ []string, ok bool) {
	if l.places != nil {
		if len(v) != len(l.places) {
			return by, false
		}
		for i, item := range v {
			if by, ok = c.any(l.places[i], item, by); !ok {
				return by, false
			}
		}
		return by, true
	}
	for _, item := range v {
		if by, ok = c.item(l, item, by); !ok {
			return by, false
		}
	}
	return by, true
}

func (c *matching) item(l *list, v any, by []string) (_ []string, ok bool) {
	s, is := v.(string)
	if l.texts == nil || !is {
		return c.any(l.items, v, by)
	}
	for _, some := range [][]int{l.texts[s], l.rest} {
		for _, i := range some {
			more, fits := c.one(&l.items[i], v, by)
			by, ok = more, ok || fits
		}
	}
	return by, ok
}

// largest is how many members of data are looked at; of more it is not known what they are, so that they need not be kept twice.
const largest = 4096

// ofJSON is data that rules look into.
func (f *flow) ofJSON(v any) []may {
	array, _ := v.([]any)
	members, _ := v.(map[string]any)
	if !f.step() {
		return unfinished()
	}
	if len(array) > largest || len(members) > largest {
		return anything()
	}
	switch v := v.(type) {
	case nil, string, bool, json.Number:
		return []may{{is: scalar, scalar: v}}
	case []any:
		l := list{places: make([][]may, len(v))}
		for i, item := range v {
			l.places[i] = f.ofJSON(item)
			l.items = append(l.items, l.places[i]...)
		}
		return []may{{is: many, list: listOf(l)}}
	case map[string]any:
		at := reflect.ValueOf(v).Pointer()
		if is, ok := f.looked[at]; ok {
			return is
		}
		m := may{is: object, members: make(map[string][]may, len(v))}
		for name, item := range v {
			m.members[name] = f.ofJSON(item)
		}
		f.looked[at] = []may{m}
		return f.looked[at]
	}
	return anything() // only the store can read it
}
