package directory

import (
	"context"
	"runtime"
	"sync/atomic"

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
	pacer *pace.Pacer // nil as long as nobody decides
	n     int
}

// breathe is called for every subject.
func (r *resting) breathe() {
	if r.n++; r.n&0x3f == 0 {
		r.pacer.Breathe(context.Background()) // rests are short
	}
}

// breathe lets others go first now and then: whoever builds would otherwise keep a processor for 10 ms at a time.
func breathe(n int) {
	if n&0xff == 0xff {
		runtime.Gosched()
	}
}
