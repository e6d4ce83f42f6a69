package engine

import (
	"fmt"
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// keptValues is how many different members of a relation are kept as OPA's values; of more, each is made when it is read.
const keptValues = 4096

// relation is a large object of policy data.
type relation struct {
	*directory.Table
	values []ast.Value // all different members; nil if there are too many
	plain  []any       // the same as encoding/json has them; nothing changes them
}

func newRelation(t *directory.Table) *relation {
	r := &relation{Table: t}
	if t.Distinct() <= keptValues {
		r.values, r.plain = make([]ast.Value, t.Distinct()), make([]any, t.Distinct())
		for i := range r.values {
			r.plain[i] = t.Value(i)
			r.values[i] = ast.MustInterfaceToValue(r.plain[i])
		}
	}
	return r
}

func (r *relation) member(_ *transaction, name string) ast.Value {
	n, ok := r.Find(name)
	switch {
	case !ok:
		return nil
	case r.values != nil:
		return r.values[n]
	}
	return ast.MustInterfaceToValue(r.Value(n))
}

// Member answers what stands under a name, as encoding/json decodes it with UseNumber. It is shared, and must not be changed.
func (r *relation) Member(name string) (any, bool) {
	n, ok := r.Find(name)
	if ok && r.plain != nil {
		return r.plain[n], true
	}
	return r.Table.Member(name)
}

func (r *relation) whole(*transaction) ast.Value { return nil }

func (r *relation) many() string {
	return fmt.Sprintf("it has %d members", r.Len())
}

// isObject reports whether a value of data is an object, in either form.
func isObject(v any) bool {
	switch v.(type) {
	case map[string]any, *relation:
		return true
	}
	return false
}

// objectOf answers an object as a map, nil for what is none. Of a relation that is costly, and seldom asked for.
func objectOf(v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		return v
	case *relation:
		return v.Object()
	}
	return nil
}

// expanded is a value without relations in it.
func expanded(v any) any {
	object, ok := v.(map[string]any)
	if !ok {
		if r, ok := v.(*relation); ok {
			return r.Object()
		}
		return v
	}
	own := false
	for name, member := range object {
		if !isObject(member) {
			continue
		}
		if !own {
			object, own = maps.Clone(object), true
		}
		object[name] = expanded(member)
	}
	return object
}
