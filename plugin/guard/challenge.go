package guard

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// Challenger issues and spends challenges.
type Challenger interface {
	// Issue answers what the client has to solve. The work may follow the risk, 0 to 100.
	Issue(ctx context.Context, b challenge.Bind, risk int) (any, error)
	// Spend takes a solution for the request of that id ("" for none), once.
	Spend(ctx context.Context, payload string, b challenge.Bind, request string) error
}

// When says which requests must solve a challenge.
type When string

// The times of a challenge: Never (also ""), Risky (from a threshold on), Always.
const (
	Never  When = "never"
	Risky  When = "risk"
	Always When = "always"
)

// Challenge says when a challenge is asked for, who sets it, and what a solved one is good for.
type Challenge struct {
	When      When
	Action    string
	Secret    telemetry.Secret // signs proofs of work and clearances
	MaxNumber int64
	TTL       time.Duration
	Page      bool // answer browser navigations by a page that solves it
	Clearance Clearance
	Provider  Provider
	Risk      Risk
}

// Clearance says how long, and by what, a solved challenge clears a client.
type Clearance struct {
	TTL time.Duration // 0 for none: every request solves its own
	By  Carrier
}

// Carrier is what bears a clearance.
type Carrier string

// The carriers: InCookie (also ""), InHeader (X-Gatehouse-Clearance, for clients without cookies), InBoth.
const (
	InCookie Carrier = "cookie"
	InHeader Carrier = "header"
	InBoth   Carrier = "both"
)

func (c Carrier) cookie() bool { return c != InHeader }
func (c Carrier) header() bool { return c == InHeader || c == InBoth }

// Provider says who sets and checks challenges.
type Provider struct {
	Name         challenge.Provider // "" for a proof of work of our own
	URL          string             // of siteverify, where it is not the provider's own
	SiteKey      string
	Secret       telemetry.Secret
	Hostnames    []string
	MinScore     float64 // 0 to 1
	SendAddress  bool
	AllowPrivate bool
	Timeout      time.Duration
	WhenAway     Away
}

// Away says what becomes of a request with a solution while nobody can say whether it is good.
type Away string

// What to do then: AwayDeny (also ""), AwayAllow (and count it, and log it).
const (
	AwayDeny  Away = "deny"
	AwayAllow Away = "allow"
)

func (c Config) validateChallenge(wrong reject) {
	ch := c.Challenge
	switch ch.When {
	case "", Never:
		return
	case Risky, Always:
	default:
		wrong("challenge.when", "expected never, risk or always")
	}
	if ch.Action == "" {
		wrong("challenge.action", "is needed")
	}
	if c.RedisURL == "" {
		wrong("redis_url", "is needed for challenges")
	}
	if ch.Clearance.TTL < 0 {
		wrong("challenge.clearance.ttl_seconds", "expected 0 or more")
	}
	switch ch.Clearance.By {
	case "", InCookie, InHeader, InBoth:
	default:
		wrong("challenge.clearance.by", "expected cookie, header or both")
	}
	ch.Provider.validate(wrong, ch.Action)
	if ch.When == Risky {
		ch.Risk.validate(wrong, len(c.Limits) > 0)
	}
}

func (p Provider) validate(wrong reject, action string) {
	switch p.Name {
	case "", challenge.ALTCHA, challenge.Turnstile, challenge.HCaptcha, challenge.RecaptchaV2, challenge.RecaptchaV3, challenge.Generic:
	default:
		wrong("challenge.provider.name", "expected altcha, turnstile, hcaptcha, recaptcha_v2, recaptcha_v3 or siteverify")
	}
	if p.WhenAway != "" && p.WhenAway != AwayDeny && p.WhenAway != AwayAllow {
		wrong("challenge.provider.when_away", "expected deny or allow")
	}
	if !p.Name.Hosted() {
		return
	}
	if p.Secret == "" {
		wrong("challenge.provider.secret", "is needed")
	}
	if p.Name != challenge.Generic && p.SiteKey == "" {
		wrong("challenge.provider.site_key", "is needed")
	}
	if p.Name == challenge.Generic && p.URL == "" {
		wrong("challenge.provider.url", "is needed")
	}
	for i, h := range p.Hostnames {
		if h == "" || strings.ContainsAny(h, "/:* ") {
			wrong(fmt.Sprintf("challenge.provider.hostnames[%d]", i+1), "expected a host name alone")
		}
	}
	if !p.takes(action) {
		wrong("challenge.action", "is no name that the provider takes")
	}
}

