package engine

import (
	"context"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

// maxReadings is how many subjects a decision may look up and still be remembered.
const maxReadings = 64

// readings are what one decision read of data.directory. Rules are functions of what they read, so that another decision of the
// same input, which finds the same in the same places, is the same: it is led to no other places. Which these are may be known only
// once the rules have run, as with the manager of whoever asks.
type readings struct {
	subjects []reading
	roles    bool // all of them
	many     bool // more than are kept
}

type reading struct {
	id    string
	entry directory.Entry
	facts map[string]any // nil: not known
}

// of answers what was read of a subject before.
func (r *readings) of(id string) (facts map[string]any, ok bool) {
	for i := range r.subjects {
		if r.subjects[i].id == id {
			return r.subjects[i].facts, true
		}
	}
	return nil, false
}

func (r *readings) add(one reading) {
	if len(r.subjects) == maxReadings {
		r.many = true
		return
	}
	r.subjects = append(r.subjects, one)
}

// reading has a decision note what it reads.
func (c *consulted) reading(ctx context.Context) (context.Context, *consulted) {
	c.reads = &readings{}
	noting := *c // of its own, so that c, of which decisions that are remembered have one too, need not be allocated
	return context.WithValue(ctx, consultedKey{}, &noting), &noting
}

// end is when what was read changes by itself; zero is never.
func (c *consulted) end() time.Time {
	if c.reads.many {
		_, next := c.view.Turns(c.now)
		return next
	}
	k := checked{until: math.MaxInt64}
	for _, s := range c.reads.subjects {
		if s.facts != nil {
			k.narrow(s.entry, c.now)
		}
	}
	return k.end()
}

// rests is what of the directory a remembered answer rests on; nil for nothing. It is shared and, but for checked, never changes.
type rests struct {
	subjects []restsOn
	roles    uint64 // stamp of them all; 0 if they were not read
	checked  atomic.Pointer[checked]
}

type restsOn struct {
	id    string
	known bool
	facts string // as appendAny has them
}

// checked says that a view was found to say what an answer rests on, at moments (in milliseconds since 1970) from since to before until.
type checked struct {
	view         uint64
	since, until int64
	stamps       []directory.Stamp // of each subject
}

// rests makes of what was read what an answer rests on; false if it cannot be remembered.
func (c *consulted) rests() (*rests, bool) {
	switch {
	case c.reads == nil || len(c.reads.subjects) == 0 && !c.reads.roles:
		return nil, true
	case c.reads.many:
		return nil, false
	}
	r := &rests{subjects: make([]restsOn, len(c.reads.subjects))}
	if c.reads.roles {
		r.roles = c.view.Roles().Stamp()
	}
	now := &checked{view: c.view.Stamp(), until: math.MaxInt64, stamps: make([]directory.Stamp, len(r.subjects))}
	for i, s := range c.reads.subjects {
		r.subjects[i] = restsOn{id: strings.Clone(s.id), known: s.facts != nil}
		if s.facts == nil {
			continue
		}
		facts, ok := appendAny(nil, s.facts)
		if !ok {
			return nil, false
		}
		r.subjects[i].facts = string(facts) // what was read shares the texts of the whole directory
		now.stamps[i] = s.entry.Stamp()
		now.narrow(s.entry, c.now)
	}
	r.checked.Store(now)
	return r, true
}

func (k *checked) narrow(e directory.Entry, now time.Time) {
	since, until := e.Steady(now)
	if !since.IsZero() {
		k.since = max(k.since, since.UnixMilli())
	}
	if !until.IsZero() {
		k.until = min(k.until, until.UnixMilli())
	}
}

func (k *checked) at(now time.Time) bool {
	ms := now.UnixMilli()
	return k.since <= ms && ms < k.until
}

// end is when what was read changes by itself.
func (k *checked) end() time.Time {
	if k.until == math.MaxInt64 {
		return time.Time{}
	}
	return time.UnixMilli(k.until)
}

// hold reports whether the directory says what an answer rests on, and until when it will by itself.
func (c *consulted) hold(r *rests) (until time.Time, ok bool) {
	if r == nil {
		return time.Time{}, true
	}
	last := r.checked.Load()
	if last.view == c.view.Stamp() && last.at(c.now) {
		return last.end(), true
	}
	if r.roles != 0 && r.roles != c.view.Roles().Stamp() {
		return time.Time{}, false
	}
	now := &checked{view: c.view.Stamp(), until: math.MaxInt64, stamps: slices.Clone(last.stamps)}
	for i, s := range r.subjects {
		e, known := c.view.Find(s.id)
		if known != s.known {
			return time.Time{}, false
		}
		if !known {
			continue
		}
		if stamp := e.Stamp(); stamp != last.stamps[i] || !last.at(c.now) {
			facts, _ := appendAny(nil, factsOf(e, c))
			if string(facts) != s.facts {
				return time.Time{}, false
			}
			now.stamps[i] = stamp
		}
		now.narrow(e, c.now)
	}
	r.checked.Store(now)
	return now.end(), true
}

// rely makes an answer hold for no longer than what it rests on.
func (c *consulted) rely(until time.Time) {
	if !until.IsZero() && (c.until.IsZero() || until.Before(c.until)) {
		c.until = until
	}
}

// size is about what it takes, in bytes.
func (r *rests) size() int {
	if r == nil {
		return 0
	}
	n := 128
	for _, s := range r.subjects {
		n += 96 + len(s.id) + len(s.facts)
	}
	return n
}
