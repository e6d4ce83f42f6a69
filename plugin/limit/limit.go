// Package limit counts requests against the limits of a route. The counts live in Redis, under the keys and in the form of
// ulule/limiter, so that all plugin processes share them; while Redis is away each process counts for its share. What a
// request costs is one round trip, and nothing where a limit is known to be spent.
//
// docs/adr/limit-windows.md says why the windows are as they are.
package limit

import (
	"errors"
	"time"

	"github.com/ulule/limiter/v3"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// ErrAway is the answer to a request with a strict limit while Redis is away.
var ErrAway = fault.New(fault.Unavailable, "Requests cannot be counted at the moment; try again later.").Named("limits_unavailable")

// Rate is how many requests may pass in one window.
type Rate struct {
	Limit  int64
	Period time.Duration
}

// ParseRate reads ulule/limiter's form: "60-M" is 60 in a minute; S, M, H and D are the periods.
func ParseRate(s string) (Rate, error) {
	r, err := limiter.NewRateFromFormatted(s)
	if err != nil || r.Limit <= 0 {
		return Rate{}, errors.New(`expected a number, "-" and one of S, M, H, D, such as 60-M`)
	}
	return Rate{Limit: r.Limit, Period: r.Period}, nil
}

// Key is one limit as it applies to one request.
type Key struct {
	Name   string // of the limit, shown to the caller
	Value  string // what is counted: the limit's name, its kind and whose request it is
	Rate   Rate
	Cost   int64 // what the request takes of the limit; 0 counts as 1, and Peek takes nothing
	Fixed  bool  // count in windows one after another, of which two may be emptied at their edge; else two weighted windows
	Strict bool  // deny while Redis is away
}

// Peek is the cost of a request that only looks.
const Peek = -1

func (k Key) cost() int64 {
	switch k.Cost {
	case Peek:
		return 0
	case 0:
		return 1
	default:
		return k.Cost
	}
}

// State is where one limit stands after this request was counted.
type State struct {
	Name      string
	Rate      Rate
	Remaining int64
	Reset     time.Duration // until the window ends or, for an exceeded limit, until there is room for such a request
	Exceeded  bool
}

// Result is where the limits of a request stand.
type Result struct {
	Allowed  bool
	States   []State // of all limits, or of those alone that are known to be spent
	Degraded bool    // counted by this process alone
	Repeated bool    // the request had been counted before, and was not again; States may be empty
}

// usage is what has been counted for one key.
type usage struct {
	fits         bool
	count        int64 // in the window that is open
	ttl          int64 // until what was counted in it no longer matters, in milliseconds
	before, left int64 // what the window before it counted, and how long that still matters
}

// weighted is how much of the limit is used.
func (u usage) weighted(period int64) float64 {
	return float64(u.count) + float64(u.before)*float64(u.left)/float64(period)
}

// state tells of u what the caller is told of k.
func (u usage) state(k Key) State {
	period := k.Rate.Period.Milliseconds()
	s := State{Name: k.Name, Rate: k.Rate, Exceeded: !u.fits, Remaining: max(0, k.Rate.Limit-int64(ceil(u.weighted(period))))}
	wait := u.ttl
	switch {
	case k.Fixed:
	case u.fits:
		wait -= period
	default:
		wait = u.wait(k, period)
	}
	s.Reset = min(max(time.Duration(wait)*time.Millisecond, time.Millisecond), 2*k.Rate.Period)
	return s
}

func ceil(f float64) float64 {
	if i := float64(int64(f)); i == f {
		return i
	}
	return float64(int64(f) + 1)
}

// wait is how long nothing may happen until a request of k's cost fits into two weighted windows, in milliseconds.
func (u usage) wait(k Key, period int64) int64 {
	room := float64(k.Rate.Limit - k.cost())
	if room < 0 {
		return period
	}
	if c := float64(u.count); c > room { // not before the open window is the one before, and has lost enough weight
		return u.ttl - period + int64(ceil(float64(period)*(1-room/c)))
	}
	if u.before == 0 {
		return 1
	}
	return u.left - int64((room-float64(u.count))*float64(period)/float64(u.before))
}
