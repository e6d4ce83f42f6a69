package server

import (
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// usual reads a request that has the members of AuthZEN, each once and as it should be, and nothing else beside them: what
// enforcement points send. It spares the maps that parse makes of them. For anything else it answers false, and parse says what
// is wrong with it, if anything is; FuzzUsual holds it to that.
func usual(body []byte) (req authzen.Request, ok bool) {
	if !utf8.Valid(body) || onejson.HalfPair(body) {
		return req, false
	}
	r := reader{text: string(body)}
	// What has been read is not empty, so that a member that comes again finds no case.
	ok = r.members(func(name string) (ok bool) {
		switch {
		case name == "subject" && req.Subject.Type == "":
			return r.entity("type", &req.Subject.Type, &req.Subject.ID, &req.Subject.Properties)
		case name == "action" && req.Action.Name == "":
			return r.entity("name", &req.Action.Name, nil, &req.Action.Properties)
		case name == "resource" && req.Resource.Type == "":
			return r.entity("type", &req.Resource.Type, &req.Resource.ID, &req.Resource.Properties)
		case name == "context" && req.Context == nil:
			req.Context, ok = r.properties(1)
		}
		return ok
	})
	r.space()
	return req, ok && r.at == len(r.text) && req.Subject.Type != "" && req.Action.Name != "" && req.Resource.Type != ""
}

// members reads an object whose values read does.
func (r *reader) members(read func(name string) bool) bool {
	if r.space(); r.peek() != '{' {
		return false
	}
	for r.at++; ; {
		if r.space(); r.peek() != '"' {
			return false
		}
		name, err := r.string()
		if err != nil {
			return false
		}
		if r.space(); r.peek() != ':' {
			return false
		}
		r.at++
		if !read(name) {
			return false
		}
		if done, err := r.next('}'); done || err != nil {
			return err == nil
		}
	}
}

// entity reads a subject, an action or a resource. Without id it has none.
func (r *reader) entity(first string, kind, id *string, properties *map[string]any) bool {
	given := false
	ok := r.members(func(name string) (ok bool) {
		switch {
		case name == first && *kind == "":
			*kind, ok = r.word()
		case name == "id" && id != nil && *id == "":
			*id, ok = r.word()
		case name == "properties" && !given:
			*properties, given = r.properties(2)
			ok = given
		}
		return ok
	})
	return ok && *kind != "" && (id == nil || *id != "")
}

// word reads a text that is not empty and not too long.
func (r *reader) word() (string, bool) {
	if r.space(); r.peek() != '"' {
		return "", false
	}
	s, err := r.string()
	return s, err == nil && s != "" && len(s) <= maxWord
}

// properties reads an object of any members.
func (r *reader) properties(depth int) (map[string]any, bool) {
	if r.space(); r.peek() != '{' {
		return nil, false
	}
	v, err := r.value(depth)
	if err != nil {
		return nil, false
	}
	all, ok := v.(map[string]any)
	return all, ok
}
