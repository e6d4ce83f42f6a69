package directory

import (
	"sync/atomic"
	"testing"
	"time"
)

// S58: whoever brings changes into force gives way to decisions for so long, however many are asked for, and not for ever.
func TestChangesRestNoLongerThanTheyMay(t *testing.T) {
	t.Parallel()
	var asked atomic.Uint64
	looks := func() uint64 { return asked.Add(1) } // another decision each time
	l := Limits{way: new(way)}.withDefaults()
	l.way.asked.Store(&looks)
	work := func(l Limits, until time.Duration) (looked uint64) {
		r, before := l.rest(), asked.Load()
		for began := time.Now(); time.Since(began) < until; {
			r.breathe()
		}
		return asked.Load() - before
	}
	if n := work(l, 20*time.Millisecond); n == 0 {
		t.Error("other work rests never")
	}
	hurried := l.hurried()
	for began := time.Now(); *hurried.left > 0; {
		if work(hurried, 20*time.Millisecond); time.Since(began) > time.Minute {
			t.Fatalf("%v are left", *hurried.left)
		}
	}
	if n := work(hurried, 20*time.Millisecond); n > 0 {
		t.Errorf("it rests behind its last rest, %d times", n)
	}
}
