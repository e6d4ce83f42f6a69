package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"
)

// How long a part rests that failed for want of time alone, before it is tried again: at first, and at most. It doubles each time.
const (
	firstPause = 15 * time.Second
	mostPause  = 10 * time.Minute
)

// pause is that of one part.
type pause struct {
	long  time.Duration
	until time.Time
}

// after is the pause after the outcome of a try.
func (p pause) after(err error, now time.Time) pause {
	if !wantsTime(err) {
		return pause{}
	}
	p.long = min(max(2*p.long, firstPause), mostPause)
	p.until = now.Add(p.long)
	return p
}

func (p pause) over(now time.Time) bool { return p.long > 0 && !now.Before(p.until) }

// wantsTime reports whether nothing is wrong with a part but that its tests, or what is measured of it, did not end in time: the machine
// may have been busy, and nobody is going to change a file because of that.
func wantsTime(err error) bool {
	switch stepOf(err) {
	case StepTests, StepGolden, StepBudget:
		return errors.Is(err, context.DeadlineExceeded)
	}
	return false
}

// retry tries again the parts whose pauses are over.
func (e *Engine) retry(ctx context.Context) {
	e.loading.Lock()
	defer e.loading.Unlock()
	for _, name := range slices.Sorted(maps.Keys(e.sources)) {
		if newest, p, ok := e.due(name); ok {
			e.opts.Log.InfoContext(ctx, "policies are tried again, for want of time before", "source", called(name))
			_ = e.enforce(e.GivingWay(ctx), newest, p) // told by Ready and the log
		}
	}
}

// due is what a source offered last, if it is to be tried again now, beside the newest of all others.
func (e *Engine) due(name string) (newest parts, p Part, ok bool) {
	e.telling.Lock()
	defer e.telling.Unlock()
	if s := e.sources[name]; s.refused || !s.pause.over(e.opts.Now()) {
		return nil, Part{}, false
	}
	return maps.Clone(e.offered), e.offered[name], true
}
