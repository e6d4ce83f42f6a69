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
	return []need{{"verifier", c.Identify != None, p.Verifier != nil}, {"memory of proofs", c.DPoP.on(), p.Proofs != nil}}
}

var (
	errNoToken  = fault.New(fault.Unauthenticated, "A bearer token is needed.").Named("token_missing")
	errIdentity = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid").Because(errors.New("subject or tenant does not fit in a header"))
)

func (g *Guard) identify(ctx context.Context, s *state) error {
	if g.cfg.Identify == None {
		return nil
	}
	shown := s.shown
	switch {
	case shown.token == "" && g.cfg.Identify == Optional && len(s.Header["authorization"]) == 0:
		return nil
	case shown.token == "" || shown.dpop && !g.cfg.DPoP.on():
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
	case !portable(who.Subject) || !portable(who.Tenant):
		return errIdentity // the upstream would read another name than the one that policy decided on
	}
	if err := g.possession(ctx, s, &who); err != nil {
		return err
	}
	s.who, s.decision.Subject = who, who.Subject
	return nil
}

// authenticate is the challenge of RFC 6750 section 3 and of RFC 9449 section 7.1, for those schemes that the route takes.
func (g *Guard) authenticate(s *state, reason string) string {
	const realm = `Bearer realm="gatehouse"`
	why := s.authError(reason)
	switch {
	case !g.cfg.DPoP.on():
		return realm + why
	case g.cfg.DPoP.Mode == DPoPRequired:
		return g.dpopChallenge() + why
	case s.shown.dpop:
		return realm + ", " + g.dpopChallenge() + why
	}
	return realm + why + ", " + g.dpopChallenge()
}

// authError is what is wrong, as parameters of a challenge: RFC 6750 section 3.1, RFC 9449 section 12.2, and RFC 9470 section 3
// for a step-up.
func (s *state) authError(reason string) string {
	switch reason {
	case errNoToken.Reason:
		return "" // without a token there is no error to tell
	case errProof.Reason:
		return `, error="invalid_dpop_proof"`
	case errNonce.Reason:
		return `, error="use_dpop_nonce"`
	case errStepUp.Reason:
		out := `, error="insufficient_user_authentication"`
		if s.need.ACR != "" && isToken(strings.NewReplacer(":", "", ".", "", "/", "").Replace(s.need.ACR)) {
			out += `, acr_values="` + s.need.ACR + `"`
		}
		if s.need.MaxAge > 0 {
			out += `, max_age="` + strconv.Itoa(s.need.MaxAge) + `"`
		}
		return out
	default:
		return `, error="invalid_token"`
	}
}
