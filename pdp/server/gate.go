package server

import (
	"net/http"
	"sync/atomic"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// errOverloaded is what a request gets for which there is no room. It is refused at once: one that waited would be answered
// when its enforcement point has given up, and make those behind it wait too.
var errOverloaded = fault.New(fault.Unavailable, "The decision point is busy.").Named("overloaded")

// retryAfter is in seconds, the least that Retry-After can say.
const retryAfter = "1"

// gate counts the requests that are being decided on. Nobody waits at it.
type gate struct {
	most int64
	now  atomic.Int64
}

func (g *gate) enter() bool {
	if g.now.Add(1) > g.most {
		g.now.Add(-1)
		return false
	}
	return true
}

func (g *gate) leave() { g.now.Add(-1) }

// admit enters the gate, or answers that there is no room. A request comes here once its body is read, so that one which
// arrives slowly keeps nobody out.
func (s *server) admit(w http.ResponseWriter, r *http.Request, api string, refuse refusal) bool {
	if s.gate.enter() {
		return true
	}
	s.Meter.Shed(api)
	w.Header().Set("Retry-After", retryAfter)
	refuse(w, r, errOverloaded)
	return false
}
