package role

import (
	"maps"
	"slices"
	"time"
)

// Node is a role as far as inheritance looks at it.
type Node struct {
	Inherits  []string
	Protected bool
}

// Graph is all roles by name.
type Graph map[string]Node

// Check answers why r cannot be among the roles: ErrParentUnknown or ErrCycle.
func (g Graph) Check(r Role) error {
	with := maps.Clone(g)
	if with == nil {
		with = Graph{}
	}
	with[r.Name] = Node{Inherits: r.Inherits, Protected: r.Protected}
	for _, parent := range r.Inherits {
		if _, known := with[parent]; !known {
			return ErrParentUnknown
		}
	}
	if with.above(r.Inherits)[r.Name] {
		return ErrCycle
	}
	return nil
}

// Closure answers the roles that whoever holds these holds, themselves included, sorted. A name that is no role is one of them:
// tokens may carry it all the same.
func (g Graph) Closure(names ...string) []string {
	return slices.Sorted(maps.Keys(g.above(names)))
}

// above walks with a list of its own: inheritance may be as deep as there are roles.
func (g Graph) above(names []string) map[string]bool {
	seen := map[string]bool{}
	waiting := slices.Clone(names)
	for len(waiting) > 0 {
		name := waiting[len(waiting)-1]
		waiting = waiting[:len(waiting)-1]
		if seen[name] {
			continue
		}
		seen[name] = true
		waiting = append(waiting, g[name].Inherits...)
	}
	return seen
}

// protected answers the protected ones among a role and what it inherits.
func (g Graph) protected(names ...string) (found []string) {
	for _, name := range g.Closure(names...) {
		if g[name].Protected {
			found = append(found, name)
		}
	}
	return found
}

// Effective is a role that a subject has at a moment.
type Effective struct {
	Role   string
	Via    string     // the role that it comes from; itself if it is held directly
	Tenant string     // where; "" for everywhere
	Until  *time.Time // nil if it does not end by itself
	// FromAccount tells what the account carries into its tokens, where no binding says so.
	FromAccount bool
}

// Effective answers every role that h comes to at now, inherited ones included: in one tenant, if it is not nil, with what holds
// everywhere. A role that comes several ways is there several times.
func (g Graph) Effective(h Held, tenant *string, now time.Time) []Effective {
	var all []Effective
	add := func(e Effective) {
		for _, name := range g.Closure(e.Via) {
			e.Role = name
			all = append(all, e)
		}
	}
	for _, b := range h.Bindings {
		if b.Alive(now) && (tenant == nil || b.Tenant == "" || b.Tenant == *tenant) {
			add(Effective{Via: b.Role, Tenant: b.Tenant, Until: b.Until})
		}
	}
	for _, name := range h.Account {
		add(Effective{Via: name, FromAccount: true})
	}
	return all
}

// holds reports whether h comes to a role in a tenant, or in any if tenant is nil.
func (g Graph) holds(h Held, name string, tenant *string, now time.Time) bool {
	return slices.ContainsFunc(g.Effective(h, tenant, now), func(e Effective) bool { return e.Role == name })
}

// everywhere chooses what holds in each tenant.
func everywhere() *string { return new(string) }
