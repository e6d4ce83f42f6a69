// Package login is how somebody gets in and out: register, prove the address, log in, refresh, log out. Its answers do not
// tell whether an address has an account, neither by their content nor by the time they take, except to whoever knows the
// password.
package login

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// ClientID is the client of everybody who logs in here and not through another application.
const ClientID = "first-party"

// Accounts is what login needs of account.Store.
type Accounts interface {
	Create(ctx context.Context, u account.User, code *account.Code, jobs ...job.Job) error
	ByID(ctx context.Context, id string) (account.User, error)
	ByEmail(ctx context.Context, email string) (account.User, error)
	NewCode(ctx context.Context, u account.User, code account.Code, jobs ...job.Job) error
	SpendCode(ctx context.Context, userID string, hash []byte, maxAttempts int, now time.Time) error
	Enqueue(ctx context.Context, jobs ...job.Job) error
}

// Sessions is what login needs of session.Service.
type Sessions interface {
	Start(ctx context.Context, userID, clientID string, amr []string) (session.Session, string, error)
	Refresh(ctx context.Context, presented string) (session.Rotation, string, error)
	ByID(ctx context.Context, id string) (session.Session, error)
	End(ctx context.Context, id, reason string, jobs ...job.Job) error
}

// Passwords is what login needs of password.Hasher.
type Passwords interface {
	Hash(ctx context.Context, password string) (string, error)
	Verify(ctx context.Context, stored, password string) (bool, error)
	VerifyNobody(ctx context.Context, password string) error
}

// Tokens is what login needs of token.Ring.
type Tokens interface {
	Mint(ctx context.Context, c token.Claims) (string, time.Duration, error)
	Verify(ctx context.Context, raw string) (principal.Principal, error)
}

// Codes is what login needs of account.Codes.
type Codes interface {
	New(userID string) (plain string, stored account.Code, err error)
	Hash(userID, plain string) []byte
}

// Service is the flows. Check says whether a new password is good enough.
type Service struct {
	Accounts  Accounts
	Sessions  Sessions
	Passwords Passwords
	Tokens    Tokens
	Codes     Codes
	Check     func(password string) error
	Now       func() time.Time
	NewID     func() string // UUIDv7
	Log       *slog.Logger
}

// The refusals of the flows.
var (
	ErrCredentials = fault.New(fault.Unauthenticated, "The address or the password is wrong.").Named("invalid_credentials")
	ErrNotVerified = fault.New(fault.Forbidden, "Prove the address first, with the code that we have mailed.").Named("email_not_verified")
	ErrDisabled    = fault.New(fault.Forbidden, "This account is disabled.").Named("account_disabled")
	ErrRefresh     = fault.New(fault.Unauthenticated, "The refresh token is not valid; log in again.").Named("refresh_token_invalid")
	ErrRevoked     = fault.New(fault.Unauthenticated, "The session has ended.").Named("session_revoked")
)

// Grant is what a login or a refresh yields.
type Grant struct {
	AccessToken  string
	ExpiresIn    time.Duration
	RefreshToken string
	SessionID    string
}

// Login checks a password and opens a session. Whoever has the password is told that the address is unproved
// (ErrNotVerified) or the account disabled (ErrDisabled); anybody else gets ErrCredentials whatever is wrong.
func (s *Service) Login(ctx context.Context, email, password string) (Grant, error) {
	u, err := s.authenticate(ctx, email, password)
	if err != nil {
		return Grant{}, err
	}
	opened, refresh, err := s.Sessions.Start(ctx, u.ID, ClientID, []string{"pwd"})
	if err != nil {
		return Grant{}, err
	}
	s.Log.InfoContext(ctx, "logged in", "user_id", u.ID, "session_id", opened.ID)
	return s.grant(ctx, u, opened, refresh)
}

