package engine

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Reads is what of a request a decision of some policy can depend on.
type Reads struct{ of looksAt }

// ReadsOf reads it from the rules.
func ReadsOf(c *ast.Compiler) (Reads, error) {
	l, err := dependenciesOf(c)
	return Reads{l}, err
}

// Properties reports whether it is anything that is known of the resource.
func (r Reads) Properties() bool { return r.of.properties }

// Matters reports whether what stands at a JSON Pointer in a record of the decision log is among it, or holds some of it. asked says
// that the record's input is an AuthZEN request, and not what the policy saw.
func (r Reads) Matters(pointer string, asked bool) bool {
	at, err := authzen.ParsePointer(pointer)
	if err != nil {
		return true
	}
	var paths [][]string
	switch {
	case len(at) >= 2 && at[0] == "gatehouse" && at[1] == "looked_up":
		at = append([]string{"resource", "properties"}, at[2:]...)
		paths = r.of.paths
	case len(at) >= 1 && at[0] == "input" && !asked:
		at, paths = at[1:], r.of.paths
	case len(at) >= 1 && at[0] == "input":
		at = at[1:]
		for _, v := range r.of.vary {
			if path, err := authzen.ParsePointer(v); err == nil {
				paths = append(paths, path)
			}
		}
	default:
		return false // the result
	}
	here := strings.Join(at, "\x00")
	for _, p := range paths {
		path := strings.Join(p, "\x00")
		if here == "" || here == path || strings.HasPrefix(path, here+"\x00") || strings.HasPrefix(here, path+"\x00") {
			return true
		}
	}
	return false
}
