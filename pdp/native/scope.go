package native

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// builder is what all rules of a program share while it is made.
type builder struct {
	compiler *ast.Compiler
	data     map[string]any
	program  *Program
	inputs   map[string]int
	rules    map[string]*rules
	objects  []map[string]any // constants
}

func (b *builder) slot() int {
	b.program.slots++
	return b.program.slots - 1
}

// scope knows which variables of a body are bound, at the place up to which it has been compiled.
type scope struct {
	*builder
	slots map[ast.Var]int // of those that are bound
}

// inner is a scope within this one, whose variables do not leave it.
func (s *scope) inner() *scope { return &scope{builder: s.builder, slots: maps.Clone(s.slots)} }

func (s *scope) bind(v ast.Var) int {
	i := s.slot()
	s.slots[v] = i
	return i
}

// unsupported says what is not compiled and where.
func unsupported(what string, loc *ast.Location) error {
	if loc == nil {
		return errors.New(what)
	}
	return fmt.Errorf("%s:%d: %s", loc.File, loc.Row, what)
}

// known reports whether a term has no variable that is not bound yet.
func (s *scope) known(t *ast.Term) bool {
	found := false
	vis := ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension:
			return true // what is not bound there is its own
		case ast.Ref:
			if x[0].Equal(ast.InputRootDocument) || x[0].Equal(ast.DefaultRootDocument) {
				for _, t := range x[1:] {
					found = found || !s.known(t)
				}
				return true
			}
		case ast.Var:
			if _, ok := s.slots[x]; !ok {
				found = true
			}
		}
		return found
	})
	vis.Walk(t)
	return !found
}

// value compiles a term whose variables are all bound.
func (s *scope) value(t *ast.Term) (value, error) {
	switch v := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String:
		c, _ := fromAST(v)
		return constant(c), nil
	case ast.Var:
		i, ok := s.slots[v]
		if !ok {
			return nil, unsupported("a variable that is not bound yet", t.Location)
		}
		return func(f *frame) any { return f.vars[i] }, nil
	case ast.Ref:
		return s.ref(v, t.Location)
	case *ast.Array, ast.Object, ast.Set:
		if ast.IsConstant(v) {
			c, ok := fromAST(v)
			if !ok {
				return nil, unsupported("an object with keys that are not strings", t.Location)
			}
			if m, ok := c.(map[string]any); ok {
				s.objects = append(s.objects, m)
			}
			return constant(c), nil
		}
		return s.composite(t)
	case *ast.ArrayComprehension:
		return s.comprehension(v.Body, nil, v.Term, func(_ []string, items []any) any { return items })
	case *ast.SetComprehension:
		return s.comprehension(v.Body, nil, v.Term, func(_ []string, items []any) any { return newSet(items) })
	case *ast.ObjectComprehension:
		return s.comprehension(v.Body, v.Key, v.Value, func(keys []string, items []any) any {
			m := make(map[string]any, len(keys))
			for i, k := range keys {
				if old, taken := m[k]; taken && !equal(old, items[i]) {
					giveUp("an object with two values under one key")
				}
				m[k] = items[i]
			}
			return m
		})
	}
	return nil, unsupported(fmt.Sprintf("a term of type %s", ast.ValueName(t.Value)), t.Location)
}

func constant(v any) value { return func(*frame) any { return v } }

// composite compiles arrays, objects and sets that hold more than constants. All of their parts are worked out before one that is
// undefined makes the whole undefined.
func (s *scope) composite(t *ast.Term) (value, error) {
	var parts []value
	var names []string
	add := func(part *ast.Term) error {
		v, err := s.value(part)
		parts = append(parts, v)
		return err
	}
	var err error
	switch v := t.Value.(type) {
	case *ast.Array:
		err = v.Iter(add)
	case ast.Set:
		err = v.Iter(add)
	case ast.Object:
		err = v.Iter(func(k, item *ast.Term) error {
			name, ok := k.Value.(ast.String)
			if !ok {
				return unsupported("an object with keys that are not strings", t.Location)
			}
			names = append(names, string(name))
			return add(item)
		})
	}
	if err != nil {
		return nil, err
	}
	all := func(f *frame) ([]any, bool) {
		items, ok := make([]any, len(parts)), true
		for i, part := range parts {
			items[i] = part(f)
			ok = ok && items[i] != undefined
		}
		return items, ok
	}
	_, isSet := t.Value.(ast.Set)
	return func(f *frame) any {
		if names != nil {
			m, ok := make(map[string]any, len(parts)), true
			for i, part := range parts {
				v := part(f)
				m[names[i]] = v
				ok = ok && v != undefined
			}
			if !ok {
				return undefined
			}
			return m
		}
		items, ok := all(f)
		switch {
		case !ok:
			return undefined
		case isSet:
			return newSet(items)
		}
		return items
	}, nil
}

