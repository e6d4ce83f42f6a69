// Package job says what is to be done after a change has been committed: send a mail, tell the edge of a revocation, make
// a profile. Domain packages hand jobs to their store, which commits them with the change that caused them or not at all;
// package work does them, at least once, so that each must bear being done twice. A job is plain data and knows neither
// the queue nor the database.
package job

import "time"

// The kinds of jobs. They are stored, so they never change their meaning.
const (
	KindMail       = "mail.send"
	KindRevocation = "revocation.publish"
	KindProfile    = "profile.create"
	KindExpiry     = "role.expire"
)

// Job is one thing to do. Args encodes as JSON and is decoded by the worker of that kind. It is done at once, or from At on.
type Job struct {
	Kind string
	Args any
	At   time.Time
}

// Template names a mail; package mail has its words.
type Template string

// The mails there are, and the Data that each wants.
const (
	VerificationCode    Template = "verification_code"    // Data: code
	RegistrationAttempt Template = "registration_attempt" // no Data
	RefreshTokenReused  Template = "refresh_token_reused" // no Data
)

// Mail is a mail to one address: To, or where To is empty the address that UserID has when the mail is sent. After
// ExpiresAt it would be of no use and is not sent; zero means always of use.
type Mail struct {
	Template  Template          `json:"template"`
	To        string            `json:"to,omitempty"`
	UserID    string            `json:"user_id,omitempty"`
	Data      map[string]string `json:"data,omitempty"`
	ExpiresAt time.Time         `json:"expires_at,omitzero"`
}

// Revocation ends tokens at the edge before they expire. Kind and Value are those of the revocation stream: sid, sub, jti,
// client_id or kid. NotBefore belongs to kind sub: tokens issued at or before it are dead. From ExpiresAt on no such token
// can be alive and the revocation may be forgotten.
type Revocation struct {
	Kind      string    `json:"kind"`
	Value     string    `json:"value"`
	NotBefore time.Time `json:"not_before,omitzero"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Profile is the first state of a user's profile. It knows neither address nor password.
type Profile struct {
	UserID string `json:"user_id"`
	Name   string `json:"name"`
}

// Expiry is the moment at which a role that somebody holds ends by itself.
type Expiry struct {
	At time.Time `json:"at"`
}

// SendMail queues a mail.
func SendMail(m Mail) Job { return Job{Kind: KindMail, Args: m} }

// PublishRevocation queues a revocation's entry in the stream that the edge reads. The row in the database is the store's.
func PublishRevocation(r Revocation) Job { return Job{Kind: KindRevocation, Args: r} }

// CreateProfile queues a profile; one that exists stays as it is.
func CreateProfile(p Profile) Job { return Job{Kind: KindProfile, Args: p} }

// ExpireRoles queues, for when it has come, that roles which end by then are taken away.
func ExpireRoles(at time.Time) Job { return Job{Kind: KindExpiry, Args: Expiry{at}, At: at} }