// takes reports whether the provider knows actions of that form.
func (p Provider) takes(action string) bool {
	switch p.Name {
	case challenge.Turnstile:
		return isToken(action) && len(action) <= 32
	case challenge.RecaptchaV3:
		return isToken(strings.ReplaceAll(action, "/", "_")) && !strings.Contains(action, "-")
	}
	return true
}

func (c Config) challengeNeeds(p Parts) []need {
	on := c.Challenge.on()
	return []need{
		{"challenger", on, p.Challenger != nil},
		{"clearances", on && c.Challenge.Clearance.TTL > 0, p.Clearances != nil},
		{"failures", c.Challenge.When == Risky, p.Failures != nil},
	}
}

func (c Challenge) on() bool { return c.When == Risky || c.When == Always }

var errChallenge = fault.New(fault.Forbidden, "Solve the challenge and send the request again with the header X-Gatehouse-Challenge.").Named("challenge_required")

// What became of requests that may have had to solve a challenge, for Meter.
const (
	challengeCalm     = "calm"    // the risk was below the threshold
	challengeCleared  = "cleared" // by a clearance
	challengeSolved   = "solved"
	challengeUnproved = "unproved"  // passed, for nobody could say whether the solution is good
	challengeSet      = "set"       // refused, with a challenge to solve
	challengeWrong    = "wrong"     // refused, for the solution is not good
	challengeUnknown  = "unchecked" // refused, for nobody could say whether the solution is good
)

func (g *Guard) challenge(ctx context.Context, s *state) error {
	if !g.cfg.Challenge.on() {
		return nil
	}
	result, err := g.challenged(ctx, s)
	if g.Meter != nil && result != "" {
		g.Meter.Challenged(s.Route, result)
	}
	return err
}

func (g *Guard) challenged(ctx context.Context, s *state) (result string, err error) {
	s.risk = g.riskOf(s)
	if g.cfg.Challenge.When == Risky && s.risk < g.cfg.Challenge.Risk.Threshold {
		return challengeCalm, nil
	}
	client := g.clientOf(s)
	payload, given := s.header("x-gatehouse-challenge")
	if !given && g.cleared(s, client) {
		return challengeCleared, nil
	}
	refused, result := error(errChallenge), challengeSet
	if given {
		switch refused = g.Challenger.Spend(ctx, payload, client.Bind, s.ID); {
		case refused == nil:
			g.clear(s, client)
			return challengeSolved, nil
		case fault.CodeOf(refused) == fault.Forbidden:
			result = challengeWrong
		case g.letPass(ctx, s, refused):
			return challengeUnproved, nil
		default:
			return challengeUnknown, refused
		}
	}
	issued, err := g.Challenger.Issue(ctx, client.Bind, s.risk)
	if err != nil {
		return "", err
	}
	s.issued = issued
	return result, refused
}

func (g *Guard) clientOf(s *state) challenge.Client {
	agent := strings.Join(s.Header["user-agent"], "\n")
	return challenge.Client{Bind: challenge.Bind{Action: g.cfg.Challenge.Action, Route: s.Route, Addr: s.Addr}, UserAgent: agent, Risk: s.risk}
}

// sayUnproved is how often a guard says that it lets requests pass unproved.
const sayUnproved = 10 * time.Second

// letPass reports whether the route lets a solution pass about which nobody can say anything. It grants no clearance.
func (g *Guard) letPass(ctx context.Context, s *state, unknown error) bool {
	f, _ := fault.As(unknown)
	if g.cfg.Challenge.Provider.WhenAway != AwayAllow || f == nil || !(challenge.ErrAway.Is(f) || challenge.ErrUnavailable.Is(f)) {
		return false
	}
	now := g.Now().UnixMilli()
	if last := g.saidUnproved.Load(); now-last >= sayUnproved.Milliseconds() && g.saidUnproved.CompareAndSwap(last, now) {
		g.Log.WarnContext(ctx, "challenges cannot be checked; requests with a solution go on", "route", s.Route, "error", unknown)
	}
	return true
}

// networks is a list of networks.
type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, p := range n {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
