package guard

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// Mode says what a denial does.
type Mode string

// The modes: Enforce (also "") stops denied requests, Observe goes through all checks, logs each that fails, and lets the
// request pass.
const (
	Enforce Mode = "enforce"
	Observe Mode = "observe"
)

// Identify says whether a route wants a token.
type Identify string

// The ways to identify: Required (also ""), Optional (none is fine, a bad one is not), None (tokens are not looked at).
const (
	Required Identify = "required"
	Optional Identify = "optional"
	None     Identify = "none"
)

// Config is what one route (or service) asks of the guard.
type Config struct {
	Mode      Mode
	Identify  Identify
	Issuers   []Issuer
	Limits    []Limit
	Challenge Challenge
	Authorize bool
	Resources []Resource
	PDP       PDP
	RedisURL  telemetry.Secret
}

// Issuer is one whose tokens are accepted.
type Issuer struct {
	Issuer, JWKSURL                          string
	Algorithms, Audiences, Types             []string
	Skew                                     time.Duration
	RolesClaim, AttributesClaim, TenantClaim string
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

// Challenge says when a proof of work is asked for.
type Challenge struct {
	Always    bool
	Action    string
	Secret    telemetry.Secret
	MaxNumber int64
	TTL       time.Duration
}

// Resource names what a path stands for: {id} in a pattern is one segment.
type Resource struct{ Pattern, Type string }

// PDP is where decisions are made.
type PDP struct {
	URL     string
	Timeout time.Duration
}

// Validate answers everything that is wrong, each with the path of its field.
func (c Config) Validate() error {
	var errs []error
	wrong := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("config.%s: %s", path, fmt.Sprintf(format, args...)))
	}
	if c.Mode != Enforce && c.Mode != Observe && c.Mode != "" {
		wrong("mode", "expected enforce or observe")
	}
	if c.Identify != Required && c.Identify != Optional && c.Identify != None && c.Identify != "" {
		wrong("identify", "expected required, optional or none")
	}
	issuers := map[string]bool{}
	for i, is := range c.Issuers {
		if issuers[is.Issuer] || is.Issuer == "" {
			wrong(fmt.Sprintf("issuers[%d].issuer", i+1), "is empty or given twice")
		}
		issuers[is.Issuer] = true
	}
	if c.Identify != None && len(c.Issuers) == 0 {
		wrong("issuers", "at least one is needed unless identify is none")
	}
	if c.RedisURL == "" && (c.Identify != None || len(c.Limits) > 0 || c.Challenge.Always) {
		wrong("redis_url", "is needed for revocations, limits and challenges")
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
	if c.Challenge.Always && c.Challenge.Action == "" {
		wrong("challenge.action", "is needed")
	}
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
	return errors.Join(errs...)
}

func isToken(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
