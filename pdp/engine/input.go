package engine

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Properties of an AuthZEN subject and resource that policies know as members of input.subject and input.resource themselves.
var (
	subjectMembers  = []string{"roles", "groups", "tenant", "attributes", "claims", "session"}
	resourceMembers = []string{"path", "segments", "service", "route", "params"}
)

// Terms are immutable once made, so every input shares those of its member names.
var (
	termID, termType, termName  = ast.StringTerm("id"), ast.StringTerm("type"), ast.StringTerm("name")
	termProperties, termTime    = ast.StringTerm("properties"), ast.StringTerm("time")
	termSubject, termAction     = ast.StringTerm("subject"), ast.StringTerm("action")
	termResource, termContext   = ast.StringTerm("resource"), ast.StringTerm("context")
	subjectTerms, resourceTerms = termsOf(subjectMembers), termsOf(resourceMembers)
)

func termsOf(names []string) []*ast.Term {
	terms := make([]*ast.Term, len(names))
	for i, n := range names {
		terms[i] = ast.StringTerm(n)
	}
	return terms
}

// inputOf builds the policy's input straight as OPA's values; going through JSON would cost more than a third of an evaluation.
func inputOf(r authzen.Request, properties map[string]any, clock string) (ast.Value, error) {
	subject, err := members(r.Subject.Properties, subjectMembers, subjectTerms)
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	rest, err := value(others(r.Subject.Properties, subjectMembers))
	if err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	subject = append(subject, ast.Item(termID, ast.StringTerm(r.Subject.ID)), ast.Item(termType, ast.StringTerm(r.Subject.Type)),
		ast.Item(termProperties, rest))

	resource, err := members(r.Resource.Properties, resourceMembers, resourceTerms)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	known, err := value(properties)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}
	resource = append(resource, ast.Item(termID, ast.StringTerm(r.Resource.ID)), ast.Item(termType, ast.StringTerm(r.Resource.Type)),
		ast.Item(termProperties, known))

	action, err := value(r.Action.Properties)
	if err != nil {
		return nil, fmt.Errorf("action: %w", err)
	}
	context := make([][2]*ast.Term, 0, len(r.Context)+1)
	for name, v := range r.Context {
		if name == "time" {
			continue
		}
		t, err := valueOf(v)
		if err != nil {
			return nil, fmt.Errorf("context: %w", err)
		}
		context = append(context, ast.Item(ast.StringTerm(name), t))
	}
	context = append(context, ast.Item(termTime, ast.StringTerm(clock)))

	return ast.NewObject(
		ast.Item(termSubject, object(subject)),
		ast.Item(termAction, object([][2]*ast.Term{ast.Item(termName, ast.StringTerm(r.Action.Name)), ast.Item(termProperties, action)})),
		ast.Item(termResource, object(resource)),
		ast.Item(termContext, object(context)),
	), nil
}

// clockOf is the time as policies see it, in whole seconds.
func clockOf(now time.Time) string {
	second := now.Unix()
	if last := lastClock.Load(); last != nil && last.second == second {
		return last.text
	}
	text := now.UTC().Format(time.RFC3339)
	lastClock.Store(&clock{second, text})
	return text
}

// lastClock is what clockOf said last: there are many decisions to a second.
var lastClock atomic.Pointer[clock]

type clock struct {
	second int64
	text   string
}

func object(items [][2]*ast.Term) *ast.Term { return ast.NewTerm(ast.NewObject(items...)) }

// members takes the named properties; one that is absent stays absent, so that a rule which needs it does not hold.
func members(properties map[string]any, names []string, terms []*ast.Term) ([][2]*ast.Term, error) {
	items := make([][2]*ast.Term, 0, len(names)+3)
	for i, name := range names {
		v, ok := properties[name]
		if !ok {
			continue
		}
		t, err := valueOf(v)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		items = append(items, ast.Item(terms[i], t))
	}
	return items, nil
}

// others are the properties that have no member of their own.
func others(properties map[string]any, names []string) map[string]any {
	rest := make(map[string]any)
	for name, v := range properties {
		if !slices.Contains(names, name) {
			rest[name] = v
		}
	}
	return rest
}

func value(m map[string]any) (*ast.Term, error) {
	if len(m) == 0 {
		return ast.NewTerm(ast.NewObject()), nil
	}
	return valueOf(m)
}

func valueOf(v any) (*ast.Term, error) {
	switch v := v.(type) {
	case string:
		return ast.StringTerm(v), nil
	case []string:
		terms := make([]*ast.Term, len(v))
		for i, s := range v {
			terms[i] = ast.StringTerm(s)
		}
		return ast.ArrayTerm(terms...), nil
	}
	converted, err := ast.InterfaceToValue(v)
	if err != nil {
		return nil, err
	}
	return ast.NewTerm(converted), nil
}
