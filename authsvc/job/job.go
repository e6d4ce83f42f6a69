// Package job names the work that authsvc does after a request has been answered. A store inserts jobs in the transaction
// of the change that caused them, so that either both happen or neither; package work carries them out, at least once.
package job

import "time"

// The kinds of jobs. A kind is stored: it never changes its meaning.
const (
	KindVerifyEmail       = "mail.verify_email"
	KindAlreadyRegistered = "mail.already_registered"
	KindSessionEnded      = "mail.session_ended"
	KindPublishRevocation = "revocation.publish"
	KindCreateProfile     = "profile.create"
)

// Args is what a job is told. It is stored as JSON until the job is done.
type Args interface {
	Kind() string
}

// Job is one piece of work to do. Args encodes to JSON and is one of this package's types.
type Job struct {
	Kind string
	Args Args
}

// Of makes the job that args describe.
func Of(args Args) Job { return Job{Kind: args.Kind(), Args: args} }

// VerifyEmail mails the code that proves an address.
type VerifyEmail struct {
	To        string    `json:"to"`
	Code      string    `json:"code"`
	ExpiresAt time.Time `json:"expires_at"`
}

// AlreadyRegistered tells the owner of an account that somebody tried to register its address again.
type AlreadyRegistered struct {
	To string `json:"to"`
}

// SessionEnded tells a user that a spent refresh token was used again and that its session has therefore been ended.
type SessionEnded struct {
	To string    `json:"to"`
	At time.Time `json:"at"`
}

// PublishRevocation appends a revocation to the stream that the edge reads. Publishing it twice does no harm.
type PublishRevocation struct {
	RevokedKind string    `json:"revoked_kind"` // the claim to match: sid, sub, jti, client_id or kid
	Value       string    `json:"value"`
	NotBefore   time.Time `json:"not_before,omitzero"` // kind sub: tokens issued at or before are dead
	ExpiresAt   time.Time `json:"expires_at"`
}

// CreateProfile makes the profile of a new user. A profile that is there already stays as it is.
type CreateProfile struct {
	UserID string `json:"user_id"`
	Name   string `json:"name"`
}

// Kind implements Args.
func (VerifyEmail) Kind() string { return KindVerifyEmail }

// Kind implements Args.
func (AlreadyRegistered) Kind() string { return KindAlreadyRegistered }

// Kind implements Args.
func (SessionEnded) Kind() string { return KindSessionEnded }

// Kind implements Args.
func (PublishRevocation) Kind() string { return KindPublishRevocation }

// Kind implements Args.
func (CreateProfile) Kind() string { return KindCreateProfile }
