package jose

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// claims is a token's payload: numbers are float64, as encoding/json makes them.
type claims map[string]any

func readClaims(data []byte) (claims, error) {
	if err := once(data); err != nil {
		return nil, err
	}
	var c claims
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, refused("claims are malformed")
	}
	return c, nil
}

func (c claims) check(p Policy) error {
	now, issued := p.Now(), time.Time{}
	if c.text("iss") != p.Issuer {
		return refused("another issuer")
	}
	if c.text("sub") == "" {
		return refused("no subject")
	}
	if !slices.ContainsFunc(c.list("aud"), func(a string) bool { return slices.Contains(p.Audiences, a) }) {
		return refused("another audience")
	}
	expires, ok := c.time("exp")
	if !ok {
		return refused("no expiry")
	}
	if !now.Before(expires.Add(p.Skew)) {
		return errExpired
	}
	if _, given := c["nbf"]; given {
		if from, ok := c.time("nbf"); !ok || now.Before(from.Add(-p.Skew)) {
			return refused("not valid yet")
		}
	}
	if _, given := c["iat"]; given {
		if issued, ok = c.time("iat"); !ok || now.Before(issued.Add(-p.Skew)) {
			return refused("issued in the future")
		}
	}
	if p.MaxLifetime > 0 && (issued.IsZero() || expires.Sub(issued) > p.MaxLifetime) {
		return refused("lives too long")
	}
	return nil
}

func (c claims) principal(p Policy, kid string) principal.Principal {
	out := principal.Principal{
		Issuer: c.text("iss"), Subject: c.text("sub"), ClientID: c.text("client_id"), SessionID: c.text("sid"),
		TokenID: c.text("jti"), KeyID: kid, ACR: c.text("acr"), AMR: c.list("amr"), Scope: strings.Fields(c.text("scope")),
		Tenant: c.text(p.TenantClaim), Roles: c.list(p.RolesClaim), Groups: c.list(p.GroupsClaim), Claims: c,
	}
	out.Attributes, _ = c[p.AttributesClaim].(map[string]any)
	out.ExpiresAt, _ = c.time("exp")
	out.IssuedAt, _ = c.time("iat")
	out.AuthTime, _ = c.time("auth_time")
	return out
}

func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
}

// list reads a string or an array of strings (RFC 7519 section 4.1.3); anything else in the array voids it.
func (c claims) list(name string) []string {
	switch v := c[name].(type) {
	case string:
		return []string{v}
	case []any:
		out := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil
			}
			out = append(out, s)
		}
		return out
	}
	return nil
}

// latest is the last second that a NumericDate may name: the year 9999.
const latest = 253402300799

// time reads a NumericDate (RFC 7519 section 2).
func (c claims) time(name string) (time.Time, bool) {
	v, ok := c[name].(float64)
	if !ok || math.IsNaN(v) || v < 0 || v > latest {
		return time.Time{}, false
	}
	whole, part := math.Modf(v)
	return time.Unix(int64(whole), int64(part*1e9)), true
}
