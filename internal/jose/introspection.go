package jose

import (
	"errors"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// ErrInactive says that the issuer does not vouch for a token (any longer).
var ErrInactive = errInvalid.Because(errors.New("the issuer says that the token is not active"))

// Introspected reads an issuer's answer about an opaque token (RFC 7662 section 2.2) and checks it against the policy, as
// far as it says: iss and exp may be missing, sub and aud may not (S34). Without exp the principal expires after life. An
// answer that cannot be read is an error and no fault; a token that is not active is ErrInactive.
func Introspected(body []byte, p Policy, life time.Duration) (principal.Principal, error) {
	var none principal.Principal
	m, err := readObject(body)
	if err != nil {
		return none, errors.New("introspection: not a JSON object of one reading")
	}
	c := claims(m)
	switch active, ok := c["active"].(bool); {
	case !ok:
		return none, errors.New("introspection: active is not a boolean")
	case !active:
		return none, ErrInactive
	}
	if _, given := c["token_type"]; given && !strings.EqualFold(c.text("token_type"), "Bearer") && !strings.EqualFold(c.text("token_type"), "DPoP") {
		return none, refused("no access token") // RFC 6749 section 7.1; an issuer may vouch for refresh tokens too
	}
	if _, given := c["iss"]; given && c.text("iss") != p.Issuer {
		return none, refused("another issuer")
	}
	if c.text("sub") == "" {
		return none, refused("no subject")
	}
	if !c.forAny(p.Audiences) {
		return none, refused("another audience")
	}
	for path, want := range p.Require {
		if s, ok := path.in(c).(string); !ok || s != want {
			return none, refused("a required claim is missing or another")
		}
	}
	if _, err := c.thumbprint(); err != nil {
		return none, err
	}
	expires := p.Now().Add(life)
	if _, given := c["exp"]; given {
		var ok bool
		if expires, ok = c.time("exp"); !ok {
			return none, refused("malformed expiry")
		}
	}
	p.MaxLifetime = 0 // the issuer is asked again soon
	if err := c.checkTimes(p, expires); err != nil {
		return none, err
	}
	who := c.principal(p, "")
	who.Issuer, who.ExpiresAt = p.Issuer, expires
	return who, nil
}
