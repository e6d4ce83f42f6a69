package author_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

// says reports whether a condition adds up to all that words say.
func says(condition, words string) bool {
	if words == "whatever is known" {
		return true
	}
	have := strings.Split(condition, ", ")
	for fact := range strings.SplitSeq(words, ", ") {
		if !slices.Contains(have, fact) {
			return false
		}
	}
	return true
}

// meant reports whether the words of a change hold for a condition.
func meant(condition string, when, unless []string) bool {
	if len(when) == 0 {
		return !slices.ContainsFunc(unless, func(w string) bool { return says(condition, w) })
	}
	return slices.ContainsFunc(when, func(w string) bool {
		if only, just := strings.CutPrefix(strings.TrimSuffix(w, " (for some)"), "just "); just || only == "nothing else is known" {
			return condition == only
		}
		least, except, has := strings.Cut(w, ", unless ")
		return says(condition, least) && !(has && slices.ContainsFunc(strings.Split(except, " or "), func(e string) bool { return says(condition, e) }))
	})
}

// Whatever changes under whatever conditions: its words say that, all of it and nothing else.
func TestTheWordsOfAChangeAreTrue(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	facts := []string{"owner a", "owner b", "tenant t", "at night", "from afar"}
	for range 5000 {
		all, changed := map[string]int{}, map[string]int{}
		for range 1 + random.IntN(12) {
			var some []string
			for _, f := range facts {
				if random.IntN(3) == 0 {
					some = append(some, f)
				}
			}
			condition := strings.Join(some, ", ")
			if condition == "" {
				condition = "nothing else is known"
			}
			all[condition] = 1 + random.IntN(2)
			if n := random.IntN(all[condition] + 1); n > 0 {
				changed[condition] = n
			}
		}
		if len(changed) == 0 {
			continue
		}
		when, unless := author.Said(changed, all)
		for condition := range all {
			if does := changed[condition] > 0; does != meant(condition, when, unless) {
				t.Fatalf("%q changes: %t, which is not said: when %q unless %q\nall %v\nchanged %v", condition, does, when, unless, all, changed)
			}
		}
	}
}
