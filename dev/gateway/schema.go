package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
)

// fieldSchema is one field of a Kong schema, as far as plugins written for external servers use it.
type fieldSchema struct {
	Type          string       `json:"type"`
	Required      bool         `json:"required"`
	Default       any          `json:"default"`
	OneOf         []any        `json:"one_of"`
	Between       []float64    `json:"between"`
	GreaterThan   *float64     `json:"gt"`
	LenMin        *int         `json:"len_min"`
	LenMax        *int         `json:"len_max"`
	Match         string       `json:"match"`
	MatchAny      *matchAny    `json:"match_any"`
	StartsWith    string       `json:"starts_with"`
	Referenceable bool         `json:"referenceable"`
	Fields        []namedField `json:"fields"`
	Elements      *fieldSchema `json:"elements"`
	Keys          *fieldSchema `json:"keys"`
	Values        *fieldSchema `json:"values"`
}

// matchAny is several patterns of which one must match, and what to say where none does.
type matchAny struct {
	Patterns []string `json:"patterns"`
	Err      string   `json:"err"`
}

// namedField is an object with one member: {"name": {…}}.
type namedField struct {
	name   string
	schema *fieldSchema
}

func (f *namedField) UnmarshalJSON(text []byte) error {
	var m map[string]*fieldSchema
	if err := json.Unmarshal(text, &m); err != nil {
		return err
	}
	if len(m) != 1 {
		return errors.New("a field is an object with one member")
	}
	for f.name, f.schema = range m {
	}
	if f.schema == nil {
		return fmt.Errorf("field %s has no description", f.name)
	}
	return nil
}

// violation is one value that does not fit, by its path from "config" on. It never holds the value.
type violation struct{ path, text string }

func (v violation) Error() string { return v.path + ": " + v.text }

// prefixed puts the place of a plugin before the path of each violation.
func prefixed(at string, err error) error {
	var list violations
	if !errors.As(err, &list) {
		return fmt.Errorf("%s: %w", at, err)
	}
	out := make(violations, len(list))
	for i, v := range list {
		out[i] = violation{path: at + "." + v.path, text: v.text}
	}
	return out
}

type violations []violation

func (l violations) Error() string {
	lines := make([]string, len(l))
	for i, v := range l {
		lines[i] = v.Error()
	}
	return strings.Join(lines, "\n")
}

// config checks a plugin's configuration and answers it with Kong's defaults filled, unset fields null and references to
// the vault resolved.
func (p pluginInfo) config(given map[string]any, vault map[string]string) (map[string]any, error) {
	plain, err := normal(given)
	if err != nil {
		return nil, err
	}
	c := checker{vault: vault}
	full := c.record(&p.schema, plain, "config")
	if len(c.found) > 0 {
		return nil, c.found
	}
	return full, nil
}

// normal makes of YAML's types JSON's.
func normal(given map[string]any) (map[string]any, error) {
	text, err := json.Marshal(given)
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	plain := map[string]any{}
	if err := json.Unmarshal(text, &plain); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if plain == nil {
		plain = map[string]any{}
	}
	return plain, nil
}

type checker struct {
	vault map[string]string
	found violations
}

func (c *checker) fail(path, format string, args ...any) {
	c.found = append(c.found, violation{path: path, text: fmt.Sprintf(format, args...)})
}

func (c *checker) record(s *fieldSchema, given map[string]any, path string) map[string]any {
	out := map[string]any{}
	known := map[string]bool{}
	for _, f := range s.Fields {
		known[f.name] = true
		v := given[f.name]
		if v == nil {
			v = f.schema.missing()
		}
		out[f.name] = c.value(f.schema, v, path+"."+f.name)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			c.fail(path+"."+name, "unknown field")
		}
	}
	return out
}

// missing is what stands for a value that was not given: the default, an empty record to be filled, or nothing.
func (s *fieldSchema) missing() any {
	if s.Default != nil {
		return s.Default
	}
	if s.Type == "record" {
		return map[string]any{}
	}
	return nil
}

