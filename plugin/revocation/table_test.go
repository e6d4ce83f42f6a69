package revocation

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// Against a plain map: whatever is added, in whatever order, swept or not.
func TestATableHoldsWhatAMapWould(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var table table
		want := map[uint64]ending{}
		now := int64(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 20).Draw(t, "sweep") == 0 {
				now += rapid.Int64Range(0, 20).Draw(t, "pass")
				table.sweep(now)
				maps.DeleteFunc(want, func(_ uint64, e ending) bool { return e.expires() <= now })
			}
			// Few hashes, so that they meet in slots and shards.
			h := rapid.Uint64Range(1, 60).Draw(t, "hash")<<32 | rapid.Uint64Range(1, 2).Draw(t, "shard")
			e := newEnding(1000*(now+rapid.Int64Range(1, 50).Draw(t, "for")), uint32(rapid.IntRange(1, 9).Draw(t, "since")))
			table.add(h, e)
			if old, ok := want[h]; ok {
				e = e.wider(old)
			}
			want[h] = e
		}
		for h, e := range want {
			if got := table.find(h); got != e {
				t.Fatalf("%x: until %d since %d, want until %d since %d", h, got.expires(), got.since(), e.expires(), e.since())
			}
		}
		if table.len() != len(want) || table.find(99<<32) != 0 {
			t.Fatalf("%d entries, want %d", table.len(), len(want))
		}
	})
}
