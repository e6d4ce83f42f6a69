// Package schema knows what a policy's input looks like, and finds references in policies to what is not there: a misspelt member
// would otherwise be undefined, and so a denial that nobody wrote.
//
// A schema is JSON Schema in a small part of it: types, properties, additionalProperties, items, enum. Where additionalProperties
// is not said, other names are allowed, as JSON Schema has it.
package schema

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// File is where a policy folder says what Base leaves open.
const File = "schema.json"

// ID names what this package makes and reads, with its version.
const ID = "urn:gatehouse:policy-input:1"

//go:embed input.json
var input []byte

// Base is the input of every policy: what each enforcement point can send. Attributes, claims, context and what is known of an
// object are open.
func Base() *Schema {
	s, err := parse("input.json", input)
	if err != nil {
		panic(err) // its test has read it
	}
	return s
}

// Schema is a part of the input. The zero value is anything at all.
type Schema struct {
	Dialect     string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Data        []string           `json:"x-gatehouse-data,omitempty"` // paths below data that are not in the policy folder: "rbac/bindings"
	Type        types              `json:"type,omitempty"`
	Enum        []any              `json:"enum,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Properties  map[string]*Schema `json:"properties,omitempty"`
	Additional  *Schema            `json:"additionalProperties,omitempty"` // of other names; nil is anything
	Items       *Schema            `json:"items,omitempty"`

	// Outside says which paths below data are for others to define, beside those of Data; nil: none.
	Outside func(path string) bool `json:"-"`

	// OtherInputs leaves packages alone that read a member which the input has not, and which is not nearly one of its own: they are
	// written for inputs of OPA's Data API.
	OtherInputs bool `json:"-"`

	never bool // the schema "false"
}

// types is one name or several.
type types []string

func (t types) MarshalJSON() ([]byte, error) {
	if len(t) == 1 {
		return json.Marshal(t[0])
	}
	return json.Marshal([]string(t))
}

func (t *types) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = types{one}
		return t.check()
	}
	var several []string
	if err := json.Unmarshal(b, &several); err != nil {
		return errors.New("type is neither a name nor a list of names")
	}
	*t = several
	return t.check()
}

func (t types) check() error {
	for _, name := range t {
		if !slices.Contains([]string{"object", "array", "string", "number", "integer", "boolean", "null"}, name) {
			return fmt.Errorf("%q is no type of JSON", name)
		}
	}
	return nil
}

// Never is the schema of what is not there.
func Never() *Schema { return &Schema{never: true} }

// MarshalJSON writes false for what is never there.
func (s *Schema) MarshalJSON() ([]byte, error) {
	if s.never {
		return []byte("false"), nil
	}
	type plain Schema
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode((*plain)(s))
	return bytes.TrimSpace(b.Bytes()), err
}

// UnmarshalJSON reads a schema. It refuses keywords that would change what is allowed and that this package does not follow.
func (s *Schema) UnmarshalJSON(b []byte) error {
	switch string(bytes.TrimSpace(b)) {
	case "true":
		return nil
	case "false":
		s.never = true
		return nil
	}
	var words map[string]json.RawMessage
	if err := json.Unmarshal(b, &words); err != nil {
		return errors.New("a schema is an object, true or false")
	}
	for _, word := range []string{"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties", "propertyNames", "prefixItems", "unevaluatedProperties"} {
		if _, ok := words[word]; ok {
			return fmt.Errorf("%s is not understood here", word)
		}
	}
	type plain Schema
	return json.Unmarshal(b, (*plain)(s))
}

// Over reads a policy folder's own schema and lays it over Base: it can name members of what is open, close it, and say which data
// comes from elsewhere. name is that of the file.
func Over(name string, text []byte) (*Schema, error) {
	own, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	if own.ID != "" && own.ID != ID {
		return nil, fmt.Errorf("%s:%d: this is %q, and %s is known here", name, lineOf(text, "$id"), own.ID, ID)
	}
	base := Base()
	base.lay(own)
	return base, nil
}

func parse(name string, text []byte) (*Schema, error) {
	s := &Schema{}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(s); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, lineAt(text, err), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: more than one JSON document", name, 1+bytes.Count(text[:dec.InputOffset()], []byte("\n")))
	}
	return s, nil
}

func lineAt(text []byte, err error) int {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	at := 0
	switch {
	case errors.As(err, &syntax):
		at = int(syntax.Offset)
	case errors.As(err, &kind):
		at = int(kind.Offset)
	}
	return 1 + bytes.Count(text[:min(at, len(text))], []byte("\n"))
}

func lineOf(text []byte, word string) int {
	return 1 + bytes.Count(text[:max(0, bytes.Index(text, []byte(`"`+word+`"`)))], []byte("\n"))
}

// lay puts what over says above what s says.
func (s *Schema) lay(over *Schema) {
	if over.never {
		*s = Schema{never: true}
		return
	}
	if over.Description != "" {
		s.Description = over.Description
	}
	for _, at := range over.Data {
		if at = strings.Trim(at, "/"); !slices.Contains(s.Data, at) {
			s.Data = append(s.Data, at)
		}
	}
	if over.Type != nil {
		s.Type = over.Type
	}
	if over.Enum != nil {
		s.Enum = over.Enum
	}
	if over.Required != nil {
		s.Required = over.Required
	}
	if over.Additional != nil {
		s.Additional = over.Additional
	}
	if over.Items != nil {
		s.Items = over.Items
	}
	for _, name := range slices.Sorted(maps.Keys(over.Properties)) {
		if s.Properties == nil {
			s.Properties = map[string]*Schema{}
		}
		if s.Properties[name] == nil {
			s.Properties[name] = &Schema{}
		}
		if p := over.Properties[name]; p != nil {
			s.Properties[name].lay(p)
		}
	}
}

// at is the part of s at a path of names; it must be there.
func (s *Schema) at(path ...string) *Schema {
	for _, name := range path {
		s = s.Properties[name]
	}
	return s
}

// closed reports whether no other names than those of Properties are allowed.
func (s *Schema) closed() bool { return s.Additional != nil && s.Additional.never }

// is reports whether a value of this kind is allowed.
func (s *Schema) is(kind string) bool { return len(s.Type) == 0 || slices.Contains(s.Type, kind) }

// Text is the schema as a file.
func (s *Schema) Text() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(s)
	return b.Bytes(), err
}
