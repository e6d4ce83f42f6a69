package challenge

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// loginWindow is how long a failed log-in counts; two weighted windows, as for limits.
const loginWindow = 10 * time.Minute

// manyLogins is never reached: failed log-ins are counted, and limit nothing.
const manyLogins = 1 << 40

// FailedLogin counts, by a limiter, one failed log-in of the client's network against all edges that share a Redis. A log-in that
// succeeds takes nothing back: who tries other people's passwords may have an account of their own.
func FailedLogin(a netip.Addr) limit.Key {
	const name = "failed-logins"
	return limit.Key{Name: name, Value: name + ":" + network(a), Rate: limit.Rate{Limit: manyLogins, Period: loginWindow}}
}

// FailedLogins only looks at what FailedLogin counts; Counted reads the answer.
func FailedLogins(a netip.Addr) limit.Key {
	k := FailedLogin(a)
	k.Cost = limit.Peek
	return k
}

// Counted answers how many log-ins have failed, by the state of FailedLogins. A limiter without Redis knows this process's own.
func Counted(s limit.State) int { return int(s.Rate.Limit - s.Remaining) }

// Answer is what a gateway tells of an answer that it has given to a client.
type Answer struct {
	Request  string // the gateway's id of the request, the same when it tells of it twice; "" where it gives none
	Route    string
	Status   int
	Upstream bool       // whether it is the upstream's, and not the gateway's own
	Addr     netip.Addr // the client's; the zero Addr where the gateway does not tell
}

// Limiter counts.
type Limiter interface {
	Take(ctx context.Context, id string, keys []limit.Key) (limit.Result, error)
}

// What became of answers, for Logins' Meter.
const (
	AnswerFailed  = "failed"  // counted
	AnswerPassed  = "passed"  // no failed log-in
	AnswerUnknown = "unknown" // a failed log-in of nobody knows whom, or one that could not be counted
)

// Logins counts failed log-ins by the answers of upstreams.
type Logins struct {
	Statuses []int // of an answer to a failed log-in
	Limiter  Limiter
	Meter    func(route, result string)
}

// Told takes one answer. What a gateway itself has refused is no failed log-in: it never got to the upstream.
func (l *Logins) Told(ctx context.Context, a Answer) {
	result := AnswerPassed
	if a.Upstream && slices.Contains(l.Statuses, a.Status) {
		result = l.count(ctx, a)
	}
	l.Meter(a.Route, result)
}

func (l *Logins) count(ctx context.Context, a Answer) string {
	if !a.Addr.IsValid() { // else all who are unknown would pay for one
		return AnswerUnknown
	}
	id := a.Request
	if id != "" {
		id = "answer:" + id // the request itself has been counted by its id
	}
	if _, err := l.Limiter.Take(ctx, id, []limit.Key{FailedLogin(a.Addr)}); err != nil {
		return AnswerUnknown
	}
	return AnswerFailed
}
