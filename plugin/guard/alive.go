package guard

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Revocations knows which tokens have been ended.
type Revocations interface {
	Known() error       // a fault until anything is known
	Lag() time.Duration // how long ago nothing was missing
	Revoked(p principal.Principal) bool
}

// Introspector asks the token's issuer whether it is alive (RFC 7662).
type Introspector interface {
	// Active reports whether the token, from which p was read, is active now. An error says that nobody knows.
	Active(ctx context.Context, token string, p principal.Principal) (bool, error)
}

// Behind says what becomes of a request with a token while it is not known which tokens have been ended lately.
type Behind string

// What to do then: Deny (also ""), Introspect (ask the issuer, and deny if it cannot be asked), Continue (go by what is known,
// count it and log it; before anything is known at all, deny).
const (
	Deny       Behind = "deny"
	Introspect Behind = "introspect"
	Continue   Behind = "continue"
)

// DefaultMaxLag is how far the revocations may be behind where nothing else is configured.
const DefaultMaxLag = 5 * time.Second

// Alive says how current the revocations must be.
type Alive struct {
	MaxLag time.Duration // 0 for DefaultMaxLag
	Behind Behind
}

func (c Config) validateAlive(wrong reject) {
	if c.Alive.MaxLag < 0 {
		wrong("revocation.max_lag_seconds", "expected a time above zero")
	}
	switch c.Alive.Behind {
	case "", Deny, Continue:
	case Introspect:
		if c.Identify == None {
			wrong("revocation.when_behind", "introspect needs identify")
		}
		for i, is := range c.Issuers {
			if is.Introspection.URL == "" {
				wrong(fmt.Sprintf("issuers[%d].introspection.url", i+1), "is needed for revocation.when_behind: introspect")
			}
		}
	default:
		wrong("revocation.when_behind", "expected deny, introspect or continue")
	}
}

func (c Config) aliveNeeds(p Parts) []need {
	return []need{
		{"revocations", c.Identify != None, p.Revocations != nil},
		{"introspector", c.Alive.Behind == Introspect, p.Introspector != nil},
	}
}

var (
	errRevoked = fault.New(fault.Unauthenticated, "The session has ended.").Named("session_revoked")
	errBehind  = fault.New(fault.Unavailable, "It is not known at the moment which sessions have ended; try again later.").Named("revocations_behind")
)

func (g *Guard) alive(ctx context.Context, s *state) error {
	if s.who.Anonymous() {
		return nil
	}
	err := g.isAlive(ctx, s)
	if err != nil {
		s.who = principal.Principal{} // in observe mode the request goes on, but nobody vouches for it
	}
	return err
}

func (g *Guard) isAlive(ctx context.Context, s *state) error {
	unknown := g.Revocations.Known()
	if unknown == nil && g.Revocations.Revoked(s.who) {
		return errRevoked
	}
	most := g.cfg.Alive.MaxLag
	if most == 0 {
		most = DefaultMaxLag
	}
	lag := g.Revocations.Lag()
	if unknown == nil && lag <= most {
		return nil
	}
	switch {
	case g.cfg.Alive.Behind == Introspect:
		return g.introspect(ctx, s)
	case unknown != nil:
		return unknown
	case g.cfg.Alive.Behind == Continue:
		g.continued(ctx, s, lag)
		return nil
	default:
		return errBehind
	}
}

func (g *Guard) introspect(ctx context.Context, s *state) error {
	active, err := g.Introspector.Active(ctx, s.shown.token, s.who)
	switch {
	case err != nil:
		return errBehind.Because(err)
	case !active:
		return errRevoked
	}
	return nil
}

// sayBehind is how often a guard says that it goes on though it is behind.
const sayBehind = 10 * time.Second

// continued tells that a request went on though its session may have ended.
func (g *Guard) continued(ctx context.Context, s *state, lag time.Duration) {
	if g.Meter != nil {
		g.Meter.Behind(s.Route)
	}
	now := g.Now().UnixMilli()
	if last := g.saidBehind.Load(); now-last >= sayBehind.Milliseconds() && g.saidBehind.CompareAndSwap(last, now) {
		g.Log.WarnContext(ctx, "revocations are behind; requests go on by what is known", "route", s.Route, "lag_seconds", lag.Seconds())
	}
}
