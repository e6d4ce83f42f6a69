package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of what a kind of question may cost the others.
const (
	patience     = 20 * time.Millisecond // while others wait, an evaluation keeps its place no longer
	late         = 2 * patience          // who has not ended by then, though its caller has gone, took too long
	suspectFor   = time.Second           // after it was slow, a kind of question has places of its own for so long
	mostLate     = 8                     // evaluations of a kind that took too long, one after the other; then it is refused
	tryLateIn    = time.Second           // and one of it is tried again
	mostTroubles = 1024                  // kinds that are told apart
)

// kind is what questions have in common that a rule may loop for. What they are about is in the caller's words.
type kind struct{ rule, of, action string }

// lanes are the places for evaluations. Nobody waits behind a rule that loops: whoever waits for a place takes it from an evaluation
// that has had it for longer than patience, and questions of that kind then have places of their own to wait for. A kind of which
// one evaluation after the other ends by its deadline is refused at once, but for one now and then.
type lanes struct {
	free chan int // numbers of held
	held []place

	some     atomic.Int32 // len(troubles), to be looked at without the lock
	mu       sync.Mutex
	troubles map[kind]*trouble

	late, refused atomic.Uint64
	log           *slog.Logger
}

// place is one that an evaluation holds.
type place struct {
	mu    sync.Mutex
	turn  uint64 // of the evaluation that holds it, or that held it last
	taken bool
	by    kind
	since time.Time
}

// trouble is a kind of question that was slow.
type trouble struct {
	places chan struct{} // of its own, as many as all others share
	until  time.Time     // it has them
	late   int           // one after the other
	again  time.Time     // when one is tried, where late is mostLate
}

// errLate is why a question is not evaluated.
var errLate = errors.New("those of its kind took longer than an evaluation may, one after the other")

func newLanes(places int, log *slog.Logger) *lanes {
	l := &lanes{free: make(chan int, places), held: make([]place, places), troubles: map[kind]*trouble{}, log: log}
	for i := range places {
		l.free <- i
	}
	return l
}

// turn is a place in use.
type turn struct {
	place  int // unless it is one of own
	number uint64
	own    chan struct{}
	of     kind
	since  time.Time
}

// enter waits for a place, until a moment at most.
func (l *lanes) enter(ctx context.Context, of kind, until time.Time) (turn, error) {
	if own, err := l.suspects(of); err != nil || own != nil {
		return l.enterOwn(ctx, of, until, own, err)
	}
	var i int
	select {
	case i = <-l.free:
	default:
		var err error
		if i, err = l.wait(ctx, until); err != nil {
			return turn{}, err
		}
		if own, err := l.suspects(of); err != nil || own != nil { // by now
			l.free <- i
			return l.enterOwn(ctx, of, until, own, err)
		}
	}
	p := &l.held[i]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	p.taken, p.by, p.since = true, of, time.Now()
	return turn{i, p.turn, nil, of, p.since}, nil
}

func (l *lanes) enterOwn(ctx context.Context, of kind, until time.Time, own chan struct{}, err error) (turn, error) {
	if err != nil {
		return turn{}, err
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	select {
	case own <- struct{}{}:
		return turn{0, 0, own, of, time.Now()}, nil
	case <-ctx.Done():
		return turn{}, fmt.Errorf("waiting for a processor: %w", ctx.Err())
	}
}

// wait waits for a place, and takes them from whoever has them for too long.
func (l *lanes) wait(ctx context.Context, until time.Time) (int, error) {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case i := <-l.free:
			return i, nil
		case <-timer.C:
			l.relieve()
			timer.Reset(patience / 4)
		case <-ctx.Done():
			return 0, fmt.Errorf("waiting for a processor: %w", ctx.Err())
		}
	}
}

