package guard

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Tokens says how an issuer's tokens are checked.
type Tokens string

// The kinds of tokens: JWT (also "") is verified here by the issuer's keys; for Opaque the issuer is asked (RFC 7662), whatever
// they look like; with Both those that are a JWS are verified and it is asked for the others.
const (
	JWT    Tokens = "jwt"
	Opaque Tokens = "opaque"
	Both   Tokens = "both"
)

// Issuer is one whose tokens are accepted.
type Issuer struct {
	Issuer               string
	Tokens               Tokens
	JWKSURL, MetadataURL string // at most one; none: the issuer's well-known metadata says where its keys are
	Private              bool   // it may be at private addresses, and be spoken to by plain http there
	KeysMaxAge           time.Duration

	Algorithms, Audiences, Types []string
	Skew                         time.Duration
	MinRSABits                   int
	Require                      map[string]string // claims that must have these values, by their path
	Claims                       jose.Mapping

	Introspection Introspection
}

// Introspection is how an issuer is asked about a token (RFC 7662).
type Introspection struct {
	URL          string // "" for never
	ClientID     string
	ClientSecret telemetry.Secret
	Timeout      time.Duration
	Remember     time.Duration // how long an answer is good at most
}

// opaque reports whether tokens that are no JWS may be the issuer's.
func (i Issuer) opaque() bool { return i.Tokens == Opaque || i.Tokens == Both }

func (c Config) validateIdentify(wrong reject) {
	if c.Identify != Required && c.Identify != Optional && c.Identify != None && c.Identify != "" {
		wrong("identify", "expected required, optional or none")
	}
	issuers, opaque := map[string]bool{}, 0
	for i, is := range c.Issuers {
		at := fmt.Sprintf("issuers[%d]", i+1)
		if issuers[is.Issuer] || is.Issuer == "" {
			wrong(at+".issuer", "is empty or given twice")
		}
		issuers[is.Issuer] = true
		if is.opaque() {
			if opaque++; opaque > 1 {
				wrong(at+".tokens", "an opaque token does not say whose it is: only one issuer of a route can have them")
			}
		}
		is.validate(func(path, format string, args ...any) { wrong(at+"."+path, format, args...) })
	}
	if c.Identify != None && len(c.Issuers) == 0 {
		wrong("issuers", "at least one is needed unless identify is none")
	}
	if c.Identify != None && c.RedisURL == "" {
		wrong("redis_url", "is needed for revocations")
	}
}

func (i Issuer) validate(wrong reject) {
	if i.JWKSURL != "" && i.MetadataURL != "" {
		wrong("metadata_url", "jwks_url says already where the keys are")
	}
	switch i.Tokens {
	case "", JWT, Both:
	case Opaque:
		if i.JWKSURL != "" || i.MetadataURL != "" {
			wrong("tokens", "opaque tokens need no keys")
		}
	default:
		wrong("tokens", "expected jwt, opaque or both")
	}
	n := i.Introspection
	switch {
	case n.URL == "" && i.opaque():
		wrong("introspection.url", "is needed for opaque tokens")
	case n.URL != "" && (n.ClientID == "" || n.ClientSecret == ""):
		wrong("introspection.client_id", "and client_secret are needed: the issuer answers nobody else")
	case n.URL != "" && n.Timeout <= 0:
		wrong("introspection.timeout_ms", "expected a time above zero")
	}
	if n.Remember < 0 {
		wrong("introspection.cache_seconds", "expected a time of zero or more")
	}
	i.validateClaims(wrong)
}

func (i Issuer) validateClaims(wrong reject) {
	path := func(at string, p jose.Path) {
		if err := p.Validate(); err != nil {
			wrong(at, "%v", err)
		}
	}
	for name, list := range map[string][]jose.Path{"roles": i.Claims.Roles, "groups": i.Claims.Groups, "scope": i.Claims.Scope, "client_id": i.Claims.ClientID} {
		for j, p := range list {
			path(fmt.Sprintf("claims.%s[%d]", name, j+1), p)
		}
	}
	path("claims.session", i.Claims.Session)
	path("claims.tenant", i.Claims.Tenant)
	path("claims.attributes", i.Claims.Attributes)
	for _, name := range slices.Sorted(maps.Keys(i.Claims.AttributeClaims)) {
		path("claims.attribute_claims."+name, i.Claims.AttributeClaims[name])
	}
	for _, p := range slices.Sorted(maps.Keys(i.Require)) {
		path("require."+p, jose.Path(p))
	}
}
