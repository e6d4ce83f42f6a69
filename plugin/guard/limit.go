package guard

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Limiter counts a request against limits.
type Limiter interface {
	// Take counts the request of that id ("" for none), once within a few seconds, against all keys or none.
	Take(ctx context.Context, id string, keys []limit.Key) (limit.Result, error)
	// Spent answers those keys that are known to have no room, without asking anybody.
	Spent(keys []limit.Key) []limit.State
}

// Limit is one limit of a route.
type Limit struct {
	Name   string
	Key    LimitKey
	Rate   limit.Rate
	Fixed  bool             // windows one after another; else two weighted windows
	Tiers  Tiers            // other rates for some
	Cost   map[string]int64 // what a request takes, by method; 1 where none is named, and 0 is free
	Exempt Exempt           // who is not counted
	Strict bool             // deny while Redis is away
}

// Tiers are rates by the value of a claim.
type Tiers struct {
	Claim string
	Rates map[string]limit.Rate
}

// Exempt lists whom a limit does not count.
type Exempt struct {
	Addresses []netip.Prefix
	Subjects  []string // a subject, or "issuer subject" where a route trusts several issuers
}

// maxLimit is what Redis' scripts count exactly.
const maxLimit = 1 << 53

func (c Config) validateLimits(wrong reject) {
	if len(c.Limits) > 0 && c.RedisURL == "" {
		wrong("redis_url", "is needed for limits")
	}
	names := map[string]bool{}
	for i, l := range c.Limits {
		at := fmt.Sprintf("limits[%d]", i+1)
		if names[l.Name] {
			wrong(at+".name", "is given twice")
		}
		names[l.Name] = true
		if !isToken(l.Name) {
			wrong(at+".name", "expected letters, digits, - and _")
		}
		parts, err := l.Key.parts()
		switch {
		case err != nil:
			wrong(at+".key", "%v", err)
		case slices.ContainsFunc(parts, keyPart.identity) && c.Identify == None:
			wrong(at+".key", "%s needs identify", l.Key)
		}
		l.validateRates(func(path, format string, args ...any) { wrong(at+"."+path, format, args...) }, c.Identify)
		for j, s := range l.Exempt.Subjects {
			if s == "" || (len(c.Issuers) > 1 && !strings.Contains(s, " ")) {
				wrong(fmt.Sprintf("%s.exempt.subjects[%d]", at, j+1), `expected "issuer subject", for the route trusts several issuers`)
			}
		}
	}
}

func (l Limit) validateRates(wrong reject, identify Identify) {
	rates := map[string]limit.Rate{"rate": l.Rate}
	for value, r := range l.Tiers.Rates {
		rates["tiers.rates."+value] = r
	}
	lowest := int64(math.MaxInt64)
	for path, r := range rates {
		if r.Limit <= 0 || r.Limit > maxLimit || r.Period <= 0 {
			wrong(path, "expected a number and a period above zero")
		}
		if r.Period != l.Rate.Period {
			wrong(path, "expected the same period as the limit's rate") // they count in the same window
		}
		lowest = min(lowest, r.Limit)
	}
	if (l.Tiers.Claim == "") != (len(l.Tiers.Rates) == 0) {
		wrong("tiers", "expected a claim and rates, or neither")
	}
	if l.Tiers.Claim != "" && identify == None {
		wrong("tiers.claim", "needs identify")
	}
	for method, cost := range l.Cost {
		if cost < 0 || cost > lowest {
			wrong("cost."+method, "expected 0 to %d, or such a request could never pass", lowest)
		}
	}
}

func (c Config) limitNeeds(p Parts) []need {
	return []need{{"limiter", len(c.Limits) > 0 || c.Challenge.countsLogins(), p.Limiter != nil}}
}

var errLimited = fault.New(fault.Limited, "Too many requests; try again later.").Named("rate_limited")

// limitRule is a limit, made ready.
type limitRule struct {
	Limit
	parts []keyPart
	known bool // whether what it counts and allows is known before the caller is
	who   bool // whether it counts nobody but identified callers
}

func limitRules(limits []Limit) ([]limitRule, error) {
	var out []limitRule
	for _, l := range limits {
		parts, err := l.Key.parts()
		if err != nil {
			return nil, fmt.Errorf("limit %s: %w", l.Name, err)
		}
		who := slices.ContainsFunc(parts, keyPart.identity)
		out = append(out, limitRule{l, parts, !who && l.Tiers.Claim == "" && len(l.Exempt.Subjects) == 0, who})
	}
	return out, nil
}

