package engine

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"
)

// baseOf answers what dependencies.Base does, for x and every rule that it can reach. Base knows a visited rule by comparing it
// with all others of its name, which takes minutes for ten thousand; here it is known by its address, and a reference by its text.
func baseOf(c *ast.Compiler, x any) ([]ast.Ref, error) {
	var found []ast.Ref
	seen := map[string]bool{}
	visited := map[*ast.Rule]bool{}
	for todo := []any{x}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		refs, err := dependencies.Minimal(next)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			ref = ref.ConstantPrefix()
			text := ref.String()
			if seen[text] {
				continue
			}
			seen[text] = true
			rules := c.GetRules(ref)
			if len(rules) == 0 || directoryRef.HasPrefix(ref) { // data beside rules, or above them
				found = append(found, ref)
			}
			for _, rule := range rules {
				if !visited[rule] {
					visited[rule] = true
					todo = append(todo, rule)
				}
			}
		}
	}
	return found, nil
}
