package guard

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Verifier answers who a token stands for, or a fault.
type Verifier interface {
	Verify(ctx context.Context, token string) (principal.Principal, error)
}

// Identify says whether a route wants a token.
type Identify string

// The ways to identify: Required (also ""), Optional (none is fine, a bad one is not), None (tokens are not looked at).
const (
	Required Identify = "required"
	Optional Identify = "optional"
	None     Identify = "none"
)

func (c Config) identifyNeeds(p Parts) []need {
	return []need{{"verifier", c.Identify != None, p.Verifier != nil}}
}

var (
	errNoToken  = fault.New(fault.Unauthenticated, "A bearer token is needed.").Named("token_missing")
	errIdentity = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid").Because(errors.New("subject or tenant does not fit in a header"))
)

var errBound = fault.New(fault.Unauthenticated, "The token is bound to a key, and the request does not prove that it has the key.").Named("token_bound")

func (g *Guard) identify(ctx context.Context, s *state) error {
	if g.cfg.Identify == None {
		return nil
	}
	shown := s.shown
	switch {
	case shown.token == "" && g.cfg.Identify == Optional && len(s.Header["authorization"]) == 0:
		return nil
	case shown.token == "" || shown.dpop:
		return errNoToken
	case shown.cookie:
		if err := g.sameOrigin(s.Request); err != nil {
			return err
		}
	}
	who, err := g.Verifier.Verify(ctx, shown.token)
	switch {
	case err != nil:
		return err
	case who.Subject == "":
		return errFailed
	case who.Thumbprint != "":
		return errBound // whoever stole it could send it so (RFC 9449 section 7.2)
	case !portable(who.Subject) || !portable(who.Tenant):
		return errIdentity // the upstream would read another name than the one that policy decided on
	}
	s.who, s.decision.Subject = who, who.Subject
	return nil
}

// authenticate is the challenge of RFC 6750 section 3, and of RFC 9470 section 3 for a step-up.
func (s *state) authenticate(reason string) string {
	const realm = `Bearer realm="gatehouse"`
	switch reason {
	case errNoToken.Reason:
		return realm // without a token there is no error to tell (RFC 6750 section 3.1)
	case errStepUp.Reason:
		out := realm + `, error="insufficient_user_authentication"`
		if s.need.ACR != "" && isToken(strings.NewReplacer(":", "", ".", "", "/", "").Replace(s.need.ACR)) {
			out += `, acr_values="` + s.need.ACR + `"`
		}
		if s.need.MaxAge > 0 {
			out += `, max_age="` + strconv.Itoa(s.need.MaxAge) + `"`
		}
		return out
	default:
		return realm + `, error="invalid_token"`
	}
}
