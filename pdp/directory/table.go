package directory

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Table is one large object of JSON, as subjects are kept: in few blocks without pointers, and equal members once. It never
// changes.
type Table struct {
	names  index // grants is the number in values
	values pool
}

// NewTable takes an object as encoding/json decodes it, numbers as json.Number.
func NewTable(object map[string]any) (*Table, error) {
	names, values := newIndex(len(object)), newPool(16)
	var buf []byte
	for i, name := range slices.Sorted(maps.Keys(object)) {
		var err error
		if buf, err = appendValue(buf[:0], object[name], 0); err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		n, _, err := values.put(buf)
		if err != nil {
			return nil, err
		}
		if _, err := names.put(name, numbers{grants: n}); err != nil {
			return nil, err
		}
		breathe(i)
	}
	return &Table{names: names.seal(), values: values.seal()}, nil
}

// Len is how many members there are.
func (t *Table) Len() int { return t.names.count }

// Distinct is how many different members there are; they are numbered from 0.
func (t *Table) Distinct() int { return t.values.len() }

// Find answers which of the different members stands under a name.
func (t *Table) Find(name string) (n int, ok bool) {
	at, ok := t.names.find(name)
	return int(at.grants), ok
}

// Value answers a new copy of a member, as encoding/json decodes it; numbers are json.Number.
func (t *Table) Value(n int) any {
	d := decoder{rest: t.values.at(uint32(n))} //nolint:gosec // one of Find's
	return d.value()
}

// Some answers up to so many of the names, from all over the object.
func (t *Table) Some(most int) []string {
	step, i := max(1, t.Len()/max(1, most)), 0
	var names []string
	for name := range t.names.all() {
		if i%step == 0 && len(names) < most {
			names = append(names, name)
		}
		i++
	}
	return names
}

// Member answers what stands under a name.
func (t *Table) Member(name string) (any, bool) {
	n, ok := t.Find(name)
	if !ok {
		return nil, false
	}
	return t.Value(n), true
}

var _ json.Marshaler = (*Table)(nil)

// MarshalJSON refuses: who would write all of it has taken it for something small.
func (t *Table) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("an object of %d members is not written whole", t.Len())
}
