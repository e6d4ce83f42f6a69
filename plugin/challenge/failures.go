package challenge

import (
	"net/netip"
	"sync"
	"time"
)

// Failures counts how often the requests of a network have lately been refused. It is one process's own memory, bounded, and
// costs no round trip: an attacker who spreads over several edges is seen by each a little later. It is safe for concurrent use.
type Failures struct {
	window time.Duration
	most   int
	now    func() time.Time

	mu        sync.Mutex
	begun     time.Time // of the window
	this, old map[netip.Prefix]int
}

// The memory of Failures: how long a refusal counts, and how many networks each of two windows holds (some 4 MiB together).
const (
	failureWindow   = 10 * time.Minute
	failureNetworks = 32 << 10
)

// NewFailures makes a count of the last ten minutes.
func NewFailures(now func() time.Time) *Failures {
	return &Failures{window: failureWindow, most: failureNetworks, now: now, begun: now(), this: map[netip.Prefix]int{}}
}

// Add counts a refusal. A client without an address counts as one network with all others without.
func (f *Failures) Add(a netip.Addr) {
	n := prefixOf(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	if _, known := f.this[n]; !known && len(f.this) >= f.most {
		for some := range f.this { // any: an attacker with many networks cannot aim at one
			delete(f.this, some)
			break
		}
	}
	f.this[n]++
}

// Count answers the refusals of the client's network: those of this window, and those of the one before as far as they are
// less than a window old.
func (f *Failures) Count(a netip.Addr) int {
	n := prefixOf(a)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.turn()
	left := 1 - float64(f.now().Sub(f.begun))/float64(f.window)
	return f.this[n] + int(float64(f.old[n])*max(left, 0))
}

// turn begins another window when this one is over.
func (f *Failures) turn() {
	switch passed := f.now().Sub(f.begun); {
	case passed >= 2*f.window:
		f.old, f.this, f.begun = nil, map[netip.Prefix]int{}, f.now()
	case passed >= f.window:
		f.old, f.this, f.begun = f.this, map[netip.Prefix]int{}, f.begun.Add(f.window)
	}
}

// prefixOf is the client's network: /24 of IPv4, /64 of IPv6, and the zero Prefix for no address.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a = a.Unmap().WithZone(""); a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil { // the zero Addr
		return netip.Prefix{}
	}
	return p
}

func network(a netip.Addr) string {
	if p := prefixOf(a); p.IsValid() {
		return p.String()
	}
	return "unknown"
}
