// Package pace makes long work in the background give way to those who wait for answers.
//
// On a machine of two processors, work that goes on for 100 ms takes one of them away for as long, and makes the scheduler look
// for requests every 10 ms alone. So who builds something calls Breathe often: after each half millisecond of work it rests for
// at least as long, for as long as somebody is asking. While nobody asks it does not rest at all.
package pace

import (
	"context"
	"runtime"
	"time"
)

const (
	slice = 500 * time.Microsecond // of work without a rest
	calm  = 250 * time.Millisecond // since anybody asked, after which there is no rest
	most  = 20 * time.Millisecond  // of one rest
	share = 3                      // at the most, of the time that work takes without rests, it takes with them
)

// Pacer paces one piece of work, of one goroutine.
type Pacer struct {
	asked func() uint64
	now   func() time.Time
	rest  func(context.Context, time.Duration)

	last  uint64    // that was asked
	busy  time.Time // when more had been
	since time.Time // when work began after the last rest

	rested time.Duration // in all
}

// New is a pacer of work that begins now. The function tells how much has been asked so far.
func New(asked func() uint64) *Pacer { return with(asked, time.Now, rest) }

func with(asked func() uint64, now func() time.Time, rest func(context.Context, time.Duration)) *Pacer {
	return &Pacer{asked: asked, now: now, rest: rest, last: asked(), since: now()}
}

func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

type key struct{}

// In answers a context whose Breathe rests as p says.
func In(ctx context.Context, p *Pacer) context.Context { return context.WithValue(ctx, key{}, p) }

// Breathe rests if it is time to. Without a pacer in ctx it never does.
func Breathe(ctx context.Context) {
	if p, ok := ctx.Value(key{}).(*Pacer); ok {
		p.Breathe(ctx)
	}
}

// Limit answers how long work may take, rests and all, that is given so long without rests.
func Limit(ctx context.Context, work time.Duration) time.Duration {
	if _, ok := ctx.Value(key{}).(*Pacer); ok {
		return share * work
	}
	return work
}

// Watch answers a function that tells for how long work has gone on since, rests left out.
func Watch(ctx context.Context) (spent func() time.Duration) {
	p, ok := ctx.Value(key{}).(*Pacer)
	if !ok {
		began := time.Now()
		return func() time.Duration { return time.Since(began) }
	}
	began, rested := p.now(), p.rested
	return func() time.Duration { return p.now().Sub(began) - (p.rested - rested) }
}

// Paced reports whether somebody has been asking lately, so that work should keep to one processor.
func Paced(ctx context.Context) bool {
	p, ok := ctx.Value(key{}).(*Pacer)
	return ok && p.asking(p.now())
}

func (p *Pacer) asking(now time.Time) bool {
	if asked := p.asked(); asked != p.last {
		p.last, p.busy = asked, now
	}
	return !p.busy.IsZero() && now.Sub(p.busy) < calm
}

// Breathe rests if it is time to, no longer than ctx goes on. A nil pacer never does.
func (p *Pacer) Breathe(ctx context.Context) {
	if p == nil {
		return
	}
	now := p.now()
	worked := now.Sub(p.since)
	if worked < slice {
		return
	}
	if !p.asking(now) {
		runtime.Gosched()
		p.since = p.now()
		return
	}
	p.rest(ctx, min(worked, most))
	p.since = p.now()
	p.rested += p.since.Sub(now)
}
