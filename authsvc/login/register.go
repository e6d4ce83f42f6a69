package login

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

// DefaultRole is what everybody has who registers.
const DefaultRole = "customer"

// Register makes an account and mails a code that proves its address; nothing can be done with the account before. Its
// answer is the same for an address that is known: if it is proved, its owner gets a mail that says so; if it is not, the
// new password replaces the old one together with the code, so that nobody can lie in wait with an account for somebody
// else's address.
func (s *Service) Register(ctx context.Context, email, password, name string) error {
	normalized, err := account.NormalizeEmail(email)
	if err != nil {
		return err
	}
	if err := s.Check(password); err != nil {
		return err
	}
	// Before anything is looked up, so that each way takes as long.
	hash, err := s.Passwords.Hash(ctx, password)
	if err != nil {
		return fmt.Errorf("hash password: %w", err)
	}
	now := s.Now()
	u := account.User{
		ID: s.NewID(), Email: normalized, PasswordHash: hash, Roles: []string{DefaultRole}, CreatedAt: now, UpdatedAt: now,
	}
	code, mail, err := s.code(u)
	if err != nil {
		return err
	}
	err = s.Accounts.Create(ctx, u, &code, mail, newProfile(u.ID, name))
	if errors.Is(err, account.ErrEmailTaken) {
		return s.again(ctx, u)
	}
	if err != nil {
		return fmt.Errorf("store user: %w", err)
	}
	s.Log.InfoContext(ctx, "registered", "user_id", u.ID)
	return nil
}

// newProfile leaves a name with a zero byte empty, as the profile would: PostgreSQL would refuse the job, and with it the
// registration, of a new address only (S12).
func newProfile(userID, name string) job.Job {
	if strings.ContainsRune(name, 0) {
		name = ""
	}
	return job.CreateProfile(job.Profile{UserID: userID, Name: name})
}

// again is Register for an address that has an account.
func (s *Service) again(ctx context.Context, u account.User) error {
	known, err := s.Accounts.ByEmail(ctx, u.Email)
	if err != nil {
		return fmt.Errorf("find user: %w", err)
	}
	if !known.Verified() {
		known.PasswordHash, known.UpdatedAt = u.PasswordHash, u.UpdatedAt
		code, mail, err := s.code(known)
		if err != nil {
			return err
		}
		err = s.Accounts.NewCode(ctx, known, code, mail)
		if !errors.Is(err, account.ErrVerified) {
			return err
		}
	}
	return s.Accounts.Enqueue(ctx, job.SendMail(job.Mail{Template: job.RegistrationAttempt, To: known.Email}))
}

func (s *Service) code(u account.User) (account.Code, job.Job, error) {
	plain, code, err := s.Codes.New(u.ID)
	if err != nil {
		return account.Code{}, job.Job{}, err
	}
	return code, job.SendMail(job.Mail{
		Template: job.VerificationCode, To: u.Email, Data: map[string]string{"code": plain}, ExpiresAt: code.ExpiresAt,
	}), nil
}

// VerifyEmail spends the code that was mailed. Whatever is wrong, address or code, the answer is
// account.ErrCodeInvalid.
func (s *Service) VerifyEmail(ctx context.Context, email, code string) error {
	normalized, err := account.NormalizeEmail(email)
	if err != nil {
		return account.ErrCodeInvalid
	}
	u, err := s.Accounts.ByEmail(ctx, normalized)
	if errors.Is(err, account.ErrNotFound) {
		return account.ErrCodeInvalid
	}
	if err != nil {
		return err
	}
	if err := s.Accounts.SpendCode(ctx, u.ID, s.Codes.Hash(u.ID, code), account.MaxCodeAttempts, s.Now()); err != nil {
		return err
	}
	s.Log.InfoContext(ctx, "address proved", "user_id", u.ID)
	return nil
}

// NewUser is an account that the operator makes.
type NewUser struct {
	Email, Password, Name string
	Roles                 []string
	Attributes            map[string]string
}

// Add makes an account whose address counts as proved, and answers its id. It answers account.ErrEmailTaken.
func (s *Service) Add(ctx context.Context, n NewUser) (string, error) {
	email, err := account.NormalizeEmail(n.Email)
	if err != nil {
		return "", err
	}
	if err := s.Check(n.Password); err != nil {
		return "", err
	}
	hash, err := s.Passwords.Hash(ctx, n.Password)
	if err != nil {
		return "", fmt.Errorf("hash password: %w", err)
	}
	now := s.Now()
	u := account.User{
		ID: s.NewID(), Email: email, PasswordHash: hash, Roles: n.Roles, Attributes: n.Attributes,
		VerifiedAt: &now, CreatedAt: now, UpdatedAt: now,
	}
	if err := s.Accounts.Create(ctx, u, nil, newProfile(u.ID, n.Name)); err != nil {
		return "", err
	}
	return u.ID, nil
}
