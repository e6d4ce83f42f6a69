package author

import (
	"maps"
	"slices"
	"strings"
)

// Spoken is what the cases and tables of a policy speak of. Of anything else nothing was tried, and nothing is to be said.
type Spoken struct {
	Who  []string // roles, and types of subjects that are no users
	Asks []string // "GET order" of one object, "GET /orders" of a collection; sorted
}

// Spoken is what Access and People try.
func (p *Policy) Spoken() (Spoken, error) {
	u, err := universeOf(p)
	if err != nil {
		return Spoken{}, err
	}
	who, asks := map[string]bool{}, map[string]bool{}
	for _, s := range u.subjects {
		of := asked{Question: assemble(s, map[string]any{}, map[string]any{})}.change()
		for role := range strings.SplitSeq(of.Who, " + ") {
			who[role] = true
		}
	}
	for _, a := range u.asks {
		of := asked{Question: assemble(nil, a, map[string]any{})}.change()
		asks[of.Action+" "+of.Resource] = true
	}
	return Spoken{Who: slices.Sorted(maps.Keys(who)), Asks: slices.Sorted(maps.Keys(asks))}, nil
}