func (s *Service) authenticate(ctx context.Context, email, password string) (account.User, error) {
	var u account.User
	normalized, err := account.NormalizeEmail(email)
	if err == nil {
		u, err = s.Accounts.ByEmail(ctx, normalized)
	}
	switch {
	case errors.Is(err, account.ErrNotFound), errors.Is(err, account.ErrEmailInvalid):
		if err := s.Passwords.VerifyNobody(ctx, password); err != nil {
			return account.User{}, err
		}
		s.Log.InfoContext(ctx, "login refused", "reason", "unknown_address")
		return account.User{}, ErrCredentials
	case err != nil:
		return account.User{}, err
	}
	right, err := s.Passwords.Verify(ctx, u.PasswordHash, password)
	if err != nil {
		return account.User{}, err
	}
	refusal := (*fault.Error)(nil)
	switch {
	case !right:
		refusal = ErrCredentials
	case u.Disabled():
		refusal = ErrDisabled
	case !u.Verified():
		refusal = ErrNotVerified
	default:
		return u, nil
	}
	s.Log.InfoContext(ctx, "login refused", "reason", refusal.Reason, "user_id", u.ID)
	return account.User{}, refusal
}

// Refresh exchanges a refresh token for its successor and a new access token with what is now known of the user. A spent
// token that comes back too late has ended the session, of which the user is told by mail.
func (s *Service) Refresh(ctx context.Context, presented string) (Grant, error) {
	r, successor, err := s.Sessions.Refresh(ctx, presented)
	if err != nil {
		return Grant{}, err
	}
	switch r.Outcome {
	case session.Rotated, session.Replayed:
	case session.Reused:
		s.Log.WarnContext(ctx, "refresh token reused; session ended", "user_id", r.Session.UserID, "session_id", r.Session.ID)
		return Grant{}, ErrRefresh
	default:
		return Grant{}, ErrRefresh
	}
	u, err := s.Accounts.ByID(ctx, r.Session.UserID)
	if errors.Is(err, account.ErrNotFound) {
		return Grant{}, ErrRefresh
	}
	if err != nil {
		return Grant{}, err
	}
	if u.Disabled() {
		return Grant{}, ErrDisabled
	}
	return s.grant(ctx, u, r.Session, successor)
}

// Logout ends the caller's session.
func (s *Service) Logout(ctx context.Context, p principal.Principal) error {
	if err := s.Sessions.End(ctx, p.SessionID, session.ReasonLogout); err != nil {
		return err
	}
	s.Log.InfoContext(ctx, "logged out", "user_id", p.Subject, "session_id", p.SessionID)
	return nil
}

// Authenticate answers who an access token stands for, if its session is alive. An ended session is ErrRevoked.
func (s *Service) Authenticate(ctx context.Context, accessToken string) (principal.Principal, error) {
	p, err := s.Tokens.Verify(ctx, accessToken)
	if err != nil {
		return principal.Principal{}, err
	}
	now, err := s.Sessions.ByID(ctx, p.SessionID)
	if errors.Is(err, session.ErrNotFound) {
		return principal.Principal{}, ErrRevoked
	}
	if err != nil {
		return principal.Principal{}, err
	}
	if now.UserID != p.Subject || !now.Alive(s.Now()) {
		return principal.Principal{}, ErrRevoked
	}
	return p, nil
}

// User answers the caller's account.
func (s *Service) User(ctx context.Context, p principal.Principal) (account.User, error) {
	u, err := s.Accounts.ByID(ctx, p.Subject)
	if errors.Is(err, account.ErrNotFound) || (err == nil && u.Disabled()) {
		return account.User{}, ErrRevoked
	}
	return u, err
}

func (s *Service) grant(ctx context.Context, u account.User, of session.Session, refresh string) (Grant, error) {
	access, life, err := s.Tokens.Mint(ctx, token.Claims{
		Subject: u.ID, ClientID: of.ClientID, SessionID: of.ID, Roles: u.Roles, Attributes: u.Attributes,
		AMR: of.AMR, AuthTime: of.CreatedAt,
	})
	if err != nil {
		return Grant{}, err
	}
	return Grant{AccessToken: access, ExpiresIn: life, RefreshToken: refresh, SessionID: of.ID}, nil
}
