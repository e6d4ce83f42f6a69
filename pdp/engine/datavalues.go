package engine

import (
	"context"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// fixedData is what of a store's data is kept as OPA's values, which nothing changes. To read it by a reference takes nothing from
// the heap, where the store has the reference made a path and its names values again.
type fixedData struct {
	all   ast.Object // nil where data is kept as Go's values
	apart *node      // of store
}

// fixedOf answers what is fixed in a store.
func fixedOf(ctx context.Context, s storage.Store, t storage.Transaction) (fixedData, error) {
	var f fixedData
	if own, ok := s.(*store); ok {
		if own.all != nil {
			return f, nil
		}
		f.apart, s, t = own.root, own.Store, inner(t)
	}
	all, err := s.Read(ctx, t, storage.Path{})
	f.all, _ = all.(ast.Object)
	return f, err
}

// get answers what stands at a reference, nil where the store has to say: it knows what stands apart, or above that, and takes numbers for
// names.
func (f fixedData) get(ref ast.Ref) ast.Value {
	if f.all == nil || len(ref) < 2 {
		return nil
	}
	apart := f.apart
	var v ast.Value = f.all
	for _, t := range ref[1:] {
		var below *ast.Term
		switch name := t.Value.(type) {
		case ast.String:
			if apart != nil {
				apart = apart.below[string(name)]
			}
			if object, ok := v.(ast.Object); ok {
				below = object.Get(t)
			}
		case ast.Number:
			if list, ok := v.(*ast.Array); ok {
				below = list.Get(t)
			}
		}
		if below == nil {
			return nil
		}
		v = below.Value
	}
	if apart != nil {
		return nil
	}
	return v
}

// fewData is how many places that an evaluation has read are known; of more, those that it read last.
const fewData = 24

// dataValues is a topdown.BaseCache, what was read of data in one evaluation, that can be used for the next one as well.
type dataValues struct {
	fixed fixedData
	known []dataValue
	next  int // which of them is forgotten for another
}

type dataValue struct {
	names []ast.Value // behind data
	value ast.Value
}

// reset forgets everything.
func (c *dataValues) reset() {
	for i := range c.known {
		clear(c.known[i].names)
		c.known[i].value = nil
	}
	c.known, c.next = c.known[:0], 0
}

// Get implements topdown.BaseCache.
func (c *dataValues) Get(ref ast.Ref) ast.Value {
	if v := c.fixed.get(ref); v != nil {
		return v
	}
	for i := range c.known {
		k := &c.known[i]
		if !k.leads(ref) {
			continue
		}
		v, err := k.value.Find(ref[1+len(k.names):])
		if err != nil {
			return nil
		}
		return v
	}
	return nil
}

// leads reports whether it is what stands at a reference, or holds that.
func (k *dataValue) leads(ref ast.Ref) bool {
	if len(ref) < 1+len(k.names) {
		return false
	}
	for i, name := range k.names {
		if name != ref[1+i].Value { // 0 and -0 are two names
			return false
		}
	}
	return true
}

// Put implements topdown.BaseCache. The terms of a reference are the evaluation's to use again, their values are not.
func (c *dataValues) Put(ref ast.Ref, value ast.Value) {
	at := c.next
	switch {
	case len(c.known) < cap(c.known): // with the names of another evaluation
		at = len(c.known)
		c.known = c.known[:at+1]
	case len(c.known) < fewData:
		at = len(c.known)
		c.known = append(c.known, dataValue{})
	default:
		c.next = (c.next + 1) % len(c.known)
	}
	k := &c.known[at]
	clear(k.names)
	k.names, k.value = k.names[:0], value
	for _, t := range ref[1:] {
		k.names = append(k.names, t.Value)
	}
}
