package challenge_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

func TestFailuresAreCountedByNetworkAndForgotten(t *testing.T) {
	t.Parallel()
	at := &clock{time.Unix(1_800_000_000, 0)}
	f := challenge.NewFailures(at.now)
	a, neighbour, stranger := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("::ffff:192.0.2.9"), netip.MustParseAddr("192.0.3.7")
	for range 10 {
		f.Add(a)
	}
	f.Add(netip.Addr{})
	if n := f.Count(neighbour); n != 10 {
		t.Errorf("the network has %d, want 10", n)
	}
	if f.Count(stranger) != 0 || f.Count(netip.Addr{}) != 1 {
		t.Errorf("another network has %d, nobody's %d", f.Count(stranger), f.Count(netip.Addr{}))
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{9 * time.Minute, 10}, {6 * time.Minute, 5}, {5 * time.Minute, 0}} {
		at.at = at.at.Add(step.after)
		if n := f.Count(a); n != step.want {
			t.Errorf("%s later: %d, want %d", step.after, n, step.want)
		}
	}
	f.Add(a)
	at.at = at.at.Add(time.Hour)
	if n := f.Count(a); n != 0 {
		t.Errorf("an hour later: %d", n)
	}
}

// A flood from ever new networks takes no more memory.
func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	f := challenge.NewFailures(time.Now)
	for i := range 200_000 {
		f.Add(netip.AddrFrom16([16]byte{0x20, 1, 13, 184, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if n := f.Networks(); n > 32<<10 {
		t.Errorf("%d networks", n)
	}
}
