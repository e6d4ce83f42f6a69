// Package password decides which passwords are good enough, and keeps them: argon2id (RFC 9106) over a pepper that is not
// in the database, in PHC form, with a bound on how many are computed at the same moment.
package password

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"runtime"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

const (
	minLength = 15   // code points, as long as the password is the only factor (S1)
	maxBytes  = 1024 // before normalization (S2)

	memory  = 19 << 10 // KiB
	passes  = 2
	lanes   = 1
	saltLen = 16
	sumLen  = 32
)

// The refusals of this package.
var (
	ErrTooShort = fault.New(fault.Invalid, "The password needs at least 15 characters.").Named("password_too_short")
	ErrTooLong  = fault.New(fault.Invalid, "The password may have at most 1024 bytes.").Named("password_too_long")
	ErrNotText  = fault.New(fault.Invalid, "The password is not valid Unicode text.").Named("password_not_text")
	ErrBusy     = fault.New(fault.Unavailable, "Too many logins at this moment; try again shortly.").Named("busy")
)

// Check tells whether a new password is good enough. There are no rules of composition (S3): only its length counts, in
// code points after normalization.
func Check(password string) error {
	switch {
	case len(password) > maxBytes:
		return ErrTooLong
	case !utf8.ValidString(password):
		return ErrNotText
	case utf8.RuneCountInString(norm.NFC.String(password)) < minLength:
		return ErrTooShort
	}
	return nil
}

// Options are the settings of a Hasher.
type Options struct {
	Pepper []byte        // mixed into every hash and kept apart from the database
	AtOnce int           // how many hashes are computed at the same moment, 19 MiB each; 0 for one per processor
	Wait   time.Duration // how long a hash may queue for its turn; 0 for 3 s
}

// Hasher makes and checks hashes. It is safe for concurrent use.
type Hasher struct {
	pepper   []byte
	pepperID string
	turns    chan struct{}
	wait     time.Duration
	nobody   hash
}

// New makes a hasher.
func New(o Options) *Hasher {
	if o.AtOnce <= 0 {
		o.AtOnce = runtime.GOMAXPROCS(0)
	}
	if o.Wait <= 0 {
		o.Wait = 3 * time.Second
	}
	h := &Hasher{pepper: o.Pepper, turns: make(chan struct{}, o.AtOnce), wait: o.Wait}
	h.pepperID = pepperID(o.Pepper)
	h.nobody = h.fresh()
	h.nobody.sum = make([]byte, sumLen)
	_, _ = rand.Read(h.nobody.sum)
	return h
}

// Hash answers the PHC string to store. It answers ErrBusy if no turn came in time.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	fresh := h.fresh()
	sum, err := h.compute(ctx, fresh, password)
	if err != nil {
		return "", err
	}
	fresh.sum = sum
	return fresh.String(), nil
}

// Verify reports whether password is the one that stored was made of.
func (h *Hasher) Verify(ctx context.Context, stored, password string) (bool, error) {
	want, err := parse(stored)
	if err != nil {
		return false, err
	}
	if want.pepper != h.pepperID {
		return false, fmt.Errorf("password: the stored hash was made with another pepper")
	}
	return h.match(ctx, want, password)
}

// VerifyNobody takes the time of Verify and answers false: for a login whose user does not exist, so that the time tells
// nothing (S12).
func (h *Hasher) VerifyNobody(ctx context.Context, password string) error {
	_, err := h.match(ctx, h.nobody, password)
	return err
}

func (h *Hasher) match(ctx context.Context, want hash, password string) (bool, error) {
	if len(password) > maxBytes {
		return false, nil // no password that long was ever accepted, whoever the user is
	}
	sum, err := h.compute(ctx, want, password)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want.sum) == 1, nil
}

// compute waits for a turn and hashes. argon2 itself cannot be interrupted, so ctx is heeded until it begins.
func (h *Hasher) compute(ctx context.Context, with hash, password string) ([]byte, error) {
	if err := ctx.Err(); err != nil { // select would take a free turn as gladly
		return nil, err
	}
	wait, cancel := context.WithTimeout(ctx, h.wait)
	defer cancel()
	select {
	case h.turns <- struct{}{}:
		defer func() { <-h.turns }()
	case <-wait.Done():
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, ErrBusy
	}
	if err := ctx.Err(); err != nil { // the caller left while the turn came
		return nil, err
	}
	mac := hmac.New(sha256.New, h.pepper)
	mac.Write([]byte(norm.NFC.String(password)))
	return argon2.IDKey(mac.Sum(nil), with.salt, with.passes, with.memory, with.lanes, with.length()), nil
}

func (h *Hasher) fresh() hash {
	salt := make([]byte, saltLen)
	_, _ = rand.Read(salt) // never fails, by its documentation
	return hash{memory: memory, passes: passes, lanes: lanes, pepper: h.pepperID, salt: salt}
}
