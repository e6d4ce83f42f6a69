package engine

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// fewValues is up to how many values of rules are gone through one by one.
const fewValues = 24

// ruleValues is a topdown.VirtualCache, what rules were found to be in one evaluation, that can be used for the next one as well.
// There are few of them in most evaluations, so that to look at each is less than to make OPA's tree of maps; beyond that, there is
// OPA's.
type ruleValues struct {
	known  []ruleValue
	terms  []*ast.Term // of all refs
	starts []ruleFrame // of frames
}

type ruleFrame struct {
	known, terms int
	more         topdown.VirtualCache // nil up to fewValues
}

type ruleValue struct {
	from, to int       // in terms
	value    *ast.Term // nil: undefined
}

// reset forgets everything.
func (c *ruleValues) reset() {
	clear(c.known)
	clear(c.terms)
	clear(c.starts)
	c.known, c.terms, c.starts = c.known[:0], c.terms[:0], append(c.starts[:0], ruleFrame{})
}

// Push implements topdown.VirtualCache.
func (c *ruleValues) Push() {
	c.starts = append(c.starts, ruleFrame{known: len(c.known), terms: len(c.terms)})
}

// Pop implements topdown.VirtualCache.
func (c *ruleValues) Pop() {
	top := c.starts[len(c.starts)-1]
	c.known, c.terms, c.starts = c.known[:top.known], c.terms[:top.terms], c.starts[:len(c.starts)-1]
}

// Get implements topdown.VirtualCache.
func (c *ruleValues) Get(ref ast.Ref) (value *ast.Term, undefined bool) {
	top := &c.starts[len(c.starts)-1]
	for _, k := range c.known[top.known:] {
		if c.is(k, ref) {
			return k.value, k.value == nil
		}
	}
	if top.more != nil {
		return top.more.Get(ref)
	}
	return nil, false
}

// is compares from the end, where references differ.
func (c *ruleValues) is(k ruleValue, ref ast.Ref) bool {
	if k.to-k.from != len(ref) {
		return false
	}
	for i, t := range slices.Backward(c.terms[k.from:k.to]) {
		if t != ref[i] && !t.Equal(ref[i]) {
			return false
		}
	}
	return true
}

// Put implements topdown.VirtualCache.
func (c *ruleValues) Put(ref ast.Ref, value *ast.Term) {
	top := &c.starts[len(c.starts)-1]
	for i, k := range c.known[top.known:] {
		if c.is(k, ref) {
			c.known[top.known+i].value = value
			return
		}
	}
	if len(c.known)-top.known >= fewValues {
		if top.more == nil {
			top.more = topdown.NewVirtualCache()
		}
		top.more.Put(ref, value)
		return
	}
	from := len(c.terms)
	c.terms = append(c.terms, ref...)
	c.known = append(c.known, ruleValue{from, len(c.terms), value})
}

// Keys implements topdown.VirtualCache.
func (c *ruleValues) Keys() []ast.Ref {
	top := &c.starts[len(c.starts)-1]
	var keys []ast.Ref
	for _, k := range c.known[top.known:] {
		if k.value != nil {
			keys = append(keys, slices.Clone(c.terms[k.from:k.to]))
		}
	}
	if top.more != nil {
		keys = append(keys, top.more.Keys()...)
	}
	return keys
}