// relieve frees the places of those that have had them for too long, who go on without.
func (l *lanes) relieve() {
	now := time.Now()
	for i := range l.held {
		p := &l.held[i]
		p.mu.Lock()
		of, long := p.by, p.taken && now.Sub(p.since) > patience
		if long {
			p.taken = false
		}
		p.mu.Unlock()
		if long {
			l.slowly(of, now, false)
			l.free <- i
		}
	}
}

// leave gives the place back. stopped is as for ended.
func (l *lanes) leave(t turn, stopped bool) {
	if t.own != nil {
		<-t.own
	} else {
		p := &l.held[t.place]
		p.mu.Lock()
		mine := p.taken && p.turn == t.number
		if mine {
			p.taken = false
		}
		p.mu.Unlock()
		if mine {
			l.free <- t.place
		}
	}
	l.ended(t.of, time.Since(t.since), stopped)
}

// ended notes how an evaluation went. stopped is whether something else ended it: its deadline, or its caller who has gone.
func (l *lanes) ended(of kind, took time.Duration, stopped bool) {
	switch {
	case stopped && took >= late:
		l.late.Add(1)
		l.slowly(of, time.Now(), true)
	case !stopped && l.some.Load() > 0:
		l.mu.Lock()
		defer l.mu.Unlock()
		t, now := l.troubles[of], time.Now()
		if t == nil {
			return
		}
		if t.late >= mostLate {
			l.log.Info("questions of a kind are evaluated again", "rule", of.rule, "resource_type", of.of, "action", of.action)
		}
		if t.late = 0; took > patience {
			t.until = now.Add(suspectFor)
		}
	}
}

// slowly notes that an evaluation is slow, or took too long.
func (l *lanes) slowly(of kind, now time.Time, tooLate bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.troubles[of]
	if t == nil {
		if len(l.troubles) >= mostTroubles {
			l.forget(now)
		}
		if len(l.troubles) >= mostTroubles {
			return
		}
		t = &trouble{places: make(chan struct{}, len(l.held))}
		l.troubles[of] = t
		l.some.Store(int32(len(l.troubles))) //nolint:gosec // at most mostTroubles
	}
	t.until = now.Add(suspectFor)
	if !tooLate {
		return
	}
	if t.late++; t.late == mostLate {
		l.log.Error("questions of a kind take too long, and are refused", "rule", of.rule, "resource_type", of.of, "action", of.action, "late", t.late, "tried_again_every", tryLateIn)
	}
	if t.late >= mostLate {
		t.again = now.Add(tryLateIn)
	}
}

// suspects answers the places of its own of a kind, if it has any; the error says that it is refused.
func (l *lanes) suspects(of kind) (own chan struct{}, err error) {
	if l.some.Load() == 0 {
		return nil, nil //nolint:nilnil // it has none
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t, now := l.troubles[of], time.Now()
	switch {
	case t == nil:
		return nil, nil //nolint:nilnil // it has none
	case t.late >= mostLate && now.Before(t.again):
		l.refused.Add(1)
		return nil, errLate
	case t.late >= mostLate: // this one is tried
		t.again = now.Add(tryLateIn)
	case now.After(t.until):
		delete(l.troubles, of)
		l.some.Store(int32(len(l.troubles))) //nolint:gosec // at most mostTroubles
		return nil, nil                      //nolint:nilnil // it has none
	}
	return t.places, nil
}

// anew forgets all: other rules decide.
func (l *lanes) anew() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.troubles)
	l.some.Store(0)
}

// forget drops what nobody has asked for lately. For those who hold mu.
func (l *lanes) forget(now time.Time) {
	for of, t := range l.troubles {
		if now.After(t.until) && now.After(t.again) {
			delete(l.troubles, of)
		}
	}
	l.some.Store(int32(len(l.troubles))) //nolint:gosec // at most mostTroubles
}

// shut is how many kinds of questions are refused.
func (l *lanes) shut() (n int) {
	if l.some.Load() == 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range l.troubles {
		if t.late >= mostLate {
			n++
		}
	}
	return n
}
