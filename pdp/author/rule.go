package author

import (
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// ruleIDs names each rule of a module by a name that stays when lines move: gatehouse.authz.holding["owner"] where the rule says
// which member it adds, gatehouse.authz.decision#2 for the second of several that do not. `custom: {id: …}` in a rule's METADATA
// stands in its place.
func ruleIDs(m *ast.Module) []string {
	names := make([]string, len(m.Rules))
	count := map[string]int{}
	for i, r := range m.Rules {
		names[i] = ruleName(m, r)
		if !r.Default {
			count[names[i]]++
		}
	}
	seen := map[string]int{}
	for i, r := range m.Rules {
		name := names[i]
		switch {
		case r.Default:
			names[i] = name + "#default"
		case count[name] > 1:
			seen[name]++
			names[i] = name + "#" + strconv.Itoa(seen[name])
		}
		if id := ownID(r); id != "" {
			names[i] = id
		}
	}
	return names
}

func ruleName(m *ast.Module, r *ast.Rule) string {
	name := strings.TrimPrefix(m.Package.Path.String(), "data.") + "." + r.Head.Ref().GroundPrefix().String()
	if r.Head.Key != nil {
		if _, ok := r.Head.Key.Value.(ast.String); ok && r.Head.DocKind() == ast.PartialSetDoc {
			name += "[" + r.Head.Key.String() + "]"
		}
	}
	return name
}

// ownID is the id that its author gave a rule.
func ownID(r *ast.Rule) string {
	for _, a := range r.Annotations {
		if id, ok := a.Custom["id"].(string); ok && a.Scope == "rule" {
			return id
		}
	}
	return ""
}
