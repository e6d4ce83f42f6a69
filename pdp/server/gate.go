package server

import (
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
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

func (g *gate) full() bool { return g.now.Load() >= g.most }

// shed refuses what asks for a decision while there is no room, before anything of it is read, checked or logged: a refusal must
// cost far less than a decision. The meter counts it.
func (s *server) shed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.gate.full() {
			next.ServeHTTP(w, r)
			return
		}
		switch p := r.URL.Path; {
		case p == authzen.Path || p == authzen.BatchPath:
			s.refuse(w, r, apiAuthZEN, problem)
		case s.offersSearch() && isSearch(p):
			s.refuse(w, r, apiSearch, problem)
		case len(s.data) > 0 && isData(p), p == "/" && s.told(defaultDocument()):
			s.refuse(w, r, apiData, dataRefusal)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// isData reports whether a path is one of the Data API's.
func isData(path string) bool {
	for _, prefix := range []string{dataapi.Prefix, dataapi.PlainPrefix} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

func (s *server) refuse(w http.ResponseWriter, r *http.Request, api string, refuse refusal) {
	s.Meter.Shed(api)
	w.Header().Set("Retry-After", retryAfter)
	refuse(w, r, errOverloaded)
}

// admit enters the gate, or answers that there is no room any more. A request comes here once its body is read, so that one
// which arrives slowly keeps nobody out.
func (s *server) admit(w http.ResponseWriter, r *http.Request, api string, refuse refusal) bool {
	if s.gate.enter() {
		return true
	}
	s.refuse(w, r, api, refuse)
	return false
}
