// Package revocation knows which tokens have been ended before they expire. The set is in memory, fed by the Redis stream
// that authsvc writes, so that a look-up costs no round trip and a logout holds at every edge within a second.
package revocation

import (
	"hash/maphash"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
)

// ErrUnknown is what Known answers before the stream has been read once: nobody can say who is alive.
var ErrUnknown = fault.New(fault.Unavailable, "Ended sessions are not known yet.").Named("revocations_unknown")

// kinds are in the order in which Revoked asks for them.
var kinds = [5]string{redisx.KindSession, redisx.KindSubject, redisx.KindToken, redisx.KindClient, redisx.KindKey}

// Set is the revocations that still matter. It is safe for concurrent use.
type Set struct {
	now  func() time.Time
	life time.Duration

	table table
	seeds [5]maphash.Seed // one per kind, so that a sid never answers for a jti

	sweepAt time.Time // Run's goroutine's

	known   atomic.Bool
	read    chan struct{} // closed when it becomes known
	current atomic.Int64  // when the set last knew that nothing was missing; UnixMilli
}

// New makes a set that knows nothing yet. life is the longest that any token lives: entries are held no longer, but for those
// of a withdrawn key, by whose thief new tokens can be made.
func New(now func() time.Time, life time.Duration) *Set {
	s := &Set{now: now, life: life, read: make(chan struct{})}
	for k := range s.seeds {
		s.seeds[k] = maphash.MakeSeed()
	}
	return s
}

// Known answers ErrUnknown until the stream has been read once.
func (s *Set) Known() error {
	if !s.known.Load() {
		return ErrUnknown
	}
	return nil
}

// Read is closed when the stream has been read once.
func (s *Set) Read() <-chan struct{} { return s.read }

// Lag is how long ago the set last knew that nothing was missing: a second at most while all is well. It grows while Redis is
// away, and while entries are known to have been trimmed from the stream unread.
func (s *Set) Lag() time.Duration {
	at := s.current.Load()
	if at == 0 {
		return math.MaxInt64
	}
	return s.now().Sub(time.UnixMilli(at))
}

// Revoked reports whether the token that p was read from has been ended. It allocates nothing and takes no lock.
func (s *Set) Revoked(p principal.Principal) bool {
	// All look-ups before any verdict, so that they wait for memory together.
	session, subject := s.find(0, p.SessionID), s.find(1, p.Subject)
	token, client, key := s.find(2, p.TokenID), s.find(3, p.ClientID), s.find(4, p.KeyID)
	if session|subject|token|client|key == 0 {
		return false
	}
	now, issued := s.now().Unix(), p.IssuedAt.Unix()
	return session.ends(now, issued) || subject.ends(now, issued) || token.ends(now, issued) || client.ends(now, issued) || key.ends(now, issued)
}

// find looks for a value of a kind, by the kind's place in kinds.
func (s *Set) find(kind int, value string) ending {
	if value == "" {
		return 0
	}
	return s.table.find(spread(s.seeds[kind], value))
}

// ends compares in the token's disfavour: one issued within the same second as the revocation counts as issued before.
func (e ending) ends(now, issued int64) bool {
	return e != 0 && now < e.expires() && issued <= e.since()
}

// add puts r in, keeping whatever of two entries for the same value ends more.
func (s *Set) add(r redisx.Revocation) {
	now := s.now()
	until := r.ExpiresAt
	if latest := now.Add(s.life); r.Kind != redisx.KindKey && until.After(latest) {
		until = latest
	}
	if !now.Before(until) {
		return
	}
	k := slices.Index(kinds[:], r.Kind)
	if k < 0 {
		return // ParseRevocation answers no such kind
	}
	since := uint32(always)
	if r.Kind == redisx.KindSubject {
		since = seconds(r.NotBefore.Unix())
	}
	s.table.add(spread(s.seeds[k], r.Value), newEnding(until.UnixMilli(), since))
}

const sweepEvery = time.Minute

// forget drops what has expired, at most once a minute.
func (s *Set) forget() {
	if now := s.now(); !now.Before(s.sweepAt) {
		s.sweepAt = now.Add(sweepEvery)
		s.table.sweep(now.Unix())
	}
}

// Len is the number of entries held.
func (s *Set) Len() int { return s.table.len() }
