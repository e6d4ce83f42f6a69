package engine

import (
	"slices"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// question is a request as native programs see it. It shows the very input that inputOf builds, without building it.
type question struct {
	request authzen.Request
	looked  map[string]any // what a look-up said of the resource; nil where what the request says of it counts
	now     time.Time
	seen    *consulted // nil without a directory

	rest map[string]any // known, once it was asked for
}

var questions = sync.Pool{New: func() any { return new(question) }}

func askedAbout(r authzen.Request, looked map[string]any, now time.Time) *question {
	q, _ := questions.Get().(*question)
	q.request, q.looked, q.now = r, looked, now
	return q
}

// done is for whoever has asked and been answered, but not after a panic. Of an answer nothing is in q itself.
func (q *question) done() {
	*q = question{}
	questions.Put(q)
}

// known is what policies may believe of the resource.
func (q *question) known() map[string]any {
	if q.looked != nil {
		return q.looked
	}
	if q.rest == nil {
		q.rest = others(q.request.Resource.Properties, resourceMembers)
	}
	return q.rest
}

var _ native.Input = (*question)(nil)

func (q *question) sees() *consulted { return q.seen }

// At implements native.Input.
func (q *question) At(path []string) (any, bool) {
	if len(path) == 0 {
		return map[string]any{"subject": q.subject(), "action": q.action(), "resource": q.resource(), "context": q.context()}, true
	}
	rest := path[min(2, len(path)):]
	name := second(path)
	switch path[0] {
	case "subject":
		switch {
		case len(path) == 1:
			return q.subject(), true
		case name == "id":
			return below(q.request.Subject.ID, rest)
		case name == "type":
			return below(q.request.Subject.Type, rest)
		case name == "properties" && len(rest) > 0:
			if slices.Contains(subjectMembers, rest[0]) {
				return nil, false
			}
			return below(q.request.Subject.Properties, rest)
		case name == "properties":
			return others(q.request.Subject.Properties, subjectMembers), true
		case slices.Contains(subjectMembers, name):
			return below(q.request.Subject.Properties, path[1:])
		}
	case "action":
		switch {
		case len(path) == 1:
			return q.action(), true
		case name == "name":
			return below(q.request.Action.Name, rest)
		case name == "properties":
			return below(notNil(q.request.Action.Properties), rest)
		}
	case "resource":
		switch {
		case len(path) == 1:
			return q.resource(), true
		case name == "id":
			return below(q.request.Resource.ID, rest)
		case name == "type":
			return below(q.request.Resource.Type, rest)
		case name == "properties" && len(rest) > 0 && q.looked == nil: // without a map of its own
			if slices.Contains(resourceMembers, rest[0]) {
				return nil, false
			}
			return below(q.request.Resource.Properties, rest)
		case name == "properties":
			return below(q.known(), rest)
		case slices.Contains(resourceMembers, name):
			return below(q.request.Resource.Properties, path[1:])
		}
	case "context":
		switch {
		case len(path) == 1:
			return q.context(), true
		case name == "time":
			return below(clockOf(q.now), rest)
		}
		return below(q.request.Context, path[1:])
	}
	return nil, false
}

// below answers what stands in v. Texts that Go code has put together are made what JSON would have made of them.
func below(v any, path []string) (any, bool) {
	v, ok := native.JSON{Value: v}.At(path)
	if list, isList := v.([]string); isList {
		items := make([]any, len(list))
		for i, s := range list {
			items[i] = s
		}
		return items, true
	}
	return v, ok
}

func notNil(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}

func (q *question) subject() map[string]any {
	s := q.request.Subject
	return whole(s.Properties, subjectMembers, map[string]any{"id": s.ID, "type": s.Type, "properties": others(s.Properties, subjectMembers)})
}

func (q *question) action() map[string]any {
	return map[string]any{"name": q.request.Action.Name, "properties": notNil(q.request.Action.Properties)}
}

func (q *question) resource() map[string]any {
	r := q.request.Resource
	return whole(r.Properties, resourceMembers, map[string]any{"id": r.ID, "type": r.Type, "properties": q.known()})
}

func (q *question) context() map[string]any {
	all := make(map[string]any, len(q.request.Context)+1)
	for name, v := range q.request.Context {
		all[name], _ = below(v, nil)
	}
	all["time"] = clockOf(q.now)
	return all
}

// whole adds those properties that are members of their own.
func whole(properties map[string]any, members []string, to map[string]any) map[string]any {
	for _, name := range members {
		if v, ok := properties[name]; ok {
			to[name], _ = below(v, nil)
		}
	}
	return to
}
