package ruleid

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Double is something that more than one rule says, so that a denial does not tell which of them did.
type Double struct {
	Says  string
	Rules []string      // ids
	At    *ast.Location // of one of them: file, row and column
}

// Doubles are the texts in the list of reasons of a decision, an object that does not have to say {"allow": true}, which more than one
// rule adds to it; and the reasons that more than one rule of the decision gives as they are.
func (o *Origins) Doubles() []Double {
	found := map[string]Double{}
	add := func(says string, rules []string) {
		if len(rules) < 2 {
			return
		}
		slices.Sort(rules)
		found[says+"\x00"+strings.Join(rules, "\x00")] = Double{says, rules, o.places(rules[0])[0]}
	}
	whole := map[string][]string{} // by what a decision is as a whole
	for _, a := range o.alternatives {
		if a.is != object || allows(a.members["allow"]) {
			continue
		}
		for _, m := range a.members["reasons"] {
			if m.list == nil {
				continue
			}
			says := map[string][]string{}
			for _, item := range m.list.items {
				if s, ok := item.scalar.(string); ok && item.is == scalar {
					says[s] = with(says[s], item.maker())
				}
			}
			for s, rules := range says {
				add(s, rules)
			}
			if s, ok := m.list.said(); ok {
				kind := strings.Join(sorted(a.members), " ") + "\x00" + s
				whole[kind] = with(whole[kind], a.maker())
			}
		}
	}
	for kind, rules := range whole {
		_, says, _ := strings.Cut(kind, "\x00")
		add(says, rules)
	}
	all := make([]Double, 0, len(found))
	for _, key := range slices.Sorted(maps.Keys(found)) {
		all = append(all, found[key])
	}
	return all
}

func with(ids []string, id string) []string {
	if id == "" || slices.Contains(ids, id) {
		return ids
	}
	return append(ids, id)
}

// allows reports whether something is true, and nothing else.
func allows(all []may) bool { return len(all) == 1 && all[0].is == scalar && all[0].scalar == true }

// said are the texts of an array that is written out.
func (l *list) said() (string, bool) {
	if len(l.places) == 0 {
		return "", false
	}
	var texts []string
	for _, one := range l.places {
		if len(one) != 1 || one[0].is != scalar {
			return "", false
		}
		s, ok := one[0].scalar.(string)
		if !ok {
			return "", false
		}
		texts = append(texts, s)
	}
	return strings.Join(texts, ", "), true
}
