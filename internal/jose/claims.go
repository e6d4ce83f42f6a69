package jose

import (
	"math"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// claims is a token's payload: numbers are float64, as encoding/json makes them.
type claims map[string]any

func (c claims) check(p Policy) error {
	if c.text("iss") != p.Issuer {
		return refused("another issuer")
	}
	if c.text("sub") == "" {
		return refused("no subject")
	}
	if !c.forAny(p.Audiences) {
		return refused("another audience")
	}
	for _, name := range []string{"at_hash", "c_hash", "events"} { // OpenID Connect Core sections 3.1.3.6 and 3.3.2.11, RFC 8417 section 2.2
		if _, given := c[name]; given {
			return refused("an ID token, or one that tells of an event")
		}
	}
	for path, want := range p.Require {
		if s, ok := path.in(c).(string); !ok || s != want {
			return refused("a required claim is missing or another")
		}
	}
	if _, err := c.thumbprint(); err != nil {
		return err
	}
	expires, ok := c.time("exp")
	if !ok {
		return refused("no expiry")
	}
	return c.checkTimes(p, expires)
}

func (c claims) checkTimes(p Policy, expires time.Time) error {
	now, issued := p.Now(), time.Time{}
	if !now.Before(expires.Add(p.Skew)) {
		return errExpired
	}
	if _, given := c["nbf"]; given {
		if from, ok := c.time("nbf"); !ok || now.Before(from.Add(-p.Skew)) {
			return refused("not valid yet")
		}
	}
	if _, given := c["iat"]; given {
		var ok bool
		if issued, ok = c.time("iat"); !ok || now.Before(issued.Add(-p.Skew)) {
			return refused("issued in the future")
		}
	}
	if p.MaxLifetime > 0 && (issued.IsZero() || expires.Sub(issued) > p.MaxLifetime) {
		return refused("lives too long")
	}
	return nil
}

func (c claims) forAny(audiences []string) bool {
	return slices.ContainsFunc(texts(c["aud"], ""), func(a string) bool { return slices.Contains(audiences, a) })
}

// thumbprint is the key that the token is bound to (RFC 9449 section 6.1), or "". A token that is bound in a way which nobody
// here checks, such as to a certificate (RFC 8705), is refused.
func (c claims) thumbprint() (string, error) {
	cnf, given := c["cnf"]
	if !given {
		return "", nil
	}
	m, _ := cnf.(map[string]any)
	jkt, _ := m["jkt"].(string)
	if jkt == "" || len(m) != 1 {
		return "", refused("bound in a way that is not checked here")
	}
	return jkt, nil
}

func (c claims) principal(p Policy, kid string) principal.Principal {
	out := principal.Principal{
		Issuer: c.text("iss"), Subject: c.text("sub"), TokenID: c.text("jti"), KeyID: kid, ACR: c.text("acr"), AMR: texts(c["amr"], ""), Claims: c,
	}
	p.Claims.fill(&out, c)
	out.Thumbprint, _ = c.thumbprint()
	out.ExpiresAt, _ = c.time("exp")
	out.IssuedAt, _ = c.time("iat")
	out.AuthTime, _ = c.time("auth_time")
	return out
}

func (c claims) text(name string) string {
	s, _ := c[name].(string)
	return s
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
