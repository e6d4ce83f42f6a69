package challenge

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// Client is whom a clearance is for: what it is good for, and the user agent that the client says it is.
type Client struct {
	Bind
	UserAgent string
	Risk      int // 0 to 100, at the moment
}

// Clearances signs and checks clearances: short statements that a client has lately solved a challenge. A clearance is good
// for one action, one route, the client's network and user agent, until it expires or the client's risk has risen to another
// quarter of the scale. It is no secret from the client and stands for nobody: it skips challenges and does nothing else.
type Clearances struct {
	key []byte
	ttl time.Duration
	now func() time.Time
}

const (
	clearancePurpose = "gatehouse clearance v1"
	clearanceSize    = 8 + 1 + sha256.Size // expiry in Unix seconds, quarter of the risk, HMAC-SHA256
)

// NewClearances derives a key of its own from the challenges' secret, so that no challenge can pass for a clearance.
func NewClearances(secret telemetry.Secret, ttl time.Duration, now func() time.Time) (*Clearances, error) {
	switch {
	case len(secret.Reveal()) < minSecret:
		return nil, fmt.Errorf("secret: at least %d bytes", minSecret)
	case ttl < time.Second:
		return nil, errors.New("clearance.ttl_seconds: at least 1")
	}
	key, err := hkdf.Key(sha256.New, []byte(secret.Reveal()), nil, clearancePurpose, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("secret: %w", err)
	}
	return &Clearances{key: key, ttl: ttl, now: now}, nil
}

// TTL is how long a clearance is good.
func (c *Clearances) TTL() time.Duration { return c.ttl }

// Grant signs a clearance for the client: 55 characters of base64url.
func (c *Clearances) Grant(client Client) string {
	b := make([]byte, 9, clearanceSize)
	binary.BigEndian.PutUint64(b, uint64(c.now().Add(c.ttl).Unix())) //nolint:gosec // after 1970
	b[8] = quarter(client.Risk)
	return base64.RawURLEncoding.EncodeToString(c.sign(b, client))
}

// Clears reports whether token is a clearance for the client.
func (c *Clearances) Clears(token string, client Client) bool {
	b, ok := c.unexpired(token)
	if !ok || quarter(client.Risk) > b[8] {
		return false
	}
	return hmac.Equal(c.sign(b[:9:9], client), b)
}

// Unexpired reports whether token has the form of a clearance that is not over; whose it is, only Clears tells.
func (c *Clearances) Unexpired(token string) bool {
	_, ok := c.unexpired(token)
	return ok
}

func (c *Clearances) unexpired(token string) ([]byte, bool) {
	if len(token) != base64.RawURLEncoding.EncodedLen(clearanceSize) {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != clearanceSize {
		return nil, false
	}
	left := int64(binary.BigEndian.Uint64(b)) - c.now().Unix() //nolint:gosec // a number beyond int64 is negative, and over
	return b, left > 0 && left <= int64(c.ttl/time.Second)+1
}

// sign appends the code over what b says and what the clearance is for. Each text has its length before it, so that no two
// clients read alike.
func (c *Clearances) sign(b []byte, client Client) []byte {
	mac := hmac.New(sha256.New, c.key)
	mac.Write(b)
	for _, s := range []string{client.Action, client.Route, network(client.Addr), client.UserAgent} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(s)))
		mac.Write(size[:])
		mac.Write([]byte(s))
	}
	return mac.Sum(b)
}

// quarter is the risk's quarter of the scale, 0 to 4.
func quarter(risk int) byte { return byte(min(max(risk, 0), 100) / 25) } //nolint:gosec // 0 to 4
