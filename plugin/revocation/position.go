package revocation

import (
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
)

// position is how far a stream has been read, and whether everything up to there was. Redis counts every entry that a stream
// ever had, so an entry that was trimmed before it could be read shows in the difference to those that were.
type position struct {
	last  string    // the entry read last, from which the next read goes on
	after string    // the entry after which the last read began
	base  int64     // how many entries the stream had had when it was last found complete, or counted; -1: not known yet
	taken int64     // how many were read since
	asked *sighting // the stream as Redis described it, and not yet compared
}

// sighting is what Redis says of a stream at one moment.
type sighting struct {
	at     time.Time
	intact bool   // whether it still has the entry after which the last read began
	first  string // its oldest entry; "" for none, and from a server that does not say (Redis before 7)
	newest string // the youngest entry that it ever had
	added  int64  // how many entries it ever had; 0 from a server that does not say
}

// verdict is what comparing a sighting with what was read tells.
type verdict struct {
	*sighting       // nil: nothing new
	missed    int64 // entries that were there before the sighting and were not read
}

// take notes that the entry id was read. What was asked before it came is compared first.
func (p *position) take(id string) verdict {
	v := verdict{}
	if p.asked != nil && redisx.StreamIDLess(p.asked.newest, id) {
		v = p.compare()
	}
	p.last = id
	p.taken++
	return v
}

// end notes that a read reached the end of the stream.
func (p *position) end() verdict {
	if p.asked == nil {
		return verdict{}
	}
	return p.compare()
}

// see keeps s until all that it speaks of has been read; that may be now.
func (p *position) see(s sighting) verdict {
	p.asked = &s
	if redisx.StreamIDLess(p.last, s.newest) {
		return verdict{}
	}
	return p.compare()
}

func (p *position) compare() verdict {
	v := verdict{sighting: p.asked}
	if p.base >= 0 {
		v.missed = max(0, p.asked.added-p.base-p.taken)
	}
	p.base, p.taken, p.asked = p.asked.added, 0, nil
	return v
}

// replaced reports whether s is of another stream than the one that was read, one that may hide new entries below those that
// were read. A stream that was merely trimmed begins after where the last read began.
func (p *position) replaced(s sighting) bool {
	switch {
	case p.after == beginning:
		return false
	case s.added < p.base || redisx.StreamIDLess(s.newest, p.last):
		return true
	case s.intact:
		return false
	default:
		return s.first == "" && s.added == 0 || s.first != "" && redisx.StreamIDLess(s.first, p.after)
	}
}

// restart goes back to the beginning.
func (p *position) restart() { *p = position{last: beginning, after: beginning, base: -1} }

// beginning is where a stream begins.
const beginning = "0-0"
