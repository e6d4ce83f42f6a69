package redisx_test

import (
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func each(t *testing.T, test func(t *testing.T, c redis.UniversalClient)) {
	t.Parallel()
	for name, url := range map[string]func(*testing.T) string{
		"redis":     func(t *testing.T) string { return testenv.Redis(t) },
		"miniredis": func(t *testing.T) string { return "redis://" + miniredis.RunT(t).Addr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := redisx.OpenFor(url(t), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			test(t, c)
		})
	}
}

func readAll(t *testing.T, c redis.UniversalClient) (redisx.Cursor, []redisx.Revocation, int) {
	t.Helper()
	found, bad := map[string]redisx.Revocation{}, 0
	cursor, err := redisx.ReadRevocationSnapshot(t.Context(), c, 10*time.Second, func(r redisx.Revocation) { found[r.Kind+r.Value] = r }, func(error) { bad++ })
	if err != nil {
		t.Fatal(err)
	}
	var all []redisx.Revocation
	for _, r := range found {
		all = append(all, r)
	}
	return cursor, all, bad
}

var byValue = cmpopts.SortSlices(func(a, b redisx.Revocation) bool { return a.Kind+a.Value < b.Kind+b.Value })

func TestASnapshotIsReplacedWhole(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient) {
		if cursor, all, _ := readAll(t, c); cursor.ID != "" || len(all) != 0 {
			t.Errorf("before the first: %v, %d entries", cursor, len(all))
		}
		for generation := range 3 {
			var want []redisx.Revocation
			for i := range 2100 {
				want = append(want, redisx.Revocation{Kind: "sid", Value: strconv.Itoa(generation) + ":" + strconv.Itoa(i), ExpiresAt: now.Add(time.Hour)})
			}
			want = append(want, redisx.Revocation{Kind: "sub", Value: "u1", NotBefore: now, ExpiresAt: now.Add(time.Hour)})
			cursor := redisx.Cursor{ID: strconv.Itoa(generation) + "-1", Added: int64(generation)}
			if err := redisx.WriteRevocationSnapshot(t.Context(), c, cursor, slices.Values(want)); err != nil {
				t.Fatal(err)
			}
			got, all, bad := readAll(t, c)
			if diff := cmp.Diff(want, all, byValue); diff != "" || got != cursor || bad != 0 {
				t.Errorf("cursor %v, %d bad entries: %s", got, bad, diff)
			}
			if ttl := c.TTL(t.Context(), redisx.RevocationSnapshot).Val(); ttl <= 0 || ttl > 24*time.Hour {
				t.Errorf("time to live %v", ttl)
			}
		}
	})
}

func TestTheCursorIsTheEndOfTheStream(t *testing.T) {
	t.Parallel()
	c, err := redisx.OpenFor(testenv.Redis(t), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if got, err := redisx.RevocationCursor(t.Context(), c); err != nil || got != (redisx.Cursor{ID: "0-0"}) {
		t.Errorf("without a stream: %v, error %v", got, err)
	}
	var last string
	for range 3 {
		if last, err = c.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, MaxLen: 1, Values: map[string]any{"a": "b"}}).Result(); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := redisx.RevocationCursor(t.Context(), c); err != nil || got != (redisx.Cursor{ID: last, Added: 3}) {
		t.Errorf("%v, error %v; want %s, 3", got, err, last)
	}
}

func TestWhatIsNoSnapshotIsRefused(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient) {
		none := func(redisx.Revocation) {}
		for name, put := range map[string]func() error{
			"a text":   func() error { return c.Set(t.Context(), redisx.RevocationSnapshot, "x", 0).Err() },
			"no count": func() error { return c.HSet(t.Context(), redisx.RevocationSnapshot, "cursor", "1-1").Err() },
			"cursor in word": func() error {
				return c.HSet(t.Context(), redisx.RevocationSnapshot, "cursor", "end", "added", "1").Err()
			},
			"count below 0": func() error {
				return c.HSet(t.Context(), redisx.RevocationSnapshot, "cursor", "1-1", "added", "-1").Err()
			},
		} {
			if err := errors.Join(c.Del(t.Context(), redisx.RevocationSnapshot).Err(), put()); err != nil {
				t.Fatal(err)
			}
			if _, err := redisx.ReadRevocationSnapshot(t.Context(), c, 10*time.Second, none, func(error) {}); !errors.Is(err, redisx.ErrSnapshot) {
				t.Errorf("%s: error %v", name, err)
			}
		}
	})
}

func TestStreamIDsHaveAnOrder(t *testing.T) {
	t.Parallel()
	order := []string{"0-0", "0-1", "1-0", "2-9", "2-10", "10-0", "1772000000123-0"}
	for i, a := range order {
		for j, b := range order {
			if got := redisx.StreamIDLess(a, b); got != (i < j) {
				t.Errorf("%s before %s: %v", a, b, got)
			}
		}
	}
	for _, none := range []string{"", "1", "x-1", "1-x", "-1-1", "99999999999999999999-0"} {
		if !redisx.StreamIDLess(none, "0-1") || redisx.StreamIDLess(none, "0-0") {
			t.Errorf("%q does not count as 0-0", none)
		}
	}
	if got := redisx.StreamIDTime("1772000000123-4"); !got.Equal(now) {
		t.Errorf("time %v", got)
	}
}

func FuzzParseSnapshotField(f *testing.F) {
	f.Add("sid:s1", "1772000000123")
	f.Add("sub:a:b", "1772000000123:1771000000000")
	f.Fuzz(func(t *testing.T, field, value string) {
		if r, err := redisx.ParseSnapshotField(field, value); err == nil && (r.Value == "" || r.ExpiresAt.IsZero() || (r.Kind == redisx.KindSubject && r.NotBefore.IsZero())) {
			t.Errorf("taken as %+v", r)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add("1-1", "7")
	f.Fuzz(func(t *testing.T, id, added string) {
		if c, err := redisx.ParseCursor(id, added); err == nil && (c.Added < 0 || c.ID == "") {
			t.Errorf("taken as %+v", c)
		}
	})
}