// collected is what a comprehension has so far.
type collected struct {
	keys  []string
	items []any
}

func (s *scope) comprehension(body ast.Body, key, item *ast.Term, made func([]string, []any) any) (value, error) {
	in := s.inner()
	stages, err := in.body(body)
	if err != nil {
		return nil, err
	}
	var keyOf value
	if key != nil {
		if keyOf, err = in.value(key); err != nil {
			return nil, err
		}
	}
	itemOf, err := in.value(item)
	if err != nil {
		return nil, err
	}
	at := s.slot()
	run := chain(stages, func(f *frame) bool {
		all, _ := f.vars[at].(*collected)
		v := itemOf(f)
		if v == undefined {
			giveUp("a comprehension of what is undefined")
		}
		if keyOf != nil {
			k, ok := keyOf(f).(string)
			if !ok {
				giveUp("a key that is not a string")
			}
			all.keys = append(all.keys, k)
		}
		all.items = append(all.items, v)
		return false
	})
	return func(f *frame) any {
		all := &collected{}
		f.vars[at] = all
		run(f)
		if all.items == nil {
			all.items = []any{}
		}
		return made(all.keys, all.items)
	}, nil
}

// match compiles a pattern: it binds the pattern's variables and reports whether a value is like it.
func (s *scope) match(t *ast.Term) (func(*frame, any) bool, error) {
	switch v := t.Value.(type) {
	case ast.Var:
		if i, ok := s.slots[v]; ok {
			return func(f *frame, x any) bool { return equal(f.vars[i], x) }, nil
		}
		i := s.bind(v)
		return func(f *frame, x any) bool { f.vars[i] = x; return true }, nil
	case *ast.Array:
		if s.known(t) {
			break
		}
		parts := make([]func(*frame, any) bool, v.Len())
		for i := range parts {
			var err error
			if parts[i], err = s.match(v.Elem(i)); err != nil {
				return nil, err
			}
		}
		return func(f *frame, x any) bool {
			items, ok := x.([]any)
			if !ok || len(items) != len(parts) {
				return false
			}
			for i, part := range parts {
				if !part(f, items[i]) {
					return false
				}
			}
			return true
		}, nil
	case ast.Object:
		if s.known(t) {
			break
		}
		return s.matchObject(v, t.Location)
	case ast.Null, ast.Boolean, ast.Number, ast.String:
		c, _ := fromAST(v)
		return func(_ *frame, x any) bool { return equal(c, x) }, nil
	}
	if !s.known(t) || readsRules(s.builder, t) {
		return nil, unsupported("a pattern that holds more than variables, constants, input and data", t.Location)
	}
	want, err := s.value(t)
	if err != nil {
		return nil, err
	}
	return func(f *frame, x any) bool {
		v := want(f)
		return v != undefined && equal(v, x)
	}, nil
}

func (s *scope) matchObject(o ast.Object, loc *ast.Location) (func(*frame, any) bool, error) {
	var names []string
	var parts []func(*frame, any) bool
	err := o.Iter(func(k, item *ast.Term) error {
		name, ok := k.Value.(ast.String)
		if !ok {
			return unsupported("a pattern with keys that are not strings", loc)
		}
		part, err := s.match(item)
		names, parts = append(names, string(name)), append(parts, part)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func(f *frame, x any) bool {
		m, ok := x.(map[string]any)
		if !ok || len(m) != len(names) {
			return false
		}
		for i, name := range names {
			item, ok := m[name]
			if !ok || !parts[i](f, item) {
				return false
			}
		}
		return true
	}, nil
}

// readsRules reports whether a term reads anything but input, data and local values; comprehensions count as if they did.
func readsRules(b *builder, t *ast.Term) bool {
	found := false
	ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, ast.Call:
			found = true
		case ast.Ref:
			if x.HasPrefix(ast.DefaultRootRef) {
				if at, err := b.resolve(x, nil); err != nil || at.rules != nil {
					found = true
				}
			}
		}
		return found
	}).Walk(t)
	return found
}

// inputAt answers the place of an input's path in frames.
func (b *builder) inputAt(path []string) int {
	name := strings.Join(path, "\x00")
	i, ok := b.inputs[name]
	if !ok {
		i = len(b.program.inputs)
		b.inputs[name] = i
		path = slices.Clone(path)
		b.program.inputs = append(b.program.inputs, path)
		b.program.reads = append(b.program.reads, func(in Input) (any, bool) { return in.At(path) })
	}
	return i
}

// inputValue asks for a part of the input once.
func (f *frame) inputValue(i int) any {
	v := f.inputs[i]
	if v == unasked {
		var ok bool
		if v, ok = f.program.reads[i](f.in); !ok {
			v = undefined
		}
		f.inputs[i] = v
	}
	return v
}
