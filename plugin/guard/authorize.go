package guard

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Decider asks the decision point. Any failure is a fault.
type Decider interface {
	Decide(ctx context.Context, r authzen.Request) (authzen.Response, error)
}

// Resource names what a path stands for: {id} in a pattern is one segment.
type Resource struct{ Pattern, Type string }

// PDP is where decisions are made.
type PDP struct {
	URL     string
	Timeout time.Duration
}

func (c Config) validateAuthorize(wrong reject) {
	if c.Authorize {
		if c.PDP.URL == "" {
			wrong("pdp.url", "is needed unless authorize is false")
		}
		if c.PDP.Timeout <= 0 {
			wrong("pdp.timeout_ms", "expected a time above zero")
		}
		if len(c.Resources) == 0 {
			wrong("resources", "at least one is needed unless authorize is false")
		}
	}
	shapes := map[string]bool{}
	for i, r := range c.Resources {
		shape, at := r.shape(), fmt.Sprintf("resources[%d]", i+1)
		if shape == "" || r.Type == "" {
			wrong(at, "expected a type and a pattern such as /orders/{id}, without a slash at its end")
		} else if shapes[shape] {
			wrong(at, "an earlier pattern matches the same paths")
		}
		shapes[shape] = true
	}
}

func (c Config) authorizeNeeds(p Parts) []need {
	return []need{{"decider", c.Authorize, p.Decider != nil}}
}

var (
	errForbidden = fault.New(fault.Forbidden, "You may not do this.").Named("forbidden")
	errStepUp    = fault.New(fault.Unauthenticated, "A stronger or fresher login is needed.").Named("insufficient_user_authentication")
)

const maxID = 64 // bytes of a decision id

func (g *Guard) authorize(ctx context.Context, s *state) error {
	if !g.cfg.Authorize {
		return nil
	}
	res, err := g.resource(s.Request)
	if err != nil {
		return err
	}
	answer, err := g.Decider.Decide(ctx, evaluation(s.Request, res, s.who, s.decision.TraceID))
	if err != nil {
		return err
	}
	if c := answer.Context; c != nil {
		s.decision.Reasons, s.need = c.Reasons, c.Need
		if isToken(c.DecisionID) && len(c.DecisionID) <= maxID { // it becomes a header
			s.decision.ID = c.DecisionID
		}
	}
	switch {
	case answer.Decision:
		return nil
	case s.need != nil:
		return errStepUp
	default:
		return errForbidden
	}
}
