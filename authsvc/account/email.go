package account

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"math/big"
	"net/mail"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Bounds in bytes (RFC 5321 section 4.5.3.1, RFC 1035 section 2.3.4).
const (
	maxEmail = 254
	maxLocal = 64
	maxLabel = 63
)

// ErrEmailInvalid is the answer for what is no address.
var ErrEmailInvalid = fault.New(fault.Invalid, "email: this is not an address that mail can be sent to.").Named("email_invalid")

// NormalizeEmail answers the one form in which an address is stored and compared: lower case. It accepts a plain ASCII
// addr-spec (RFC 5322 section 3.4.1) at a host name, without quotes, comments or display name.
func NormalizeEmail(s string) (string, error) {
	if len(s) > maxEmail {
		return "", ErrEmailInvalid
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),:;<>[\]`, c) >= 0 {
			return "", ErrEmailInvalid
		}
	}
	a, err := mail.ParseAddress(s)
	local, domain, _ := strings.Cut(s, "@")
	if err != nil || a.Address != s || len(local) > maxLocal || !hostName(domain) {
		return "", ErrEmailInvalid
	}
	return strings.ToLower(s), nil
}

// hostName is stricter than an addr-spec: what it refuses has no place in the DNS (RFC 1123 section 2.1).
func hostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, outsideHostName) {
			return false
		}
	}
	return true
}

func outsideHostName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-'
}

// The codes that prove an address (S13).
const (
	CodeTTL         = 10 * time.Minute
	MaxCodeAttempts = 5
	codeDigits      = 6
)

// Codes makes verification codes. Only their keyed hash is stored: a reader of the database could try all of so few codes
// against a plain one.
type Codes struct {
	Key []byte
	Now func() time.Time
}

// New makes a random code for a user: plain for the mail, and what is stored of it.
func (c Codes) New(userID string) (plain string, stored Code, err error) {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(codeDigits), nil)
	n, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return "", Code{}, fmt.Errorf("make a code: %w", err)
	}
	plain = fmt.Sprintf("%0*d", codeDigits, n)
	return plain, Code{UserID: userID, Hash: c.Hash(userID, plain), ExpiresAt: c.Now().Add(CodeTTL)}, nil
}

// Hash answers what is stored of a code of this user. Spaces around it, as people paste them, do not count.
func (c Codes) Hash(userID, plain string) []byte {
	mac := hmac.New(sha256.New, c.Key)
	mac.Write([]byte(userID))
	mac.Write([]byte{0})
	mac.Write([]byte(strings.TrimSpace(plain)))
	return mac.Sum(nil)
}
