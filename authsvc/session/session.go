// Package session owns sessions and their refresh tokens. A session is one login; its refresh tokens form one family, of
// which at most one is unspent. A spent token that comes back after the grace ends the session (RFC 9700 section 4.14).
package session

import (
	"context"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Session is one login of one user.
type Session struct {
	ID        string // UUIDv7; the claim sid
	UserID    string
	ClientID  string
	AMR       []string  // how the user was authenticated (RFC 8176)
	CreatedAt time.Time // also the time of authentication
	ExpiresAt time.Time // the absolute end, however often it is refreshed
	RevokedAt *time.Time
	Reason    string // why it was revoked: ReasonLogout, ReasonReuse
}

// Alive reports whether the session may be used at now.
func (s Session) Alive(now time.Time) bool { return s.RevokedAt == nil && now.Before(s.ExpiresAt) }

// Why a session was revoked.
const (
	ReasonLogout = "logout"
	ReasonReuse  = "refresh_token_reused"
)

// Refresh is a stored refresh token. The token itself, 256 random bits, is only with the client.
type Refresh struct {
	Hash      []byte // SHA-256 of the token; the key
	SessionID string
	CreatedAt time.Time
	ExpiresAt time.Time // the idle limit
	SpentAt   *time.Time
	Successor []byte // sealed successor token, once spent
	NextHash  []byte // hash of the successor, once spent
}

// Outcome says what became of a presented refresh token.
type Outcome string

// The outcomes of Store.Rotate.
const (
	Rotated  Outcome = "rotated"  // it was unspent: now it is spent and its successor stored
	Replayed Outcome = "replayed" // it was spent within the grace and its successor is still unspent: the same again
	Reused   Outcome = "reused"   // it was spent, and neither excuse holds: somebody has a copy
	Expired  Outcome = "expired"  // the token or its session is past its time
	Unknown  Outcome = "unknown"  // there is no such token, or its session has been revoked
)

// Rotation is the answer of Store.Rotate. Session is set unless the outcome is Unknown.
type Rotation struct {
	Outcome   Outcome
	Session   Session
	Successor []byte // Replayed: what was sealed when the token was spent
}

// Revocation makes the edge refuse tokens that have not expired yet.
type Revocation struct {
	ID        string // UUIDv7
	Kind      string // the claim to match: "sid"
	Value     string
	NotBefore time.Time // kind "sub" only; zero otherwise
	CreatedAt time.Time
	ExpiresAt time.Time // from here on no such token can be alive
}

// Publisher tells the edge of a revocation at once. It is tried once after the commit; the job makes up for a failure.
type Publisher interface {
	Publish(ctx context.Context, r Revocation) error
}

// ErrNotFound is a Store's answer for an unknown session.
var ErrNotFound = fault.New(fault.NotFound, "There is no such session.").Named("session_not_found")

// Store keeps sessions, refresh tokens and revocations. Each method is one atomic step; storetest.Run is its contract.
// A database that cannot be reached is fault.Unavailable.
type Store interface {
	// Create adds a session with its first refresh token.
	Create(ctx context.Context, s Session, first Refresh) error
	// ByID answers ErrNotFound for an unknown id; a revoked or expired session is found.
	ByID(ctx context.Context, id string) (Session, error)
	// Rotate spends the token of this hash. For Rotated it sets SpentAt to now, stores sealed as its Successor and
	// next.Hash as its NextHash, and adds next with the session's id. However many present one token at the same moment,
	// one gets Rotated and, within the grace, the others Replayed. Outcomes are checked in the order: Unknown (no token,
	// session revoked), Reused or Replayed (spent), Expired, Rotated. A replay at exactly the grace's end still counts; one that
	// comes when the session has expired is Expired, since there is nothing left to go on with. At ExpiresAt it is too late.
	// For Reused it revokes the session with ReasonReuse and adds the revocation and the jobs that reused makes of the
	// session, all in the same step; reused only builds values and may run again after a lost race.
	Rotate(ctx context.Context, hash []byte, next Refresh, sealed []byte, now time.Time, grace time.Duration,
		reused func(Session) (Revocation, []job.Job)) (Rotation, error)
	// Revoke ends a session and adds the revocation; jobs commit with it. On a session that is revoked already it changes
	// nothing, adds no jobs and answers false. It answers ErrNotFound for an unknown id.
	// r.CreatedAt is when it ends.
	Revoke(ctx context.Context, id, reason string, r Revocation, jobs ...job.Job) (bool, error)
}
