package directory

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Table is one large object of JSON, as subjects are kept: in few blocks without pointers, and equal members once. It never
// changes.
type Table struct {
	names  index // grants is the number in values
	values pool
}

// NewTable takes an object as encoding/json decodes it, numbers as json.Number.
func NewTable(object map[string]any) (*Table, error) {
	b := BuildTable(len(object))
	for i, name := range slices.Sorted(maps.Keys(object)) {
		n, err := b.Value(object[name])
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		if err := b.Put(name, n); err != nil {
			return nil, err
		}
		breathe(i)
	}
	return b.Seal(), nil
}

// TableBuilder makes a Table member by member.
type TableBuilder struct {
	names  *indexBuilder
	values *poolBuilder
	buf    []byte
}

// BuildTable begins a table of about so many members.
func BuildTable(hint int) *TableBuilder {
	return &TableBuilder{names: newIndex(hint), values: newPool(16)}
}

// Value answers the number of a value, as encoding/json decodes it, numbers as json.Number.
func (b *TableBuilder) Value(v any) (n int, err error) {
	if b.buf, err = appendValue(b.buf[:0], v, 0); err != nil {
		return 0, err
	}
	number, _, err := b.values.put(b.buf)
	return int(number), err
}

// Put has a name stand for a value of a number. As in encoding/json, the last word holds.
func (b *TableBuilder) Put(name string, n int) error {
	held := numbers{grants: uint32(n)} //nolint:gosec // one of Value's
	isNew, err := b.names.put(name, held)
	if err == nil && !isNew {
		b.names.set(name, held)
	}
	return err
}

// Seal answers the table. Nothing may be put after it.
func (b *TableBuilder) Seal() *Table { return &Table{names: b.names.seal(), values: b.values.seal()} }

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

// Object answers all of it, as encoding/json decodes it.
func (t *Table) Object() map[string]any {
	all, made := make(map[string]any, t.Len()), make([]any, t.Distinct())
	for i := range made {
		made[i] = t.Value(i)
	}
	for name, at := range t.names.all() {
		all[strings.Clone(name)] = made[at.grants]
	}
	return all
}

var _ json.Marshaler = (*Table)(nil)

// MarshalJSON refuses: who would write all of it has taken it for something small.
func (t *Table) MarshalJSON() ([]byte, error) {
	return nil, fmt.Errorf("an object of %d members is not written whole", t.Len())
}
