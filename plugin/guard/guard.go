// Package guard is one request's way through the edge: refuse what is ambiguous, identify, alive, limit, challenge,
// authorize, forward. It knows no Kong, no Redis and no OPA: it names what it needs of them as interfaces.
//
// Whatever fails on the way is a denial with a code of its own; nothing that goes wrong lets a request pass.
package guard

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Parts is what a Guard works with. Those that the configuration does not use may be nil.
type Parts struct {
	Verifier     Verifier
	Revocations  Revocations
	Introspector Introspector
	Proofs       Proofs
	Limiter      Limiter
	Challenger   Challenger
	Clearances   *challenge.Clearances // nil: a solution is good for one request
	Failures     Failures              // nil: nobody's failures are remembered
	Decider      Decider
	Decisions    *decide.Cache // nil: every decision is asked for
	Now          func() time.Time
	NewID        func() string // UUIDv7, the id of a decision that the decision point did not make
	Log          *slog.Logger
	Asserter     Asserter
	Meter        Meter  // nil: nothing is counted
	Tracer       Tracer // nil: nothing is traced
}

// Meter is told what a guard does. It must not block.
type Meter interface {
	Passed(stage string, took time.Duration) // a request was in a stage, whatever came of it
	Failed(route, stage, reason string)      // a check was not passed; several for one request in observe mode
	Behind(route string)                     // a request went on though it is not known which sessions have ended
	Challenged(route, result string)         // what became of a request that may have had to solve a challenge
	Decided(d *Decision)                     // once for each request
}

// need is a part that a configuration may ask for.
type need struct {
	name          string
	wanted, given bool
}

// Guard checks the requests of one configuration. It is safe for concurrent use.
type Guard struct {
	Parts
	cfg      Config
	way      []stage
	patterns []pattern
	limits   []limitRule
	cors     *corsRule
	nonces   *nonces // nil where proofs need none

	saidBehind, saidUnproved atomic.Int64 // UnixMilli

	upstreamHeaders, responseHeaders []string // that decisions may set
}

// New refuses a configuration that Validate refuses, or that asks for a part which is missing.
func New(cfg Config, parts Parts) (*Guard, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	wanted := slices.Concat(
		cfg.identifyNeeds(parts), cfg.aliveNeeds(parts), cfg.limitNeeds(parts), cfg.challengeNeeds(parts), cfg.authorizeNeeds(parts), cfg.forwardNeeds(parts),
		[]need{{"clock, ids and log", true, parts.Now != nil && parts.NewID != nil && parts.Log != nil}},
	)
	for _, n := range wanted {
		if n.wanted && !n.given {
			return nil, errors.New("guard: no " + n.name)
		}
	}
	g := &Guard{
		Parts: parts, cfg: cfg, patterns: patterns(cfg.Resources),
		upstreamHeaders: canonicalNames(cfg.Obligations.UpstreamHeaders), responseHeaders: canonicalNames(cfg.Obligations.ResponseHeaders),
	}
	var err error
	if g.limits, err = limitRules(cfg.Limits); err != nil {
		return nil, err
	}
	if g.nonces, err = newNonces(cfg.DPoP.Nonce); err != nil {
		return nil, err
	}
	g.cors = cfg.corsRule()
	g.way = g.stages()
	return g, nil
}

// Decision is what was decided, for the log.
type Decision struct {
	ID       string
	Stage    string // where the request's way ended
	Code     string // "allowed", or the problem's code
	Allowed  bool
	Observed bool     // denied, and let pass because the mode is observe
	Reasons  []string // the policy's, for staff
	Rules    []string // ids of the rules that a denial came to be by, for staff
	Subject  string
	Route    string
	TraceID  string
}

// Outcome is allowed, denied or observed.
func (d *Decision) Outcome() string {
	switch {
	case d.Allowed:
		return "allowed"
	case d.Observed:
		return "observed"
	}
	return "denied"
}

// Verdict is what the gateway shall do: forward the request with SetHeaders overwritten, or answer it with Status (204 for a
// preflight, 303 to the log-in, or 4xx and 5xx), Header and Body.
type Verdict struct {
	Forward    bool
	Served     bool              // not forwarded and not denied: the edge itself has what was asked for
	SetHeaders map[string]string // every identity header, always; "" where nothing is known
	Respond    map[string]string // headers for the client on the upstream's answer; nil for none
	Status     int
	Header     map[string]string
	Body       []byte
	Decision   Decision
}

// state is one request on its way.
type state struct {
	Request
	shown credential
	// preflighted: a CORS preflight, whose way ends before anybody is asked for a token
	preflighted bool
	who         principal.Principal
	decision    Decision
	limits      []limit.State
	counted     bool // against the limits
	issued      any  // a challenge to solve
	risk        int  // 0 to 100
	// failedLogins of the client's network, where the route asks for them
	failedLogins int
	served       *Verdict          // the edge's own answer, which ends the way
	response     map[string]string // headers for the client, whether the request is forwarded or answered
	target       target
	need         *authzen.Need
	asserted     string
	upstream     map[string]string // headers that a decision sets
	failed       []failure         // the first is the answer; more than one in observe mode only
	trace        Trace             // nil where nothing is traced
}