// limitKnown refuses a request to a limit that is known to be spent, before anything dear: a flood is stopped here.
func (g *Guard) limitKnown(_ context.Context, s *state) error {
	keys := g.limitKeys(s, func(r *limitRule) bool { return r.known })
	if len(keys) == 0 {
		return nil
	}
	if spent := g.Limiter.Spent(keys); len(spent) > 0 {
		s.limits, s.counted = spent, true
		return errLimited
	}
	return nil
}

// limitAll counts the request against all of its limits at once. Failed log-ins, where they matter, are asked for with them.
func (g *Guard) limitAll(ctx context.Context, s *state) error {
	keys := g.limitKeys(s, func(r *limitRule) bool { return !r.who || !s.who.Anonymous() })
	if !g.cfg.Challenge.countsLogins() {
		return g.take(ctx, s, keys)
	}
	err := g.take(ctx, s, append(keys, challenge.FailedLogins(s.Addr)))
	if last := len(keys); len(s.limits) > last { // else somebody else's limit is spent, or the request was counted before
		s.failedLogins, s.limits = challenge.Counted(s.limits[last]), s.limits[:last]
	}
	return err
}

// limiting counts a request that check refuses against those limits that need no caller: a flood of bad tokens is a flood too.
func (g *Guard) limiting(check func(context.Context, *state) error) func(context.Context, *state) error {
	return func(ctx context.Context, s *state) error {
		refused := check(ctx, s)
		if refused == nil {
			return nil
		}
		if err := g.take(ctx, s, g.limitKeys(s, func(r *limitRule) bool { return !r.who })); err != nil {
			return err
		}
		return refused
	}
}

// take counts once for one request.
func (g *Guard) take(ctx context.Context, s *state, keys []limit.Key) error {
	if len(keys) == 0 || s.counted {
		return nil
	}
	s.counted = true
	res, err := g.Limiter.Take(ctx, s.ID, keys)
	if err != nil {
		return err
	}
	s.limits = res.States
	if !res.Allowed {
		return errLimited
	}
	return nil
}

// limitKeys is what the request is counted by.
func (g *Guard) limitKeys(s *state, wanted func(*limitRule) bool) []limit.Key {
	if len(g.limits) == 0 {
		return nil
	}
	keys := make([]limit.Key, 0, len(g.limits))
	for i := range g.limits {
		r := &g.limits[i]
		if !wanted(r) || r.exempts(s) {
			continue
		}
		cost, named := r.Cost[s.Method]
		if named && cost == 0 {
			continue
		}
		keys = append(keys, limit.Key{Name: r.Name, Value: r.value(s), Rate: r.rate(s), Cost: cost, Fixed: r.Fixed, Strict: r.Strict})
	}
	return keys
}

func (r *limitRule) exempts(s *state) bool {
	if a := s.Addr.Unmap(); len(r.Exempt.Addresses) > 0 && slices.ContainsFunc(r.Exempt.Addresses, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return true
	}
	return !s.who.Anonymous() && slices.ContainsFunc(r.Exempt.Subjects, func(subject string) bool {
		issuer, name, both := strings.Cut(subject, " ")
		return !both && subject == s.who.Subject || both && issuer == s.who.Issuer && name == s.who.Subject
	})
}

func (r *limitRule) rate(s *state) limit.Rate {
	if r.Tiers.Claim != "" && !s.who.Anonymous() {
		if tier, ok := s.who.Claims[r.Tiers.Claim].(string); ok {
			if rate, ok := r.Tiers.Rates[tier]; ok {
				return rate
			}
		}
	}
	return r.Rate
}

// limitHeaders writes RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) and Retry-After, in seconds.
func limitHeaders(header map[string]string, limits []limit.State) {
	var now, policy []string
	retry := 1
	for _, l := range limits {
		reset := int((l.Reset + time.Second - 1) / time.Second)
		now = append(now, fmt.Sprintf("%q;r=%d;t=%d", l.Name, l.Remaining, reset))
		policy = append(policy, fmt.Sprintf("%q;q=%d;w=%d", l.Name, l.Rate.Limit, int(l.Rate.Period.Seconds())))
		if l.Exceeded {
			retry = max(retry, reset)
		}
	}
	header["RateLimit"] = strings.Join(now, ", ")
	header["RateLimit-Policy"] = strings.Join(policy, ", ")
	header["Retry-After"] = strconv.Itoa(retry)
}
