package guard

import (
	"context"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// Challenger issues and spends challenges.
type Challenger interface {
	Issue(ctx context.Context, b challenge.Bind) (any, error)
	Spend(ctx context.Context, payload string, b challenge.Bind) error
}

// Challenge says when a proof of work is asked for.
type Challenge struct {
	Always    bool
	Action    string
	Secret    telemetry.Secret
	MaxNumber int64
	TTL       time.Duration
}

func (c Config) validateChallenge(wrong reject) {
	if c.Challenge.Always && c.Challenge.Action == "" {
		wrong("challenge.action", "is needed")
	}
	if c.Challenge.Always && c.RedisURL == "" {
		wrong("redis_url", "is needed for challenges")
	}
}

func (c Config) challengeNeeds(p Parts) []need {
	return []need{{"challenger", c.Challenge.Always, p.Challenger != nil}}
}

var errChallenge = fault.New(fault.Forbidden, "Solve the challenge and send the request again with the header X-Gatehouse-Challenge.").Named("challenge_required")

func (g *Guard) challenge(ctx context.Context, s *state) error {
	if !g.cfg.Challenge.Always {
		return nil
	}
	bind := challenge.Bind{Action: g.cfg.Challenge.Action, Route: s.Route, Addr: s.Addr}
	payload, given := s.header("x-gatehouse-challenge")
	refused := error(errChallenge)
	if given {
		if refused = g.Challenger.Spend(ctx, payload, bind); refused == nil {
			return nil
		}
		if fault.CodeOf(refused) != fault.Forbidden {
			return refused
		}
	}
	issued, err := g.Challenger.Issue(ctx, bind)
	if err != nil {
		return err
	}
	s.issued = issued
	return refused
}
