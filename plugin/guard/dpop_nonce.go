package guard

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// DPoPNonce says whether proofs must bear a nonce of ours (RFC 9449 section 9), so that none can be made before it is needed.
type DPoPNonce struct {
	Every  time.Duration // how long each is given out; 0 for none. It is taken for as long again.
	Secret telemetry.Secret
}

const (
	minNonceSecret = 32 // bytes
	nonceHeader    = "DPoP-Nonce"
	noncePurpose   = "gatehouse dpop nonce v1"
)

func (n DPoPNonce) validate(wrong reject) {
	if n.Every < 0 || n.Every > time.Hour {
		wrong("dpop.nonce_seconds", "expected 0 to 3600")
	}
	if n.Every > 0 && len(n.Secret.Reveal()) < minNonceSecret {
		wrong("dpop.nonce_secret", "at least %d bytes are needed, the same at all edges", minNonceSecret)
	}
}

var errNonce = fault.New(fault.Unauthenticated, "Send the request again with a proof that bears the nonce of this answer.").Named("use_dpop_nonce")

// nonces gives out a nonce for each period, which all edges with the same secret know without telling each other. It is the same for
// all clients: nobody can say it before its period, and nothing more is asked of it.
type nonces struct {
	key   []byte
	every int64 // milliseconds
}

func newNonces(n DPoPNonce) (*nonces, error) {
	if n.Every <= 0 {
		return nil, nil //nolint:nilnil // none are asked for
	}
	key, err := hkdf.Key(sha256.New, []byte(n.Secret.Reveal()), nil, noncePurpose, sha256.Size)
	if err != nil {
		return nil, err
	}
	return &nonces{key, n.Every.Milliseconds()}, nil
}

// of answers the nonce of a period: 22 characters of base64url.
func (n *nonces) of(period int64) string {
	mac := hmac.New(sha256.New, n.key)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(period))) //nolint:gosec // after 1970
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])
}

// check reports whether a nonce is taken now, and which one is to be used from now on. Those of the period before and of the next
// one are taken as well: another edge's clock may go ahead.
func (n *nonces) check(given string, now time.Time) (good bool, current string) {
	period := now.UnixMilli() / n.every
	current = n.of(period)
	for _, p := range []string{current, n.of(period - 1), n.of(period + 1)} {
		good = hmac.Equal([]byte(given), []byte(p)) || good
	}
	return good, current
}

// nonced checks the nonce of a proof that is good otherwise, where the route asks for one, and tells the client the next in time.
func (g *Guard) nonced(s *state, claims map[string]any) error {
	if g.nonces == nil {
		return nil
	}
	given, _ := claims["nonce"].(string)
	good, current := g.nonces.check(given, g.Now())
	if given != current {
		s.respond(nonceHeader, current)
	}
	switch {
	case good:
		return nil
	case given == "":
		return errNonce.Because(errors.New("no nonce"))
	default:
		return errNonce.Because(errors.New("not a nonce of ours, or one that is over"))
	}
}
