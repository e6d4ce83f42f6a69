package author_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

// Whatever rule a denial names did hold, and whatever held and says why not is named: rules that are watched at their work say the
// same as what was found out before any of them ran.
func TestTheRulesOfADenialAreThoseThatHeld(t *testing.T) {
	t.Parallel()
	p := shipped(t)
	var all []author.Question
	for _, c := range p.Cases {
		q, err := author.AsQuestion(c)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, q)
	}
	denied, seen := 0, map[string]bool{}
	err := p.Traced(t.Context(), all, func(q author.Question, d author.Decision, held []author.Held) {
		if d.Allow || d.Err != nil {
			if d.Rules != nil {
				t.Errorf("%s: allowed, by %q", q.Title, d.Rules)
			}
			return
		}
		denied++
		var ids, because []string
		for _, h := range held {
			ids = append(ids, h.ID)
			if strings.HasPrefix(h.ID, "gatehouse.authz.misses") || strings.HasPrefix(h.ID, "gatehouse.authz.decision") {
				because = append(because, h.ID)
			}
		}
		if len(d.Rules) == 0 {
			t.Errorf("%s: %v: no rule is named", q.Title, d)
		}
		for _, id := range d.Rules {
			seen[id] = true
			if !slices.Contains(ids, id) {
				t.Errorf("%s: %v: %s is named, and did not hold; those that did are %q", q.Title, d, id, ids)
			}
		}
		for _, id := range because {
			if !slices.Contains(d.Rules, id) {
				t.Errorf("%s: %v: %s held, and is not named: %q", q.Title, d, id, d.Rules)
			}
		}
	})
	if err != nil || denied < 100 {
		t.Fatalf("%d denials, %v", denied, err)
	}
	for _, id := range []string{
		"gatehouse.authz.decision#2", "gatehouse.authz.decision", "gatehouse.authz.misses", `gatehouse.authz.misses["other_tenant"]`,
		`gatehouse.authz.misses["resource_unknown"]`, `gatehouse.authz.misses["action_unknown"]`, `gatehouse.authz.misses["role_missing"]`,
	} {
		if !seen[id] {
			t.Errorf("no case is denied by %s", id)
		}
	}
	t.Logf("%d denials by %d rules", denied, len(seen))
}
