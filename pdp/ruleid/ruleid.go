// Package ruleid names the rules of policies, and says of a document's value by which rules it came to be (Origins). It finds that out
// of the rules as they are written, once: no evaluation is watched.
package ruleid

import (
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Of names each rule of a module by a name that stays when lines move: gatehouse.authz.holding["owner"] where the rule says
// which member it adds, gatehouse.authz.decision#2 for the second of several that do not. `custom: {id: …}` in a rule's METADATA
// stands in its place, where the module was parsed with its annotations.
func Of(m *ast.Module) []string {
	names := make([]string, len(m.Rules))
	count := map[string]int{}
	for i, r := range m.Rules {
		names[i] = nameOf(m, r)
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

func nameOf(m *ast.Module, r *ast.Rule) string {
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

// Names are those of the rules of a policy, which compiling it does not change.
type Names map[place]name

// place is where a rule stands.
type place struct {
	file     string
	row, col int
}

type name struct {
	id string
	// decides says that something hangs on whether the rule holds. What has no condition, such as a table of reasons or a function that
	// looks into one, holds whenever somebody asks for it.
	decides bool
}

// Add names the rules of a module as it was parsed.
func (n Names) Add(m *ast.Module) {
	for i, id := range Of(m) {
		r := m.Rules[i]
		if r.Location != nil {
			n[placeOf(r)] = name{id, decides(r)}
		}
	}
}

func placeOf(r *ast.Rule) place { return place{r.Location.File, r.Location.Row, r.Location.Col} }

func (n Names) of(r *ast.Rule) name {
	if r.Location == nil {
		return name{}
	}
	return n[placeOf(r)]
}

func decides(r *ast.Rule) bool {
	if r.Default || r.Else != nil || r.Head.DocKind() != ast.CompleteDoc {
		return true
	}
	for _, arg := range r.Head.Args {
		if _, free := arg.Value.(ast.Var); !free {
			return true
		}
	}
	if len(r.Body) != 1 {
		return true
	}
	t, ok := r.Body[0].Terms.(*ast.Term)
	return !ok || t.Value.Compare(ast.Boolean(true)) != 0
}
