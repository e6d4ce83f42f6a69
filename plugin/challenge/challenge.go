// Package challenge makes clients prove that they are worth serving: ALTCHA proofs of work, issued and checked here, and the
// hosted CAPTCHAs, which their providers check. Each is bound to an action, and spent once across all processes; a proof of
// work also to a route, the client's network and a time. What is solved gives a clearance for a while.
package challenge

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	altcha "github.com/altcha-org/altcha-lib-go"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Bind is what a challenge is good for.
type Bind struct {
	Action, Route string
	Addr          netip.Addr // the client; its /24 (IPv4) or /64 (IPv6) counts
}

// Options of a Challenger.
type Options struct {
	Secret    telemetry.Secret // signs challenges; the same in all processes; at least 32 bytes
	MaxNumber int64            // the work at no risk: half of this many SHA-256 hashes on average
	RiskyWork int64            // the same at full risk, 100; between them it grows with the risk. 0 for MaxNumber
	TTL       time.Duration    // from issue to expiry
	Redis     redis.UniversalClient
	Now       func() time.Time
}

// Failures of a payload.
var (
	ErrInvalid     = fault.New(fault.Forbidden, "The challenge was not solved, is spent, has expired, or was for something else.").Named("challenge_invalid")
	ErrUnavailable = fault.New(fault.Unavailable, "Challenges cannot be checked at the moment.").Named("challenge_unavailable")
)

const (
	maxPayload = 4 << 10 // bytes
	minSecret  = 32      // bytes
)

// Challenger issues and spends challenges. It is safe for concurrent use.
type Challenger struct{ Options }

// New checks the options.
func New(o Options) (*Challenger, error) {
	switch {
	case len(o.Secret.Reveal()) < minSecret:
		return nil, fmt.Errorf("secret: at least %d bytes", minSecret)
	case o.MaxNumber < 1:
		return nil, errors.New("max_number: at least 1")
	case o.RiskyWork != 0 && o.RiskyWork < o.MaxNumber:
		return nil, errors.New("risk.max_number: at least max_number")
	case o.TTL < time.Second:
		return nil, errors.New("ttl_seconds: at least 1")
	}
	return &Challenger{o}, nil
}

// Challenge is what a client is given, in the form that ALTCHA's widgets read.
type Challenge struct {
	Algorithm string `json:"algorithm"`
	Challenge string `json:"challenge"`
	MaxNumber int64  `json:"maxnumber"`
	Salt      string `json:"salt"`
	Signature string `json:"signature"`
}

// Issue makes a challenge that is good for b until it expires. The work follows the risk, 0 to 100.
func (c *Challenger) Issue(_ context.Context, b Bind, risk int) (any, error) {
	expires := c.Now().Add(c.TTL)
	made, err := altcha.CreateChallenge(altcha.ChallengeOptions{
		MaxNumber: c.work(risk), HMACKey: c.Secret.Reveal(), Expires: &expires, Params: b.params(),
	})
	if err != nil {
		return nil, ErrUnavailable.Because(err)
	}
	return Challenge{made.Algorithm, made.Challenge, made.MaxNumber, made.Salt, made.Signature}, nil
}

func (c *Challenger) work(risk int) int64 {
	return c.MaxNumber + max(c.RiskyWork-c.MaxNumber, 0)*int64(min(max(risk, 0), 100))/100
}

func (b Bind) params() url.Values {
	return url.Values{"action": {b.Action}, "route": {b.Route}, "network": {network(b.Addr)}}
}

// Spend takes the solved payload (base64 of ALTCHA's JSON object) for the request of that id ("" for none). It answers
// ErrInvalid for one that is not solved, not for b, expired or already spent, and ErrUnavailable when nobody can say whether
// it is spent.
func (c *Challenger) Spend(ctx context.Context, payload string, b Bind, request string) error {
	p, err := parse(payload)
	if err != nil {
		return ErrInvalid.Because(err)
	}
	// The library's own expiry check reads the system clock; this one reads ours, and insists on there being an expiry.
	solved, err := altcha.VerifySolution(altcha.Payload(p), c.Secret.Reveal(), false)
	if err != nil || !solved {
		return ErrInvalid.Because(errors.Join(err, errors.New("not solved")))
	}
	left, err := c.bound(p.Salt, b)
	if err != nil {
		return ErrInvalid.Because(err)
	}
	return spend(ctx, c.Redis, p.Challenge, request, left+time.Second)
}

// bound checks that the signed salt is for b and answers how long it is still good.
func (c *Challenger) bound(salt string, b Bind) (time.Duration, error) {
	_, query, _ := strings.Cut(strings.TrimSuffix(salt, "&"), "?")
	got, err := url.ParseQuery(query)
	if err != nil {
		return 0, errors.New("salt is malformed")
	}
	for name, want := range b.params() {
		if len(got[name]) != 1 || got[name][0] != want[0] {
			return 0, errors.New("for another " + name)
		}
	}
	var unix int64
	if _, err := fmt.Sscanf(got.Get("expires"), "%d", &unix); err != nil {
		return 0, errors.New("no expiry")
	}
	left := time.Unix(unix, 0).Sub(c.Now())
	if left <= 0 || left > c.TTL+time.Second {
		return 0, errors.New("expired")
	}
	return left, nil
}

type payload altcha.Payload

func parse(s string) (payload, error) {
	var p payload
	if s == "" || len(s) > maxPayload {
		return p, errors.New("payload is empty or too long")
	}
	data, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return p, errors.New("payload is not base64")
	}
	if err := json.Unmarshal(data, &p); err != nil {
		return p, errors.New("payload is not a JSON object of ALTCHA")
	}
	if p.Algorithm != string(altcha.SHA256) || p.Number < 0 {
		return p, errors.New("payload has another algorithm")
	}
	return p, nil
}
