package guard

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Decider asks the decision point. Any failure is a fault.
type Decider interface {
	Decide(ctx context.Context, r authzen.Request) (authzen.Response, error)
	// DecideAll asks at once for the decisions on several resources, all else being as in about. They come in order; behind the first
	// denial there may be none.
	DecideAll(ctx context.Context, about authzen.Request, on []authzen.Resource) ([]authzen.Response, error)
}

// Resource names what a path stands for: {id} in a pattern is one segment.
type Resource struct {
	Pattern, Type string
	Action        string // that the policy sees; "" for the method
	IDs           IDs    // where the objects are named, if not in the path
}

// PDP is where decisions are made.
type PDP struct {
	URL     string
	Others  []string      // decision points that decide alike, asked in this order when URL is not well
	Timeout time.Duration // of a decision, whoever makes it
	Cache   DecisionCache

	Token telemetry.Secret // shown to all of them; "" for none
	TLS   PDPFiles
}

// PDPFiles are PEM files for decision points with https.
type PDPFiles struct {
	CA        string // the authorities that theirs is believed from; "" for the system's
	Cert, Key string // shown to them; "" for none
}

// DecisionCache bounds what is remembered of decisions. It remembers only what the decision point lets it.
type DecisionCache struct {
	TTL     time.Duration // at most; 0 for no cache
	Entries int
}

// Obligations lists the headers that a decision may set; all others it may not.
type Obligations struct{ UpstreamHeaders, ResponseHeaders []string }

// maxDecisionTTL bounds how long a decision may be remembered.
const maxDecisionTTL = 2 * time.Second

func (c Config) validateAuthorize(wrong reject) {
	if c.Authorize {
		if c.PDP.URL == "" {
			wrong("pdp.url", "is needed unless authorize is false")
		}
		if c.PDP.Timeout <= 0 {
			wrong("pdp.timeout_ms", "expected a time above zero")
		}
		if token := c.PDP.Token.Reveal(); strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			wrong("pdp.token", "expected visible ASCII characters without spaces")
		}
		if files := c.PDP.TLS; (files.Cert == "") != (files.Key == "") {
			wrong("pdp.cert_file", "a certificate needs its key_file, and a key its cert_file")
		}
		if ttl := c.PDP.Cache.TTL; ttl < 0 || ttl > maxDecisionTTL {
			wrong("pdp.cache_ttl_ms", "expected from 0 to %d", maxDecisionTTL.Milliseconds())
		}
		if c.PDP.Cache.TTL > 0 && c.PDP.Cache.Entries <= 0 {
			wrong("pdp.cache_entries", "expected a number above zero")
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
		r.validateIDs(at, wrong)
	}
	for i, name := range c.Obligations.UpstreamHeaders {
		if why := reserved(name, upstreamReserved); why != "" {
			wrong(fmt.Sprintf("obligations.upstream_headers[%d]", i+1), "%s", why)
		}
	}
	for i, name := range c.Obligations.ResponseHeaders {
		if why := reserved(name, responseReserved); why != "" {
			wrong(fmt.Sprintf("obligations.response_headers[%d]", i+1), "%s", why)
		}
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
	var err error
	if s.target, err = g.target(&s.Request); err != nil {
		return err
	}
	if s.target.IDs.elsewhere() {
		return g.authorizeNamed(ctx, s)
	}
	answer, err := g.decide(ctx, s)
	if err != nil {
		return err
	}
	return g.follow(s, answer)
}

// follow does what decisions say: to go on, all have to allow it. The first denial, else the first allowance, is what headers and
// log tell of; the decision point logs them all.
func (g *Guard) follow(s *state, answers ...authzen.Response) error {
	answer := answers[0]
	for _, a := range answers {
		if !a.Decision {
			answer = a
			break
		}
	}
	if c := answer.Context; c != nil {
		s.decision.Reasons, s.decision.Rules, s.need = c.Reasons, c.Rules, c.Need
		if isToken(c.DecisionID) && len(c.DecisionID) <= maxID { // it becomes a header
			s.decision.ID = c.DecisionID
		}
	}
	switch {
	case answer.Decision:
		for _, a := range answers {
			if err := g.oblige(s, a.Context); err != nil {
				return err
			}
		}
		return nil
	case s.need != nil:
		return errStepUp
	default:
		return errForbidden
	}
}

// decide answers what is remembered, or else what the decision point says.
func (g *Guard) decide(ctx context.Context, s *state) (authzen.Response, error) {
	if g.Decisions == nil {
		return g.Decider.Decide(ctx, s.evaluation())
	}
	q := &question{state: s, target: s.target}
	if answer, known := g.Decisions.Recall(q); known {
		return answer, nil
	}
	asked := g.Now()
	answer, err := g.Decider.Decide(ctx, q.evaluation())
	if err == nil {
		g.Decisions.Keep(q, answer, asked)
	}
	return answer, err
}

// evaluation is the question in the decision point's words.
func (s *state) evaluation() authzen.Request {
	return s.evaluationOf(s.target)
}

func (s *state) evaluationOf(t target) authzen.Request {
	return evaluation(s.Request, s.action(), t.resource(s.Route), s.who, s.decision.TraceID)
}

// action is what the policy sees: the resource's own word, or the method.
func (s *state) action() string {
	if s.target.pattern != nil && s.target.Action != "" {
		return s.target.Action
	}
	return s.Request.action()
}
