package limit

import (
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/ulule/limiter/v3"
)

// local counts in this process, by the same rules as take.lua, in a table that never grows. Where more keys are counted at
// once than it holds, a new key takes over the place and the count of the one that has used least (Space-Saving, Metwally and
// others 2005): a key may then be refused too early, never too late, so a flood of keys lifts nobody's limit.
type local struct {
	now  func() time.Time
	seed maphash.Seed
	size int // places

	mu    sync.Mutex
	slots []window // made when first needed
}

var _ limiter.Store = (*local)(nil)

// window is one place. Times are milliseconds since 1970.
type window struct {
	hash               uint64
	count, ends        int64
	before, beforeEnds int64
}

const (
	windowSize = 40 // bytes
	ways       = 8  // places that a key may have
)

func newLocal(now func() time.Time, memory int64) *local {
	return &local{now: now, seed: maphash.MakeSeed(), size: max(int(memory/windowSize)/ways, 1) * ways}
}

// roll moves w on to now. A window opens with the first request that it counts.
func (w *window) roll(now, period int64, fixed bool) {
	if fixed {
		w.before, w.beforeEnds = 0, 0
		if w.ends <= now || w.count == 0 {
			w.count, w.ends = 0, now+period
		}
		return
	}
	switch left := w.ends - now; {
	case left <= 0:
		w.count = 0
	case left <= period && w.count > 0:
		w.before, w.beforeEnds, w.count = w.count, w.ends, 0
	}
	if w.beforeEnds <= now {
		w.before, w.beforeEnds = 0, now+period
	}
	if w.count == 0 { // where nothing weighs from before, beforeEnds is a period away
		w.ends = w.beforeEnds + period
	}
	if w.before == 0 {
		w.beforeEnds = 0
	}
}

// find answers the place of a key, another's if there is none free.
func (l *local) find(value string, now int64) *window {
	hash := maphash.String(l.seed, value)
	first := int(hash % uint64(l.size/ways) * ways)
	var best *window
	for i := first; i < first+ways; i++ {
		w := &l.slots[i]
		if w.hash == hash {
			return w
		}
		if best == nil || w.used(now) < best.used(now) {
			best = w
		}
	}
	if best.used(now) == 0 {
		*best = window{}
	}
	best.hash = hash
	return best
}

func (w *window) used(now int64) int64 {
	n := int64(0)
	if w.ends > now {
		n = w.count
	}
	if w.beforeEnds > now {
		n += w.before
	}
	return n
}

// take counts a request, for all keys or for none.
func (l *local) take(_ context.Context, keys []Key) outcome {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.slots == nil {
		l.slots = make([]window, l.size)
	}
	now := l.now().UnixMilli()
	out := outcome{allowed: true, usages: make([]usage, len(keys))}
	for i, k := range keys {
		w, period := l.find(k.Value, now), k.Rate.Period.Milliseconds()
		w.roll(now, period, k.Fixed)
		u := usage{count: w.count, ttl: w.ends - now, before: w.before, left: min(max(w.beforeEnds-now, 0), period)}
		u.fits = u.weighted(period)+float64(k.cost()) <= float64(k.Rate.Limit)
		out.usages[i] = u
		out.allowed = out.allowed && u.fits
	}
	if out.allowed {
		for i, k := range keys {
			w := l.find(k.Value, now)
			w.count += k.cost()
			out.usages[i].count = w.count
		}
	}
	return out
}

// Get implements limiter.Store.
func (l *local) Get(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return l.Increment(ctx, key, 1, rate)
}

// Increment implements limiter.Store. A request that does not fit is not counted.
func (l *local) Increment(ctx context.Context, key string, count int64, rate limiter.Rate) (limiter.Context, error) {
	return contextOf(rate, func(k Key) (outcome, error) {
		k.Value, k.Cost = key, count
		return l.take(ctx, []Key{k}), nil
	})
}

// Peek implements limiter.Store.
func (l *local) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return l.Increment(ctx, key, Peek, rate)
}

// Reset implements limiter.Store.
func (l *local) Reset(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	l.mu.Lock()
	if l.slots != nil {
		*l.find(key, l.now().UnixMilli()) = window{}
	}
	l.mu.Unlock()
	return l.Peek(ctx, key, rate)
}
