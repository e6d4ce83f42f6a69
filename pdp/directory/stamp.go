package directory

import (
	"sync/atomic"
	"time"
)

// stamps number views, layers and sets of roles in this process. Who remembers something compares numbers, and keeps none of what
// they stand for from being collected.
var stamps atomic.Uint64

// Stamp names a view: equal stamps are of one view.
func (v *View) Stamp() uint64 { return v.stamp }

// Stamp names the roles of views: equal stamps are of equal roles.
func (r *Roles) Stamp() uint64 { return r.stamp }

// Stamp names what is known of a subject.
type Stamp struct {
	layer uint64
	numbers
}

// Stamp names what is known: equal stamps are of equal knowledge, also in different views. The reverse need not hold.
func (e Entry) Stamp() Stamp { return Stamp{e.of.stamp, e.numbers} }

// Steady answers since when, and until when, Facts and Attributes are what they are now; zero is always.
func (e Entry) Steady(now time.Time) (since, until time.Time) {
	d := decoder{rest: e.of.granted.at(e.grants)}
	d.skipToBindings()
	ms, last, next := now.UnixMilli(), int64(0), int64(0)
	for b := range d.bindings(e) {
		switch {
		case b.end == 0:
		case b.end <= ms:
			last = max(last, b.end)
		case next == 0 || b.end < next:
			next = b.end
		}
	}
	if last != 0 {
		since = milli(last)
	}
	if next != 0 {
		until = milli(next)
	}
	return since, until
}

// Floats reports whether which roles count depends on a tenant that the directory does not name.
func (e Entry) Floats() bool {
	d := decoder{rest: e.of.granted.at(e.grants)}
	if d.number() != 0 {
		return false
	}
	for range d.number() {
		d.number()
	}
	for b := range d.bindings(e) {
		if b.tenant != "" {
			return true
		}
	}
	return false
}
