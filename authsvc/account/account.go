// Package account owns who may log in: the address, the password's hash, roles and attributes, and the code that proves
// an address. It knows nothing of names and pictures (package profile) nor of tokens and sessions.
package account

import (
	"context"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// User is one account.
type User struct {
	ID           string // UUIDv7
	Email        string // as NormalizeEmail makes it; unique
	PasswordHash string // argon2id in PHC form
	Roles        []string
	Attributes   map[string]string // what policies may look at, as department
	VerifiedAt   *time.Time        // nil until the address is proved
	DisabledAt   *time.Time        // nil while the account may be used
	CreatedAt    time.Time
	UpdatedAt    time.Time
}

// Verified reports whether the address has been proved.
func (u User) Verified() bool { return u.VerifiedAt != nil }

// Disabled reports whether the account has been shut.
func (u User) Disabled() bool { return u.DisabledAt != nil }

// Code proves an address once. A user has at most one.
type Code struct {
	UserID    string
	Hash      []byte // HMAC-SHA-256; the code itself is only in the mail
	ExpiresAt time.Time
	Attempts  int // wrong guesses so far
}

// The failures of a Store.
var (
	ErrNotFound    = fault.New(fault.NotFound, "There is no such user.").Named("user_not_found")
	ErrEmailTaken  = fault.New(fault.Conflict, "The address has an account already.").Named("email_taken")
	ErrVerified    = fault.New(fault.Conflict, "The address is verified already.").Named("email_verified")
	ErrCodeInvalid = fault.New(fault.Invalid, "The code is wrong, used or expired.").Named("code_invalid")
)

// Store keeps users and their codes. Each method is one atomic step; storetest.Run is its contract. A database that
// cannot be reached is fault.Unavailable.
type Store interface {
	// Create adds u and, unless nil, its code. Jobs commit with the user or not at all. It answers ErrEmailTaken.
	Create(ctx context.Context, u User, code *Code, jobs ...job.Job) error
	// ByID answers ErrNotFound for an unknown id.
	ByID(ctx context.Context, id string) (User, error)
	// ByEmail finds by the normalized address. It answers ErrNotFound.
	ByEmail(ctx context.Context, email string) (User, error)
	// NewCode replaces the password hash and the code of a user whose address is not verified (u.ID, u.PasswordHash and
	// u.UpdatedAt are read; the code's attempts start anew). It answers ErrVerified, having changed nothing, if it is.
	NewCode(ctx context.Context, u User, code Code, jobs ...job.Job) error
	// SpendCode compares hash with the user's code in constant time. The right one is deleted and the address is marked
	// verified at now, exactly once however many ask at the same moment. A wrong one counts as an attempt; with
	// maxAttempts used up, or from ExpiresAt on, even the right one is refused. It answers ErrCodeInvalid for every refusal.
	SpendCode(ctx context.Context, userID string, hash []byte, maxAttempts int, now time.Time) error
	// Enqueue adds jobs that no change of a user causes, all or none.
	Enqueue(ctx context.Context, jobs ...job.Job) error
}
