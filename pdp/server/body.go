package server

import (
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/onejson"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Bounds of a body: how deep objects and arrays may nest, and the bytes of a type, an id or a name.
const (
	maxDepth = 32
	maxWord  = 1024
)

// parse reads one access evaluation request. It takes one reading of a body only: two members of one name, names in another
// case, anything after the object and invalid UTF-8 are refused, because the enforcement point may have meant the other
// reading. Members that AuthZEN does not know are ignored, as it demands. No value is ever repeated in what it answers.
func parse(body []byte) (authzen.Request, []web.FieldError, error) {
	if r, ok := usual(body); ok {
		return r, nil, nil
	}
	return parseAny(body)
}

func parseAny(body []byte) (authzen.Request, []web.FieldError, error) {
	root, err := readObject(body)
	if err != nil {
		return authzen.Request{}, nil, err
	}
	f := &form{}
	f.sameCase(root, "", requestMembers...)
	r := f.request(root, nil, "")
	return r, f.errors, nil
}

var requestMembers = []string{"subject", "action", "resource", "context"}

// readObject reads a body that is one JSON object. Numbers become json.Number.
func readObject(body []byte) (map[string]any, error) {
	v, err := readDocument(body)
	if err != nil {
		return nil, err
	}
	root, ok := v.(map[string]any)
	if !ok {
		return nil, badBody("The body is not a JSON object.")
	}
	return root, nil
}

// readDocument reads one JSON value with nothing after it.
func readDocument(body []byte) (any, error) {
	if !utf8.Valid(body) {
		return nil, badBody("The body is not UTF-8.")
	}
	if onejson.HalfPair(body) {
		return nil, badBody("The body has half of a surrogate pair, which is no text.")
	}
	r := reader{text: string(body)}
	v, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if r.space(); r.at < len(r.text) {
		return nil, badBody("There is something after the JSON object.")
	}
	return v, nil
}

func badBody(detail string) *fault.Error {
	return fault.New(fault.Invalid, detail).Named("bad_request")
}

// form collects what is wrong with the members of a request.
type form struct{ errors []web.FieldError }

func (f *form) fail(path, message string) {
	e := web.FieldError{Path: path, Message: message}
	if !slices.Contains(f.errors, e) { // defaults of a batch are read once for each of its evaluations
		f.errors = append(f.errors, e)
	}
}

// request reads the members of an evaluation from item, or else from defaults, which stand at the top of a batch.
func (f *form) request(item, defaults map[string]any, at string) (r authzen.Request) {
	from := func(name string) (map[string]any, string) {
		if _, own := item[name]; own || defaults == nil {
			return item, at
		}
		if _, given := defaults[name]; given {
			return defaults, ""
		}
		return item, at
	}
	in, prefix := from("subject")
	if o, ok := f.object(in, prefix, "subject", true); ok {
		r.Subject.Type, r.Subject.ID, r.Subject.Properties = f.entity(o, prefix+"subject.")
	}
	in, prefix = from("resource")
	if o, ok := f.object(in, prefix, "resource", true); ok {
		r.Resource.Type, r.Resource.ID, r.Resource.Properties = f.entity(o, prefix+"resource.")
	}
	in, prefix = from("action")
	if o, ok := f.object(in, prefix, "action", true); ok {
		f.sameCase(o, prefix+"action.", "name", "properties")
		r.Action.Name = f.text(o, prefix+"action.", "name")
		r.Action.Properties, _ = f.object(o, prefix+"action.", "properties", false)
	}
	in, prefix = from("context")
	r.Context, _ = f.object(in, prefix, "context", false)
	return r
}

// entity reads a subject or a resource.
func (f *form) entity(o map[string]any, at string) (kind, id string, properties map[string]any) {
	f.sameCase(o, at, "type", "id", "properties")
	kind, id = f.text(o, at, "type"), f.text(o, at, "id")
	properties, _ = f.object(o, at, "properties", false)
	return kind, id, properties
}

// sameCase refuses members that are named like these but for their case: encoding/json, and others like it, would take them
// for these. It does not repeat their names: they are the caller's text.
func (f *form) sameCase(o map[string]any, prefix string, names ...string) {
	for given := range o {
		for _, n := range names {
			if given != n && strings.EqualFold(given, n) {
				f.fail(prefix+n, "is written in another case")
			}
		}
	}
}

func (f *form) object(o map[string]any, prefix, name string, required bool) (map[string]any, bool) {
	v, present := o[name]
	switch m, ok := v.(map[string]any); {
	case ok:
		return m, true
	case present:
		f.fail(prefix+name, "must be an object")
	case required:
		f.fail(prefix+name, "is required")
	}
	return nil, false
}

func (f *form) text(o map[string]any, prefix, name string) string {
	s, ok := o[name].(string)
	switch {
	case !ok || s == "":
		f.fail(prefix+name, "must be a string that is not empty")
	case len(s) > maxWord:
		f.fail(prefix+name, "must be at most 1024 bytes")
	}
	return s
}
