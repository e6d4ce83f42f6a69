// Package guard is one request's way through the edge: refuse what is ambiguous, identify, alive, limit, challenge,
// authorize, forward. It knows no Kong, no Redis and no OPA: it names what it needs of them as interfaces.
//
// Whatever fails on the way is a denial with a code of its own; nothing that goes wrong lets a request pass.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Verifier answers who a token stands for, or a fault.
type Verifier interface {
	Verify(ctx context.Context, token string) (principal.Principal, error)
}

// Revocations knows which tokens have been ended.
type Revocations interface {
	Known() error // a fault until anything is known
	Revoked(p principal.Principal) bool
}

// Limiter counts a request against limits.
type Limiter interface {
	Take(ctx context.Context, keys []limit.Key) (limit.Result, error)
}

// Challenger issues and spends challenges.
type Challenger interface {
	Issue(ctx context.Context, b challenge.Bind) (any, error)
	Spend(ctx context.Context, payload string, b challenge.Bind) error
}

// Decider asks the decision point. Any failure is a fault.
type Decider interface {
	Decide(ctx context.Context, r authzen.Request) (authzen.Response, error)
}

// Parts is what a Guard works with. Those that the configuration does not use may be nil.
type Parts struct {
	Verifier    Verifier
	Revocations Revocations
	Limiter     Limiter
	Challenger  Challenger
	Decider     Decider
	Now         func() time.Time
	NewID       func() string // UUIDv7, the id of a decision that the decision point did not make
	Log         *slog.Logger
}

// Guard checks the requests of one configuration. It is safe for concurrent use.
type Guard struct {
	Parts
	cfg      Config
	patterns []pattern
}

// New refuses a configuration that Validate refuses, or that asks for a part which is missing.
func New(cfg Config, parts Parts) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, need := range []struct {
		name   string
		wanted bool
		given  bool
	}{
		{"verifier", cfg.Identify != None, parts.Verifier != nil},
		{"revocations", cfg.Identify != None, parts.Revocations != nil},
		{"limiter", len(cfg.Limits) > 0, parts.Limiter != nil},
		{"challenger", cfg.Challenge.Always, parts.Challenger != nil},
		{"decider", cfg.Authorize, parts.Decider != nil},
		{"clock, ids and log", true, parts.Now != nil && parts.NewID != nil && parts.Log != nil},
	} {
		if need.wanted && !need.given {
			return nil, errors.New("guard: no " + need.name)
		}
	}
	return &Guard{Parts: parts, cfg: cfg, patterns: patterns(cfg.Resources)}, nil
}

// Decision is what was decided, for the log.
type Decision struct {
	ID       string
	Stage    string // where the request's way ended
	Code     string // "allowed", or the problem's code
	Allowed  bool
	Observed bool     // denied, and let pass because the mode is observe
	Reasons  []string // the policy's, for staff
	Subject  string
	Route    string
	TraceID  string
}

// Verdict is what the gateway shall do: forward the request with SetHeaders overwritten, or answer it.
type Verdict struct {
	Forward    bool
	SetHeaders map[string]string // every identity header, always; "" where nothing is known
	Status     int
	Header     map[string]string
	Body       []byte
	Decision   Decision
}

// state is one request on its way.
type state struct {
	Request
	who      principal.Principal
	decision Decision
	limits   []limit.State
	issued   any // a challenge to solve
	need     *authzen.Need
	failed   []failure // the first is the answer; more than one in observe mode only
}

// failure is a check that the request did not pass.
type failure struct {
	stage string
	err   error
}

// Check decides on one request. It never panics.
func (g *Guard) Check(ctx context.Context, r Request) (v Verdict) {
	s := &state{Request: r, decision: Decision{Route: r.Route, TraceID: traceID(r)}}
	if s.decision.TraceID == "" {
		s.decision.TraceID = web.NewTraceID()
	}
	defer func() {
		if p := recover(); p != nil {
			g.logPanic(ctx, s, p)
			v = g.deny(s, errFailed)
		}
	}()
	g.way(ctx, s)
	if s.decision.ID == "" {
		s.decision.ID = g.NewID()
	}
	if len(s.failed) == 0 {
		s.decision.Stage, s.decision.Code, s.decision.Allowed = "forward", "allowed", true
		return g.forward(s)
	}
	s.decision.Stage = s.failed[0].stage
	v = g.deny(s, s.failed[0].err)
	if g.cfg.Mode == Observe && s.decision.Stage != stageRead {
		s.decision.Observed = true
		v = g.forward(s)
	}
	for _, f := range s.failed {
		g.logDenial(ctx, s, f)
	}
	return v
}

