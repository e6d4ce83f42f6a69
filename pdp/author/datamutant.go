package author

import (
	"encoding/json"
	"path"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// most is how many values a data file may hold to be changed one by one. What is larger is data, not policy.
const most = 1000

// dataMutants are small mistakes in those data files that the decision looks at: in a policy of tables, the conditions stand there.
func (p *Policy) dataMutants(compiled *program) ([]mutant, error) {
	read, err := dependencies.Base(compiled.compiler, ast.MustParseBody("decision = "+engine.Entrypoint))
	if err != nil {
		return nil, err
	}
	var all []mutant
	for _, name := range sorted(p.Files) {
		if ext := path.Ext(name); ext != ".yaml" && ext != ".yml" && ext != ".json" {
			continue
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(p.Files[name], &doc); err != nil || len(doc.Content) == 0 {
			continue // the engine has read it; what YAML 1.2 and 1.1 see differently is left alone
		}
		var at []any
		if dir := path.Dir(name); dir != "." {
			for part := range strings.SplitSeq(dir, "/") {
				at = append(at, part)
			}
		}
		some := nodeChanges(doc.Content[0], at)
		if len(some) > most {
			continue
		}
		for _, c := range some {
			if !looksAt(read, c.at) {
				continue
			}
			data, ok := edit(p.Data, c.at, c.to, c.drop).(map[string]any)
			if !ok {
				continue
			}
			m := Mutant{File: p.place(name), Line: c.line, Rule: dotted(c.at), Kind: changeData, Before: c.before, After: c.after}
			if c.drop {
				m.Kind = dropData
			}
			all = append(all, mutant{Mutant: m, data: data})
		}
	}
	return all, nil
}

// looksAt reports whether one of refs is at, above or below the place in data.
func looksAt(refs []ast.Ref, at []any) bool {
	for _, r := range refs {
		if !r.HasPrefix(ast.DefaultRootRef) {
			continue
		}
		same := true
		for i, part := range r[1:] {
			if i >= len(at) {
				break
			}
			want, ok := part.Value.(ast.String)
			if !ok {
				break // a variable: anything
			}
			if have, ok := at[i].(string); !ok || have != string(want) {
				same = false
				break
			}
		}
		if same {
			return true
		}
	}
	return false
}

type nodeChange struct {
	at            []any // keys and indexes, from data
	to            any
	drop          bool
	line          int
	before, after string
}

func nodeChanges(n *yaml.Node, at []any) (all []nodeChange) {
	below := func(key any) []any { return append(append([]any(nil), at...), key) }
	switch n.Kind {
	case yaml.MappingNode:
		for _, e := range yamldoc.Entries(n) {
			here := below(e.Key.Value)
			all = append(all, nodeChange{at: here, drop: true, line: e.Key.Line, before: flow(e.Key.Value, e.Value)})
			all = append(all, nodeChanges(e.Value, here)...)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			all = append(all, nodeChange{at: below(i), drop: true, line: item.Line, before: flow("", item)})
			if item.Kind != yaml.ScalarNode { // a changed word of a list is much like one less
				all = append(all, nodeChanges(item, below(i))...)
			}
		}
	case yaml.ScalarNode:
		c := nodeChange{at: at, line: n.Line, before: n.Value}
		switch n.Tag {
		case "!!int":
			i, err := strconv.Atoi(n.Value)
			if err != nil {
				return nil
			}
			c.to = json.Number(strconv.Itoa(i + 1))
		case "!!bool":
			c.to = n.Value != "true"
		case "!!str":
			c.to = n.Value + "~"
		default:
			return nil
		}
		c.after = short(stringer(c.to))
		return []nodeChange{c}
	}
	return all
}

// stringer shows a JSON value.
func stringer(v any) ast.Value {
	value, err := ast.InterfaceToValue(v)
	if err != nil {
		return ast.Null{}
	}
	return value
}

// flow is how a value reads on one line.
func flow(key string, n *yaml.Node) string {
	var v any
	if n.Decode(&v) != nil {
		return key
	}
	text := short(stringer(v))
	if key == "" {
		return text
	}
	return key + ": " + text
}

// edit is a copy of v with another value at, or without it. It shares what it does not change.
func edit(v any, at []any, to any, drop bool) any {
	if len(at) == 0 {
		return to
	}
	last := drop && len(at) == 1
	switch v := v.(type) {
	case map[string]any:
		key, _ := at[0].(string)
		c := make(map[string]any, len(v))
		for k, x := range v {
			switch {
			case k != key:
				c[k] = x
			case !last:
				c[k] = edit(x, at[1:], to, drop)
			}
		}
		return c
	case []any:
		index, _ := at[0].(int)
		c := make([]any, 0, len(v))
		for i, x := range v {
			switch {
			case i != index:
				c = append(c, x)
			case !last:
				c = append(c, edit(x, at[1:], to, drop))
			}
		}
		return c
	}
	return v
}

func dotted(at []any) string {
	var b strings.Builder
	b.WriteString("data")
	for _, part := range at {
		switch part := part.(type) {
		case string:
			b.WriteString("." + part)
		case int:
			b.WriteString("[" + strconv.Itoa(part) + "]")
		}
	}
	return b.String()
}
