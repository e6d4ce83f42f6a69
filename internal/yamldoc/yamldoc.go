// Package yamldoc reads YAML that people write: a misspelt member is an error, and errors say where as "file:line: what".
package yamldoc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Entry is one of a mapping, in the order of the file.
type Entry struct{ Key, Value *yaml.Node }

// Entries are those of a mapping; none where n is something else.
func Entries(n *yaml.Node) []Entry {
	if n = Meant(n); n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	all := make([]Entry, 0, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		all = append(all, Entry{n.Content[i], n.Content[i+1]})
	}
	return all
}

// Member finds a mapping's value; nil where there is none.
func Member(n *yaml.Node, name string) *yaml.Node {
	for _, e := range Entries(n) {
		if e.Key.Value == name {
			return e.Value
		}
	}
	return nil
}

// Meant is what an alias stands for.
func Meant(n *yaml.Node) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Decode reads text into v, in which a misspelt field is an error, and answers the entries of its outermost mapping.
func Decode(file string, text []byte, v any) ([]Entry, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil && !errors.Is(err, io.EOF) {
		return nil, Error(file, err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, Error(file, err)
	}
	if len(doc.Content) == 0 {
		return nil, nil
	}
	return Entries(doc.Content[0]), nil
}

// Error is "file:line: what" for each of the mistakes that err tells of.
func Error(file string, err error) error {
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	var types *yaml.TypeError
	if errors.As(err, &types) {
		texts = types.Errors
	}
	all := make([]error, len(texts))
	for i, text := range texts {
		line, what, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": ")
		if !ok || !strings.HasPrefix(text, "line ") {
			all[i] = fmt.Errorf("%s: %s", file, text)
			continue
		}
		what, _, _ = strings.Cut(what, " in type ")
		all[i] = fmt.Errorf("%s:%s: %s", file, line, plain(what))
	}
	return errors.Join(all...)
}

// In is Error where err holds what the decoder said, and else err behind the file's name.
func In(file string, err error) error {
	if errors.As(err, new(*yaml.TypeError)) {
		return Error(file, err)
	}
	return fmt.Errorf("%s: %w", file, err)
}

var mismatch = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.*)$")

// plain says without the names of Go's types and YAML's what stands where something else is wanted.
func plain(what string) string {
	m := mismatch.FindStringSubmatch(what)
	if m == nil {
		return what
	}
	kinds := map[string]string{"seq": "a list", "map": "a mapping", "str": "a text", "int": "a number", "float": "a number", "bool": "true or false", "timestamp": "a time"}
	have, ok := kinds[m[1]]
	if !ok {
		have = m[1]
	}
	if m[2] != "" {
		have += " (" + m[2] + ")"
	}
	want := "a mapping"
	switch into := m[3]; {
	case strings.HasPrefix(into, "[]"):
		want = "a list"
	case into == "string":
		want = "a text"
	case into == "bool":
		want = "true or false"
	case strings.HasPrefix(into, "int"), strings.HasPrefix(into, "uint"), strings.HasPrefix(into, "float"):
		want = "a number"
	case into == "time.Time":
		want = "a time"
	case into == "time.Duration":
		want = "a duration"
	}
	return have + " stands where " + want + " is wanted"
}
