package pace

import (
	"context"
	"testing"
	"time"
)

// fake is a clock that stands still but for work and rests.
type fake struct {
	at    time.Time
	asked uint64
	rests []time.Duration
}

func (f *fake) pacer() *Pacer {
	return with(func() uint64 { return f.asked }, func() time.Time { return f.at }, func(_ context.Context, d time.Duration) {
		f.rests = append(f.rests, d)
		f.at = f.at.Add(d)
	})
}

// steps works in small steps, with so many questions asked during each.
func (f *fake) steps(ctx context.Context, n int, each time.Duration, asked uint64) {
	for range n {
		f.at = f.at.Add(each)
		f.asked += asked
		Breathe(ctx)
	}
}

func TestWorkRestsAtLeastHalfTheTimeWhileSomebodyAsks(t *testing.T) {
	t.Parallel()
	f := &fake{at: time.Unix(1, 0)}
	ctx := In(t.Context(), f.pacer())
	spent := Watch(ctx)
	f.steps(ctx, 1000, 100*time.Microsecond, 1)
	if worked := spent(); worked != 100*time.Millisecond || len(f.rests) != 200 || f.at.Sub(time.Unix(1, 0)) < 2*worked {
		t.Errorf("it worked for %v, and rested %d times, %v in all", worked, len(f.rests), f.at.Sub(time.Unix(1, 0))-worked)
	}
	f.rests = nil
	f.steps(ctx, 1, time.Minute, 1)
	if len(f.rests) != 1 || f.rests[0] > most {
		t.Errorf("after long work it rests for %v", f.rests)
	}
}

func TestWorkDoesNotRestWhileNobodyAsks(t *testing.T) {
	t.Parallel()
	f := &fake{at: time.Unix(1, 0), asked: 1000}
	ctx := In(t.Context(), f.pacer())
	f.steps(ctx, 100, time.Millisecond, 0)
	if len(f.rests) > 0 || Paced(ctx) {
		t.Errorf("nobody asked, and it rested %d times", len(f.rests))
	}
	f.steps(ctx, 1, time.Millisecond, 1)
	if len(f.rests) != 1 || !Paced(ctx) {
		t.Errorf("somebody asked, and it rested %d times", len(f.rests))
	}
	f.steps(ctx, 1000, time.Millisecond, 0)
	if n := len(f.rests); n > 300 || Paced(ctx) {
		t.Errorf("it rested %d times after anybody asked", n)
	}
}

func TestWithoutAPacerThereIsNoRest(t *testing.T) {
	t.Parallel()
	Breathe(t.Context())
	if Paced(t.Context()) || Limit(t.Context(), time.Second) != time.Second || Watch(t.Context())() > time.Minute {
		t.Error("there is one")
	}
	if Limit(In(t.Context(), New(func() uint64 { return 0 })), time.Second) < 2*time.Second {
		t.Error("work and rests have no more time than work")
	}
}

func TestARestEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	rest(ctx, time.Hour)
	if time.Since(began) > time.Minute {
		t.Error("it went on")
	}
}

// Who answers no more still counts for what it was asked: else the sum would go back, and look like news.
func TestAGaugeAddsUpAllWhoAnswer(t *testing.T) {
	t.Parallel()
	var g Gauge
	if g.Asked() != 0 {
		t.Error("of nobody something was asked")
	}
	a, b := uint64(1), uint64(10)
	leave := g.Join(func() uint64 { return a })
	g.Join(func() uint64 { return b })
	a, b = 2, 20
	if n := g.Asked(); n != 22 {
		t.Errorf("%d", n)
	}
	leave()
	a = 5
	leave()
	if n := g.Asked(); n != 22 {
		t.Errorf("%d after one has left", n)
	}
}
