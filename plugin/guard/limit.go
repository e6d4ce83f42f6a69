package guard

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Limiter counts a request against limits.
type Limiter interface {
	Take(ctx context.Context, keys []limit.Key) (limit.Result, error)
}

// LimitKey is what a limit counts by.
type LimitKey string

// The keys of a limit.
const (
	ByAddress LimitKey = "ip"      // IPv4 address, or IPv6 /64
	BySubject LimitKey = "subject" // the verified token's; counts nothing for a request without one
)

// Limit is one limit of a route.
type Limit struct {
	Name string
	Key  LimitKey
	Rate limit.Rate
}

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
		switch {
		case l.Key != ByAddress && l.Key != BySubject:
			wrong(at+".key", "expected ip or subject")
		case l.Key == BySubject && c.Identify == None:
			wrong(at+".key", "subject needs identify")
		}
		if l.Rate.Limit <= 0 || l.Rate.Period <= 0 {
			wrong(at+".rate", "expected a number and a period above zero")
		}
	}
}

func (c Config) limitNeeds(p Parts) []need {
	return []need{{"limiter", len(c.Limits) > 0, p.Limiter != nil}}
}

var errLimited = fault.New(fault.Limited, "Too many requests; try again later.").Named("rate_limited")

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

// limitHeaders writes RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) and Retry-After, in seconds.
func limitHeaders(header map[string]string, limits []limit.State) {
	var now, policy []string
	retry := 1
	for _, l := range limits {
		reset := int(math.Ceil(l.Reset.Seconds()))
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
