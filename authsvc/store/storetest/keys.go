package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/token"
)

// pair is what a first start makes.
func pair(of string) []token.Key {
	return []token.Key{
		{ID: of + "-active", Algorithm: "RS256", State: token.Active, Sealed: []byte{0, 1, 0xff}, CreatedAt: kept(noon())},
		{ID: of + "-next", Algorithm: "RS256", State: token.Next, Sealed: []byte{0, 2, 0xff}, CreatedAt: kept(noon().Add(tick))},
	}
}

// keys is, in its last clause, S72 of first starts.
func keys(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "at first there are no keys", func(t *testing.T, s Set) {
		if n := len(got[[]token.Key](t)(s.Keys.Keys(t.Context()))); n != 0 {
			t.Errorf("there are %d", n)
		}
	})

	check(t, open, "the first keys are kept, oldest first", func(t *testing.T, s Set) {
		given := append(pair("a"), token.Key{ID: "a-old", Algorithm: "ES256", State: token.Retiring, Sealed: []byte{3}, CreatedAt: noon().Add(-time.Hour)})
		expected := slices.Clone([]token.Key{given[2], given[0], given[1]})
		expected[0].CreatedAt = kept(expected[0].CreatedAt)
		before := slices.Clone(given)
		same(t, "the answer", got[[]token.Key](t)(s.Keys.Init(t.Context(), given)), expected)
		same(t, "the keys", got[[]token.Key](t)(s.Keys.Keys(t.Context())), expected)
		same(t, "what was given", given, before)
	})

	check(t, open, "keys that are there stay", func(t *testing.T, s Set) {
		got[[]token.Key](t)(s.Keys.Init(t.Context(), pair("a")))
		same(t, "the answer", got[[]token.Key](t)(s.Keys.Init(t.Context(), pair("b"))), pair("a"))
		retiring := token.Key{ID: "c", Algorithm: "RS256", State: token.Retiring, Sealed: []byte{1}, CreatedAt: noon()}
		same(t, "the answer", got[[]token.Key](t)(s.Keys.Init(t.Context(), append(pair("b"), retiring))), pair("a"))
		same(t, "the keys", got[[]token.Key](t)(s.Keys.Keys(t.Context())), pair("a"))
	})

	for name, given := range map[string][]token.Key{
		"no keys":         {},
		"none active":     pair("a")[1:],
		"two active":      {pair("a")[0], pair("b")[0]},
		"two next":        {pair("a")[0], pair("a")[1], pair("b")[1]},
		"one id for both": {pair("a")[0], {ID: "a-active", Algorithm: "RS256", State: token.Next, Sealed: []byte{1}, CreatedAt: noon()}},
	} {
		check(t, open, "keys that cannot sign and follow are refused whole: "+name, func(t *testing.T, s Set) {
			if _, err := s.Keys.Init(t.Context(), given); err == nil {
				t.Error("no complaint")
			}
			if n := len(got[[]token.Key](t)(s.Keys.Keys(t.Context()))); n != 0 {
				t.Errorf("there are %d", n)
			}
		})
	}

	check(t, open, "of instances that start at the same moment one makes the keys (S72)", func(t *testing.T, s Set) {
		errs := make([]error, racers)
		answers := race(racers, func(i int) (k []token.Key) {
			k, errs[i] = s.Keys.Init(t.Context(), pair(fmt.Sprint(i)))
			return k
		})
		stored := got[[]token.Key](t)(s.Keys.Keys(t.Context()))
		if len(stored) != 2 {
			t.Fatalf("there are %d keys", len(stored))
		}
		for i, k := range answers {
			must(t, errs[i])
			same(t, "an answer", k, stored)
		}
		winner, _, _ := strings.Cut(stored[0].ID, "-")
		same(t, "the keys", stored, pair(winner))
	})
}