func (c *checker) value(s *fieldSchema, v any, path string) any {
	if v == nil {
		if s.Required {
			c.fail(path, "required field missing")
		}
		return nil
	}
	switch s.Type {
	case "string":
		text, ok := v.(string)
		if !ok {
			c.fail(path, "expected a string")
			return nil
		}
		return c.text(s, text, path)
	case "integer", "number":
		n, ok := v.(float64)
		if !ok || s.Type == "integer" && n != math.Trunc(n) {
			c.fail(path, "expected %s", map[string]string{"integer": "an integer", "number": "a number"}[s.Type])
			return nil
		}
		c.number(s, n, path)
	case "boolean":
		if _, ok := v.(bool); !ok {
			c.fail(path, "expected a boolean")
			return nil
		}
	case "array", "set":
		list, ok := v.([]any)
		if !ok || s.Elements == nil {
			c.fail(path, "expected %s", map[string]string{"array": "an array", "set": "a set"}[s.Type])
			return nil
		}
		return c.list(s, list, path)
	case "map":
		m, ok := v.(map[string]any)
		if !ok || s.Values == nil {
			c.fail(path, "expected a map")
			return nil
		}
		return c.entries(s, m, path)
	case "record":
		m, ok := v.(map[string]any)
		if !ok {
			c.fail(path, "expected a record")
			return nil
		}
		return c.record(s, m, path)
	default:
		c.fail(path, "the schema has type %q, which this gateway does not know", s.Type)
		return nil
	}
	c.oneOf(s, v, path)
	return v
}

func (c *checker) text(s *fieldSchema, text, path string) any {
	if name, ok := reference(text); ok && s.Referenceable {
		resolved, ok := c.vault[name]
		if !ok {
			c.fail(path, "nothing is known as {vault://env/%s}", name)
			return nil
		}
		text = resolved
	}
	if text == "" && (s.LenMin == nil || *s.LenMin > 0) {
		c.fail(path, "length must be at least 1")
		return nil
	}
	c.length(s, len(text), path)
	if s.Match != "" {
		ok, err := luaMatch(s.Match, text)
		if err != nil {
			c.fail(path, "the schema's pattern: %v", err)
		} else if !ok {
			c.fail(path, "invalid value: does not match %s", s.Match)
		}
	}
	if s.MatchAny != nil && !slices.ContainsFunc(s.MatchAny.Patterns, func(p string) bool {
		ok, err := luaMatch(p, text)
		return ok && err == nil
	}) {
		c.fail(path, "%s", s.MatchAny.Err)
	}
	if !strings.HasPrefix(text, s.StartsWith) {
		c.fail(path, "should start with: %s", s.StartsWith)
	}
	c.oneOf(s, text, path)
	return text
}

// reference answers the name in {vault://env/name}.
func reference(text string) (string, bool) {
	name, ok := strings.CutPrefix(text, "{vault://env/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, "}")
}

func (c *checker) number(s *fieldSchema, n float64, path string) {
	if len(s.Between) == 2 && (n < s.Between[0] || n > s.Between[1]) {
		c.fail(path, "value should be between %v and %v", s.Between[0], s.Between[1])
	}
	if s.GreaterThan != nil && n <= *s.GreaterThan {
		c.fail(path, "value must be greater than %v", *s.GreaterThan)
	}
}

func (c *checker) length(s *fieldSchema, n int, path string) {
	if s.LenMin != nil && n < *s.LenMin {
		c.fail(path, "length must be at least %d", *s.LenMin)
	}
	if s.LenMax != nil && n > *s.LenMax {
		c.fail(path, "length must be at most %d", *s.LenMax)
	}
}

func (c *checker) oneOf(s *fieldSchema, v any, path string) {
	if len(s.OneOf) == 0 {
		return
	}
	words := make([]string, len(s.OneOf))
	for i, o := range s.OneOf {
		if reflect.DeepEqual(o, v) {
			return
		}
		words[i] = fmt.Sprint(o)
	}
	c.fail(path, "expected one of: %s", strings.Join(words, ", "))
}

func (c *checker) list(s *fieldSchema, list []any, path string) any {
	c.length(s, len(list), path)
	out := make([]any, len(list))
	for i, v := range list {
		at := fmt.Sprintf("%s[%d]", path, i+1) // Kong counts from 1
		if v == nil {
			c.fail(at, "expected a value")
			continue
		}
		if s.Type == "set" && slices.ContainsFunc(list[:i], func(o any) bool { return reflect.DeepEqual(o, v) }) {
			continue
		}
		out[i] = c.value(s.Elements, v, at)
	}
	if s.Type == "set" {
		out = slices.DeleteFunc(out, func(v any) bool { return v == nil })
	}
	return out
}

func (c *checker) entries(s *fieldSchema, m map[string]any, path string) any {
	c.length(s, len(m), path)
	out := make(map[string]any, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		at := path + "." + k
		if s.Keys != nil {
			c.value(s.Keys, k, at)
		}
		out[k] = c.value(s.Values, m[k], at)
	}
	return out
}
