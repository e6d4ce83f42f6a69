package engine_test

import (
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Clients and record formats expect what RFC 9562 says: version 7, its variant, the time in front, the rest free.
func TestADecisionIDIsAUUIDOfItsTime(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ms := rapid.Int64Range(0, 1<<48-1).Draw(rt, "ms")
		a, b := rapid.Uint64().Draw(rt, "a"), rapid.Uint64().Draw(rt, "b")
		text := engine.UUIDOf(ms, a, b)
		id, err := uuid.Parse(text)
		if err != nil || id.String() != text || id.Version() != 7 || id.Variant() != uuid.RFC4122 {
			rt.Fatalf("%s: version %d, %v, %v", text, id.Version(), id.Variant(), err)
		}
		if sec, nsec := id.Time().UnixTime(); time.Unix(sec, nsec).UnixMilli() != ms {
			rt.Fatalf("%s is of %d s %d ns, want %d ms", text, sec, nsec, ms)
		}
		// Each random bit is in it, once.
		bit := rapid.IntRange(0, 73).Draw(rt, "bit")
		otherA, otherB := a, b
		if bit < 12 {
			otherA ^= 1 << bit
		} else {
			otherB ^= 1 << (bit - 10)
		}
		if engine.UUIDOf(ms, otherA, otherB) == text {
			rt.Fatalf("bit %d makes no other id", bit)
		}
	})
}
