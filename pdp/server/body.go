package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// maxDepth bounds how deep objects and arrays may nest.
const maxDepth = 32

// parse reads one access evaluation request. It takes one reading of a body only: two members of one name, names in another
// case, unknown members, anything after the object and invalid UTF-8 are refused, because the enforcement point may have
// meant the other reading. No value is ever repeated in what it answers.
func parse(body []byte) (authzen.Request, []web.FieldError, error) {
	var r authzen.Request
	if !utf8.Valid(body) {
		return r, nil, badBody("The body is not UTF-8.")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	v, err := readValue(dec, 0)
	if err != nil {
		return r, nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return r, nil, badBody("There is something after the JSON object.")
	}
	root, ok := v.(map[string]any)
	if !ok {
		return r, nil, badBody("The body is not a JSON object.")
	}
	f := &form{}
	f.only(root, "", "subject", "action", "resource", "context")
	if o, ok := f.object(root, "", "subject", true); ok {
		f.only(o, "subject.", "type", "id", "properties")
		r.Subject.Type, r.Subject.ID = f.text(o, "subject.", "type"), f.text(o, "subject.", "id")
		r.Subject.Properties, _ = f.object(o, "subject.", "properties", false)
	}
	if o, ok := f.object(root, "", "action", true); ok {
		f.only(o, "action.", "name", "properties")
		r.Action.Name = f.text(o, "action.", "name")
		r.Action.Properties, _ = f.object(o, "action.", "properties", false)
	}
	if o, ok := f.object(root, "", "resource", true); ok {
		f.only(o, "resource.", "type", "id", "properties")
		r.Resource.Type, r.Resource.ID = f.text(o, "resource.", "type"), f.text(o, "resource.", "id")
		r.Resource.Properties, _ = f.object(o, "resource.", "properties", false)
	}
	r.Context, _ = f.object(root, "", "context", false)
	return r, f.errors, nil
}

func badBody(detail string) *fault.Error {
	return fault.New(fault.Invalid, detail).Named("bad_request")
}

// form collects what is wrong with the members of a request.
type form struct{ errors []web.FieldError }

func (f *form) fail(path, message string) {
	f.errors = append(f.errors, web.FieldError{Path: path, Message: message})
}

// only refuses members other than those named. It does not repeat their names: they are the caller's text.
func (f *form) only(o map[string]any, prefix string, names ...string) {
	known := 0
	for _, n := range names {
		if _, ok := o[n]; ok {
			known++
		}
	}
	if known != len(o) {
		f.fail(prefix+"*", "unknown member")
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
	case len(s) > 1024:
		f.fail(prefix+name, "must be at most 1024 bytes")
	}
	return s
}

// readValue reads the next value token by token, since encoding/json alone lets the last of two equal names win.
func readValue(dec *json.Decoder, depth int) (any, error) {
	t, err := dec.Token()
	if err != nil {
		return nil, badBody("The body is not well-formed JSON.")
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth >= maxDepth {
		return nil, badBody("The body nests too deep.")
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := readValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, closing(dec)
	}
	object := map[string]any{}
	for dec.More() {
		t, err := dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, badBody("The body is not well-formed JSON.")
		}
		if _, twice := object[name]; twice {
			return nil, badBody("The body has two members of the same name in one object.")
		}
		if object[name], err = readValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	return object, closing(dec)
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return badBody("The body is not well-formed JSON.")
	}
	return nil
}
