package native

import (
	"encoding/json"

	"github.com/open-policy-agent/opa/v1/ast"
)

// found is what the beginning of a reference into data leads to: rules, or a value of the data itself.
type found struct {
	rules *rules // nil for data
	value any    // of the data; undefined if there is none
	used  int    // how many of the reference's terms
}

// resolve follows the part of a reference into data that is written out. Where it ends above a rule, the document is made of both
// rules and data, and is not compiled.
func (b *builder) resolve(r ast.Ref, loc *ast.Location) (found, error) {
	node := b.compiler.RuleTree.Child(r[0].Value)
	var v any = b.data
	i := 1
	for ; i < len(r); i++ {
		name, ok := r[i].Value.(ast.String)
		if _, changes := v.(Source); !ok || changes {
			break
		}
		if !readable(v) {
			return found{}, unsupported("data that only its store can read", loc)
		}
		v = lookUp(v, string(name))
		if node == nil {
			continue
		}
		if node = node.Child(name); node == nil {
			continue
		}
		if node.External != nil {
			return found{}, unsupported("a rule from elsewhere", loc)
		}
		if len(node.Values) > 0 {
			if len(node.Children) > 0 {
				return found{}, unsupported("a rule with rules below it", loc)
			}
			rs, err := b.rulesAt(r[:i+1], node.Values)
			return found{rules: rs, used: i + 1}, err
		}
	}
	if node != nil && (node.External != nil || len(node.Children) > 0 || len(node.Values) > 0) {
		return found{}, unsupported("a document that is made of rules and data", loc)
	}
	if !readable(v) {
		return found{}, unsupported("data that only its store can read", loc)
	}
	return found{value: v, used: i}, nil
}

// readable reports whether a value of the data is of a kind that is known here.
func readable(v any) bool {
	switch v.(type) {
	case nil, bool, string, json.Number, int64, []any, map[string]any, Relation, Source:
		return true
	}
	return v == undefined
}

// head compiles what a reference begins with, and answers how many of its terms that was.
func (s *scope) head(r ast.Ref, loc *ast.Location) (value, int, error) {
	switch {
	case r[0].Equal(ast.InputRootDocument):
		var path []string
		for _, t := range r[1:] {
			name, ok := t.Value.(ast.String)
			if !ok {
				break
			}
			path = append(path, string(name))
		}
		i := s.inputAt(path)
		return func(f *frame) any { return f.inputValue(i) }, 1 + len(path), nil
	case r[0].Equal(ast.DefaultRootDocument):
		at, err := s.resolve(r, loc)
		if err != nil {
			return nil, 0, err
		}
		if of, changes := at.value.(Source); changes {
			return s.source(of), at.used, nil
		}
		if at.rules == nil {
			return constant(at.value), at.used, nil
		}
		if at.rules.arity > 0 {
			return nil, 0, unsupported("a function that is not called", loc)
		}
		return at.rules.value, at.used, nil
	}
	v, err := s.value(r[0])
	return v, 1, err
}

// ref compiles a reference all of whose variables are bound.
func (s *scope) ref(r ast.Ref, loc *ast.Location) (value, error) {
	v, used, err := s.head(r, loc)
	if err != nil {
		return nil, err
	}
	for _, t := range r[used:] {
		if v, err = s.member(v, t); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// member compiles one step into a value.
func (s *scope) member(of value, key *ast.Term) (value, error) {
	if name, ok := key.Value.(ast.String); ok {
		var boxed any = string(name)
		return func(f *frame) any { return lookUp(of(f), boxed) }, nil
	}
	k, err := s.value(key)
	if err != nil {
		return nil, err
	}
	return func(f *frame) any {
		v, at := of(f), k(f) // both, for either may fail
		if v == undefined || at == undefined {
			return undefined
		}
		return lookUp(v, at)
	}, nil
}

// each compiles a reference with variables that are not bound: what follows is run for every value that it can have.
func (s *scope) each(r ast.Ref, loc *ast.Location) (func(use func(*frame, any) bool) rest, error) {
	v, used, err := s.head(r, loc)
	if err != nil {
		return nil, err
	}
	type step struct {
		key value                  // of a member, or
		is  func(*frame, any) bool // for every key, its pattern
	}
	var steps []step
	for _, t := range r[used:] {
		var st step
		if s.known(t) {
			st.key, err = s.value(t)
		} else {
			st.is, err = s.match(t)
		}
		if err != nil {
			return nil, err
		}
		steps = append(steps, st)
	}
	return func(use func(*frame, any) bool) rest {
		for i := len(steps) - 1; i >= 0; i-- {
			st, then := steps[i], use
			if st.key != nil {
				use = func(f *frame, v any) bool {
					at := st.key(f)
					if at == undefined {
						return false
					}
					if v = lookUp(v, at); v == undefined {
						return false
					}
					return then(f, v)
				}
				continue
			}
			use = func(f *frame, v any) bool {
				return iterate(f, v, func(key, item any) bool { return st.is(f, key) && then(f, item) })
			}
		}
		return func(f *frame) bool {
			if of := v(f); of != undefined {
				return use(f, of)
			}
			return false
		}
	}, nil
}

// iterate goes through the members of a value in topdown's order.
func iterate(f *frame, v any, use func(key, item any) bool) bool {
	switch v := v.(type) {
	case []any:
		for i, item := range v {
			f.step()
			if use(int64(i), item) {
				return true
			}
		}
	case map[string]any:
		for _, k := range sortedKeys(v) {
			f.step()
			if use(k, v[k]) {
				return true
			}
		}
	case *set:
		for _, item := range v.items {
			f.step()
			if use(item, item) {
				return true
			}
		}
	default:
		kindOf(v)
	}
	return false
}