// respond sets a header of the answer to the client, whoever gives it. The stage vouches for the value.
func (s *state) respond(name, value string) {
	if s.response == nil {
		s.response = map[string]string{}
	}
	s.response[name] = value
}

// toUpstream sets a header of the request that goes on.
func (s *state) toUpstream(name, value string) {
	if s.upstream == nil {
		s.upstream = map[string]string{}
	}
	s.upstream[name] = value
}

// failure is a check that the request did not pass.
type failure struct {
	stage string
	err   error
}

// Check decides on one request. It never panics.
func (g *Guard) Check(ctx context.Context, r Request) Verdict {
	s := &state{Request: r, decision: Decision{Route: r.Route}}
	if g.Tracer != nil {
		return g.checkTraced(ctx, s)
	}
	if s.decision.TraceID = traceID(r); s.decision.TraceID == "" {
		s.decision.TraceID = web.NewTraceID()
	}
	return g.checked(ctx, s)
}

func (g *Guard) checked(ctx context.Context, s *state) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			g.logPanic(ctx, s, p)
			s.failed, s.decision.Allowed, s.decision.Observed = nil, false, false
			v = g.deny(s, errFailed)
			if g.cors != nil {
				g.cors.mark(s.Request, &v)
			}
			g.count(s)
		}
	}()
	v = g.decided(ctx, s)
	if g.cors != nil {
		g.cors.mark(s.Request, &v)
	}
	g.count(s)
	return v
}

// decided goes the way and answers what it led to.
func (g *Guard) decided(ctx context.Context, s *state) Verdict {
	if s.served = Asset(&s.Request); s.served == nil {
		g.through(ctx, s)
	}
	g.identifyDecision(s)
	if len(s.failed) == 0 && s.preflighted {
		s.decision.Stage, s.decision.Code, s.decision.Allowed = stageCORS, "preflight", true
		if !g.cors.Upstream {
			return g.permit(s)
		}
		return g.forward(s)
	}
	if len(s.failed) == 0 && s.served != nil {
		return g.serve(s)
	}
	if len(s.failed) == 0 {
		s.decision.Stage, s.decision.Code, s.decision.Allowed = stageForward, "allowed", true
		return g.forward(s)
	}
	s.decision.Stage = s.failed[0].stage
	v := g.refusal(s, s.failed[0].err)
	if g.cfg.Mode == Observe && s.decision.Stage != stageRead {
		s.decision.Observed = true
		v = g.forward(s)
	}
	for _, f := range s.failed {
		g.logDenial(ctx, s, f)
	}
	return v
}

// identifyDecision gives the decision an id where the decision point gave none.
func (g *Guard) identifyDecision(s *state) {
	if s.decision.ID == "" {
		s.decision.ID = g.NewID()
	}
}

// count remembers what the request failed at, and tells the meter what became of it.
func (g *Guard) count(s *state) {
	g.remember(s)
	if g.Meter == nil {
		return
	}
	for _, f := range s.failed {
		g.Meter.Failed(s.Route, f.stage, faultOf(f.err).Reason)
	}
	g.Meter.Decided(&s.decision)
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

// The names of the stages, in metrics and in the log.
const (
	stageRead      = "read"
	stageCORS      = "cors"
	stageLimit     = "limit"
	stageIdentify  = "identify"
	stageAlive     = "alive"
	stageChallenge = "challenge"
	stageAuthorize = "authorize"
	stageForward   = "forward"
)

// stage is one check on the way.
type stage struct {
	name   string
	check  func(context.Context, *state) error
	traced bool // whether it is work that is worth a span
}

// stages is the order of the checks.
func (g *Guard) stages() []stage {
	c := &g.cfg
	return []stage{
		{stageRead, g.read, false},
		{stageCORS, g.preflight, false},
		{stageLimit, g.limitKnown, false},
		{stageIdentify, g.limiting(g.identify), c.Identify != None},
		{stageAlive, g.limiting(g.alive), c.Identify != None},
		{stageLimit, g.limitAll, len(g.limits) > 0 || c.Challenge.countsLogins()},
		{stageChallenge, g.challenge, c.Challenge.on()},
		{stageAuthorize, g.authorize, c.Authorize},
		{stageForward, g.assert, true},
	}
}

// read refuses what could be understood in more than one way. Tokens are looked for on every route: an upstream may look where
// we do not.
func (g *Guard) read(_ context.Context, s *state) error {
	if err := s.check(); err != nil {
		return err
	}
	var err error
	s.shown, err = g.credential(s.Request)
	return err
}

// Stages lists the names of the stages in their order, each once.
func Stages() []string {
	return []string{stageRead, stageCORS, stageLimit, stageIdentify, stageAlive, stageChallenge, stageAuthorize, stageForward}
}

// through goes the way. The first check that fails ends it; in observe mode only an unreadable request does.
func (g *Guard) through(ctx context.Context, s *state) {
	begun := g.Now()
	for _, stage := range g.way {
		err := g.pass(ctx, s, stage)
		if g.Meter != nil {
			now := g.Now()
			g.Meter.Passed(stage.name, now.Sub(begun))
			begun = now
		}
		if err != nil {
			s.failed = append(s.failed, failure{stage.name, err})
			if g.cfg.Mode != Observe || stage.name == stageRead {
				return
			}
		}
		if s.preflighted || s.served != nil {
			return
		}
	}
}
