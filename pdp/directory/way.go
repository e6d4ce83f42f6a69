package directory

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// way is given to decisions by whoever builds a view or writes one.
type way struct{ asked atomic.Pointer[func() uint64] }

// GiveWay has whatever is done to renew views, and to keep them, rest while decisions are asked for. The function tells how many
// have been so far.
func (d *Directory) GiveWay(asked func() uint64) {
	if d.way != nil {
		d.way.asked.Store(&asked)
	}
}

// hurry is how long whoever brings changes into force rests in all: they are to count within a second, and to merge layers of a
// million subjects takes half of that by itself.
const hurry = 250 * time.Millisecond

// hurried is for work that changes wait for.
func (l Limits) hurried() Limits {
	left := hurry
	l.left = &left
	return l
}

// rest begins one piece of work within the limits.
func (l Limits) rest() *resting {
	r := l.way.rest()
	r.left = l.left
	return r
}

// rest begins one piece of work.
func (w *way) rest() *resting {
	r := &resting{}
	if w == nil {
		return r
	}
	if asked := w.asked.Load(); asked != nil {
		r.pacer = pace.New(*asked)
	}
	return r
}

// resting is one piece of work, of one goroutine.
type resting struct {
	pacer *pace.Pacer    // nil as long as nobody decides
	left  *time.Duration // of rests; nil: as much as it takes
	n     int
}

// breathe is called for every subject.
func (r *resting) breathe() {
	switch r.n++; {
	case r.n&0x3f != 0 || r.pacer == nil:
	case r.left == nil:
		r.pacer.Breathe(context.Background()) // rests are short
	case *r.left > 0:
		began := time.Now()
		r.pacer.Breathe(context.Background())
		*r.left -= time.Since(began)
	case r.n&0xff == 0:
		runtime.Gosched()
	}
}

// breathe lets others go first now and then: whoever builds would otherwise keep a processor for 10 ms at a time.
func breathe(n int) {
	if n&0xff == 0xff {
		runtime.Gosched()
	}
}
