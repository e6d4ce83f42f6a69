package engine

import (
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// sighted is an input whose question is answered by one view of the directory.
type sighted interface{ sees() *consulted }

func seenBy(in native.Input) *consulted {
	if s, ok := in.(sighted); ok {
		return s.sees()
	}
	return nil
}

// subjects is data.directory.subjects.
type subjects struct{}

var _ native.Source = subjects{}

// Of implements native.Source.
func (s subjects) Of(in native.Input) any {
	if seen := seenBy(in); seen != nil {
		return seenSubjects{seen}
	}
	return s
}

// seenSubjects are those of one question.
type seenSubjects struct{ *consulted }

// Member implements native.Relation.
func (s seenSubjects) Member(id string) (any, bool) {
	facts := s.subject(id)
	return facts, facts != nil
}

func (subjects) member(t *transaction, id string) ast.Value {
	facts := t.seen.subject(id)
	if facts == nil {
		return nil
	}
	return ast.MustInterfaceToValue(facts)
}

func (subjects) whole(*transaction) ast.Value { return nil }

func (subjects) many() string { return "the directory may have any number of subjects" }

// subject is what data.directory says of one; nil if it does not know of it. It must not be changed.
func (c *consulted) subject(id string) map[string]any {
	if c.view == nil {
		return nil
	}
	if c.reads != nil {
		if known, ok := c.reads.of(id); ok {
			return known
		}
	}
	e, ok := c.view.Find(id)
	var facts map[string]any
	if ok {
		facts = factsOf(e, c)
	}
	if c.reads != nil {
		c.reads.add(reading{id, e, facts})
	}
	return facts
}

func factsOf(e directory.Entry, c *consulted) map[string]any {
	held := e.Facts("", c.now)
	facts := map[string]any{"roles": itemsOf(held.Roles), "groups": itemsOf(held.Groups), "attributes": e.Attributes()}
	if held.Tenant != "" {
		facts["tenant"] = held.Tenant
	}
	return facts
}

func itemsOf(texts []string) []any {
	items := make([]any, len(texts))
	for i, s := range texts {
		items[i] = s
	}
	return items
}

// roles is data.directory.roles. There are not many, and they seldom change, so that they are made once.
type roles struct{ last atomic.Pointer[madeRoles] }

type madeRoles struct {
	of    *directory.Roles
	plain map[string]any
	value ast.Object
}

var _ native.Source = (*roles)(nil)

// Of implements native.Source.
func (r *roles) Of(in native.Input) any {
	seen := seenBy(in)
	if seen == nil {
		return r
	}
	return r.made(seen).plain
}

func (r *roles) made(seen *consulted) *madeRoles {
	if seen.view == nil {
		return &madeRoles{plain: map[string]any{}, value: ast.NewObject()}
	}
	if seen.reads != nil {
		seen.reads.roles = true
	}
	of := seen.view.Roles()
	if m := r.last.Load(); m != nil && m.of == of {
		return m
	}
	m := &madeRoles{of: of, plain: make(map[string]any, of.Len())}
	for name, role := range of.All() {
		m.plain[name] = roleOf(role)
	}
	m.value, _ = ast.MustInterfaceToValue(m.plain).(ast.Object)
	r.last.Store(m)
	return m
}

func (r *roles) whole(t *transaction) ast.Value { return r.made(t.seen).value }

func (r *roles) member(t *transaction, name string) ast.Value {
	role := r.made(t.seen).value.Get(ast.StringTerm(name))
	if role == nil {
		return nil
	}
	return role.Value
}

func (r *roles) many() string { return "" }

func roleOf(r feed.Role) map[string]any {
	permissions := make([]any, len(r.Permissions))
	for i, p := range r.Permissions {
		permissions[i] = map[string]any{"action": p.Action, "resource": p.Resource, "conditions": itemsOf(p.Conditions)}
	}
	return map[string]any{"inherits": itemsOf(r.Inherits), "permissions": permissions}
}
