package guard

import (
	"context"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Revocations knows which tokens have been ended.
type Revocations interface {
	Known() error // a fault until anything is known
	Revoked(p principal.Principal) bool
}

func (c Config) aliveNeeds(p Parts) []need {
	return []need{{"revocations", c.Identify != None, p.Revocations != nil}}
}

var errRevoked = fault.New(fault.Unauthenticated, "The session has ended.").Named("session_revoked")

func (g *Guard) alive(_ context.Context, s *state) error {
	if s.who.Anonymous() {
		return nil
	}
	err := g.Revocations.Known()
	if err == nil && g.Revocations.Revoked(s.who) {
		err = errRevoked
	}
	if err != nil {
		s.who = principal.Principal{} // in observe mode the request goes on, but nobody vouches for it
	}
	return err
}