var errFailed = fault.New(fault.Internal, "").Named("guard_failed")

// safely makes a panic in a check a failure like any other.
func (g *Guard) safely(ctx context.Context, s *state, check func(context.Context, *state) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			g.logPanic(ctx, s, p)
			err = errFailed
		}
	}()
	return check(ctx, s)
}

const stageRead = "read"

// way is the order of the checks. The first that fails ends it; in observe mode only an unreadable request does.
func (g *Guard) way(ctx context.Context, s *state) {
	for _, stage := range []struct {
		name  string
		check func(context.Context, *state) error
	}{
		{stageRead, func(context.Context, *state) error { return s.check() }},
		{"limit", g.limitByAddress}, // before anything dear: a flood of bad tokens is a flood too
		{"identify", g.identify},
		{"alive", g.alive},
		{"limit", g.limitBySubject},
		{"challenge", g.challenge},
		{"authorize", g.authorize},
	} {
		if err := g.safely(ctx, s, stage.check); err != nil {
			s.failed = append(s.failed, failure{stage.name, err})
			if g.cfg.Mode != Observe || stage.name == stageRead {
				return
			}
		}
	}
}

var (
	errNoToken   = fault.New(fault.Unauthenticated, "A bearer token is needed.").Named("token_missing")
	errIdentity  = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid").Because(errors.New("subject or tenant does not fit in a header"))
	errRevoked   = fault.New(fault.Unauthenticated, "The session has ended.").Named("session_revoked")
	errLimited   = fault.New(fault.Limited, "Too many requests; try again later.").Named("rate_limited")
	errChallenge = fault.New(fault.Forbidden, "Solve the challenge and send the request again with the header X-Gatehouse-Challenge.").Named("challenge_required")
	errForbidden = fault.New(fault.Forbidden, "You may not do this.").Named("forbidden")
	errStepUp    = fault.New(fault.Unauthenticated, "A stronger or fresher login is needed.").Named("insufficient_user_authentication")
)

func (g *Guard) identify(ctx context.Context, s *state) error {
	if g.cfg.Identify == None {
		return nil
	}
	token, err := s.token()
	if err != nil {
		return err
	}
	if token == "" {
		if g.cfg.Identify == Optional && len(s.Header["authorization"]) == 0 {
			return nil
		}
		return errNoToken
	}
	who, err := g.Verifier.Verify(ctx, token)
	switch {
	case err != nil:
		return err
	case who.Subject == "":
		return errFailed
	case !portable(who.Subject) || !portable(who.Tenant):
		return errIdentity // the upstream would read another name than the one that policy decided on
	}
	s.who, s.decision.Subject = who, who.Subject
	return nil
}

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

func (g *Guard) limitByAddress(ctx context.Context, s *state) error {
	return g.limit(ctx, s, ByAddress, network(s.Addr))
}

func (g *Guard) limitBySubject(ctx context.Context, s *state) error {
	if s.who.Anonymous() {
		return nil
	}
	return g.limit(ctx, s, BySubject, s.who.Issuer+" "+s.who.Subject)
}

// network counts an IPv6 client by its /64, which one household has whole.
func network(a netip.Addr) string {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.String()
		}
	}
	return a.String()
}

func (g *Guard) limit(ctx context.Context, s *state, by LimitKey, value string) error {
	var keys []limit.Key
	for _, l := range g.cfg.Limits {
		if l.Key == by {
			keys = append(keys, limit.Key{Name: l.Name, Rate: l.Rate, Value: s.Route + ":" + l.Name + ":" + value})
		}
	}
	if len(keys) == 0 {
		return nil
	}
	res, err := g.Limiter.Take(ctx, keys)
	if err != nil {
		return err
	}
	s.limits = append(s.limits, res.States...)
	if !res.Allowed {
		return errLimited
	}
	return nil
}

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
