// Package revocation knows which tokens have been ended before they expire. The set is in memory, fed by the Redis stream
// that authsvc writes, so that a look-up costs no round trip and a logout holds at every edge within a second.
package revocation

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
)

// ErrUnknown is what Known answers before the stream has been read once: nobody can say who is alive.
var ErrUnknown = fault.New(fault.Unavailable, "Ended sessions are not known yet.").Named("revocations_unknown")

type key struct{ kind, value string }

// ending is how long an entry matters, and for a subject, which tokens it ends.
type ending struct{ notBefore, expires int64 } // milliseconds since 1970; notBefore 0: all tokens

// Set is the revocations that still matter. It is safe for concurrent use.
type Set struct {
	now func() time.Time

	mu      sync.RWMutex
	entries map[key]ending
	sweepAt time.Time

	known   atomic.Bool
	current atomic.Int64 // when the set last knew that it had read everything; UnixMilli
}

// New makes a set that knows nothing yet.
func New(now func() time.Time) *Set {
	return &Set{now: now, entries: map[key]ending{}}
}

// Known answers ErrUnknown until the stream has been read once.
func (s *Set) Known() error {
	if !s.known.Load() {
		return ErrUnknown
	}
	return nil
}

// Lag is how long ago the set last knew that nothing was missing.
func (s *Set) Lag() time.Duration {
	return s.now().Sub(time.UnixMilli(s.current.Load()))
}

// Revoked reports whether the token that p was read from has been ended.
func (s *Set) Revoked(p principal.Principal) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(s.entries) == 0 {
		return false
	}
	now, issued := s.now().UnixMilli(), p.IssuedAt.UnixMilli()
	return s.ended(redisx.KindSession, p.SessionID, now, issued) ||
		s.ended(redisx.KindSubject, p.Subject, now, issued) ||
		s.ended(redisx.KindToken, p.TokenID, now, issued) ||
		s.ended(redisx.KindClient, p.ClientID, now, issued) ||
		s.ended(redisx.KindKey, p.KeyID, now, issued)
}

// ended compares a token's whole-second iat with the milliseconds of the revocation in the token's disfavour: one issued
// within the same second counts as issued before.
func (s *Set) ended(kind, value string, now, issued int64) bool {
	if value == "" {
		return false
	}
	e, ok := s.entries[key{kind, value}]
	return ok && now < e.expires && (e.notBefore == 0 || issued <= e.notBefore)
}

// add puts r in, keeping whichever of two entries for the same value ends more.
func (s *Set) add(r redisx.Revocation) {
	now := s.now()
	if !now.Before(r.ExpiresAt) {
		return
	}
	e := ending{expires: r.ExpiresAt.UnixMilli()}
	if r.Kind == redisx.KindSubject {
		e.notBefore = r.NotBefore.UnixMilli()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := key{r.Kind, r.Value}
	if old, ok := s.entries[k]; ok {
		e.expires, e.notBefore = max(e.expires, old.expires), max(e.notBefore, old.notBefore)
	}
	s.entries[k] = e
}

const sweepEvery = time.Minute

// forget drops what has expired, at most once a minute.
func (s *Set) forget() {
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Before(s.sweepAt) {
		return
	}
	s.sweepAt = now.Add(sweepEvery)
	for k, e := range s.entries {
		if now.UnixMilli() >= e.expires {
			delete(s.entries, k)
		}
	}
}

// Len is the number of entries held.
func (s *Set) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.entries)
}
