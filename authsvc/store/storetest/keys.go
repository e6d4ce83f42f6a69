package storetest

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/token"
)

func pair(name string) []token.Key {
	return []token.Key{
		{ID: name + "-next", Algorithm: "RS256", State: token.Next, Sealed: []byte{0, 1}, CreatedAt: noon().Add(time.Second)},
		{ID: name + "-active", Algorithm: "RS256", State: token.Active, Sealed: []byte{2, 0xff}, CreatedAt: noon()},
	}
}

func keys(t *testing.T, open func(*testing.T) Set) {
	t.Run("the first keys stay, oldest first", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		none, err := s.Keys.Keys(ctx)
		must(t, err)
		if len(none) != 0 {
			t.Errorf("a new store has %v", none)
		}
		made := pair("a")
		want := []token.Key{made[1], made[0]}
		for _, offered := range []string{"a", "b"} {
			got, err := s.Keys.Init(ctx, pair(offered))
			must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		}
		got, err := s.Keys.Keys(ctx)
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("instances that start at once end with one pair", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		answers, errs := race(10, func(i int) ([]token.Key, error) { return s.Keys.Init(ctx, pair(fmt.Sprint(i))) })
		for i, got := range answers {
			must(t, errs[i])
			if diff := cmp.Diff(answers[0], got); diff != "" || len(got) != 2 {
				t.Errorf("%d keys: %s", len(got), diff)
			}
		}
	})
	t.Run("keys without an active one are refused", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		if _, err := s.Keys.Init(ctx, pair("a")[:1]); err == nil {
			t.Error("no error")
		}
		got, err := s.Keys.Keys(ctx)
		must(t, err)
		if len(got) != 0 {
			t.Errorf("%v", got)
		}
	})
}
