package engine

import (
	"net/http"
	"slices"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// readerOf makes what reads one part of questions: what question.At looks for in its path at every question is found here once.
// Parts that policies seldom look at, and other inputs, are read by At.
func readerOf(path []string) native.Reader {
	read := readerOfQuestion(path)
	if read == nil {
		return func(in native.Input) (any, bool) { return in.At(path) }
	}
	return func(in native.Input) (any, bool) {
		if q, ok := in.(*question); ok {
			return read(q)
		}
		return in.At(path)
	}
}

func readerOfQuestion(path []string) func(*question) (any, bool) {
	if len(path) < 2 {
		return nil
	}
	switch own := slices.Contains(subjectMembers, path[1]); {
	case path[0] == "subject" && path[1] == "id" && len(path) == 2:
		return func(q *question) (any, bool) { return q.request.Subject.ID, true }
	case path[0] == "subject" && path[1] == "type" && len(path) == 2:
		return func(q *question) (any, bool) { return known(q.request.Subject.Type), true }
	case path[0] == "subject" && own:
		name, rest := path[1], path[2:]
		return func(q *question) (any, bool) { return at(q.request.Subject.Properties, name, rest) }
	case path[0] == "action" && path[1] == "name" && len(path) == 2:
		return func(q *question) (any, bool) { return known(q.request.Action.Name), true }
	case path[0] == "context" && path[1] != "time":
		name, rest := path[1], path[2:]
		return func(q *question) (any, bool) { return at(q.request.Context, name, rest) }
	}
	switch {
	case path[0] != "resource":
	case path[1] == "id" && len(path) == 2:
		return func(q *question) (any, bool) { return q.request.Resource.ID, true }
	case path[1] == "type" && len(path) == 2:
		return func(q *question) (any, bool) { return q.request.Resource.Type, true }
	case slices.Contains(resourceMembers, path[1]):
		name, rest := path[1], path[2:]
		return func(q *question) (any, bool) { return at(q.request.Resource.Properties, name, rest) }
	case path[1] == "properties" && len(path) > 2:
		name, rest, own := path[2], path[3:], slices.Contains(resourceMembers, path[2])
		return func(q *question) (any, bool) {
			switch {
			case q.looked != nil:
				return at(q.looked, name, rest)
			case own:
				return nil, false
			}
			return at(q.request.Resource.Properties, name, rest)
		}
	}
	return nil
}

// at answers what stands in an object under a name, or below that.
func at(m map[string]any, name string, rest []string) (any, bool) {
	v, ok := m[name]
	if !ok {
		return nil, false
	}
	if len(rest) == 0 {
		if list, isList := v.([]string); isList {
			return below(list, nil)
		}
		return v, true
	}
	return below(v, rest)
}

// known is a text as a value. The common ones are there already, where another would have to be allocated.
func known(text string) any {
	switch text {
	case http.MethodGet:
		return http.MethodGet
	case http.MethodPost:
		return http.MethodPost
	case http.MethodPut:
		return http.MethodPut
	case http.MethodPatch:
		return http.MethodPatch
	case http.MethodDelete:
		return http.MethodDelete
	case http.MethodHead:
		return http.MethodHead
	case http.MethodOptions:
		return http.MethodOptions
	case "user":
		return "user"
	}
	return text
}
