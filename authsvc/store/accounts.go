package store

import (
	"context"
	"crypto/subtle"
	"database/sql"
	"errors"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

// Accounts is the account.Store.
type Accounts struct{ *DB }

const insertUser = `
	INSERT INTO users (id, email, password_hash, roles, attributes, verified_at, disabled_at, created_at, updated_at)
	VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

const insertCode = `INSERT INTO email_codes (user_id, hash, attempts, expires_at) VALUES ($1, $2, 0, $3)`

// Create adds a user, its code unless nil, and jobs.
func (a Accounts) Create(ctx context.Context, u account.User, code *account.Code, jobs ...job.Job) error {
	roles, err := document(orEmpty(u.Roles))
	if err != nil {
		return err
	}
	if u.Attributes == nil {
		u.Attributes = map[string]string{}
	}
	attributes, err := document(u.Attributes)
	if err != nil {
		return err
	}
	return a.step(ctx, "create user", func(ctx context.Context, tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, insertUser, u.ID, u.Email, u.PasswordHash, roles, attributes,
			optional(u.VerifiedAt), optional(u.DisabledAt), stamp(u.CreatedAt), stamp(u.UpdatedAt))
		if a.dialect.violated(err, "users_email_key") {
			return account.ErrEmailTaken
		}
		if err != nil {
			return err
		}
		if code != nil {
			if _, err := tx.ExecContext(ctx, insertCode, u.ID, code.Hash, stamp(code.ExpiresAt)); err != nil {
				return err
			}
		}
		return a.queue.Insert(ctx, tx, jobs...)
	})
}

const selectUser = `
	SELECT id, email, password_hash, roles, attributes, verified_at, disabled_at, created_at, updated_at
	FROM users `

// ByID finds a user by id.
func (a Accounts) ByID(ctx context.Context, id string) (account.User, error) {
	return a.find(ctx, selectUser+`WHERE id = $1`, id)
}

// ByEmail finds a user by address, whatever its case.
func (a Accounts) ByEmail(ctx context.Context, email string) (account.User, error) {
	return a.find(ctx, selectUser+`WHERE lower(email) = lower($1)`, email)
}

func (a Accounts) find(ctx context.Context, query, by string) (account.User, error) {
	var u account.User
	err := a.read(ctx, "find user", func(ctx context.Context) error {
		var verified, disabled sql.NullTime
		err := a.db.QueryRowContext(ctx, query, by).Scan(&u.ID, &u.Email, &u.PasswordHash, fromJSON{&u.Roles},
			fromJSON{&u.Attributes}, &verified, &disabled, &u.CreatedAt, &u.UpdatedAt)
		if errors.Is(err, sql.ErrNoRows) {
			return account.ErrNotFound
		}
		u.VerifiedAt, u.DisabledAt = pointer(verified), pointer(disabled)
		u.CreatedAt, u.UpdatedAt = u.CreatedAt.UTC(), u.UpdatedAt.UTC()
		return err
	})
	if err != nil {
		return account.User{}, err
	}
	return u, nil
}

// The code's row is taken before the user's, as SpendCode takes them: in the other order the two could block each other.
const replaceCode = `
	INSERT INTO email_codes (user_id, hash, attempts, expires_at)
	SELECT id, $2, 0, $3 FROM users WHERE id = $1 AND verified_at IS NULL
	ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, attempts = 0, expires_at = excluded.expires_at
	RETURNING user_id`

//nolint:gosec // a statement, not a credential
const replacePassword = `
	UPDATE users SET password_hash = $2, updated_at = $3
	WHERE id = $1 AND verified_at IS NULL
	RETURNING id`

// NewCode replaces password and code of a user whose address is not verified.
func (a Accounts) NewCode(ctx context.Context, u account.User, code account.Code, jobs ...job.Job) error {
	return a.step(ctx, "replace code", func(ctx context.Context, tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, replaceCode, u.ID, code.Hash, stamp(code.ExpiresAt)).Scan(&u.ID)
		if err == nil {
			err = tx.QueryRowContext(ctx, replacePassword, u.ID, u.PasswordHash, stamp(u.UpdatedAt)).Scan(&u.ID)
		}
		if errors.Is(err, sql.ErrNoRows) {
			return account.ErrVerified
		}
		if err != nil {
			return err
		}
		return a.queue.Insert(ctx, tx, jobs...)
	})
}

// The attempt is counted before the hash is seen, so that parallel guesses cannot all be compared while the count still
// stands at zero. The row then belongs to this transaction until its end.
const countAttempt = `
	UPDATE email_codes SET attempts = attempts + 1
	WHERE user_id = $1 AND attempts < $2 AND expires_at > $3
	RETURNING hash`

const deleteCode = `DELETE FROM email_codes WHERE user_id = $1`

const markVerified = `
	UPDATE users SET verified_at = $2, updated_at = $2
	WHERE id = $1 AND verified_at IS NULL
	RETURNING id`

// SpendCode proves an address, once, by the hash of the code that was mailed to it.
func (a Accounts) SpendCode(ctx context.Context, userID string, hash []byte, maxAttempts int, now time.Time) error {
	right := false
	err := a.step(ctx, "spend code", func(ctx context.Context, tx *sql.Tx) error {
		var stored []byte
		err := tx.QueryRowContext(ctx, countAttempt, userID, maxAttempts, stamp(now)).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) {
			return account.ErrCodeInvalid
		}
		if err != nil {
			return err
		}
		if subtle.ConstantTimeCompare(stored, hash) != 1 {
			return nil // the attempt is to stay counted
		}
		if _, err := tx.ExecContext(ctx, deleteCode, userID); err != nil {
			return err
		}
		err = tx.QueryRowContext(ctx, markVerified, userID, stamp(now)).Scan(&userID)
		if errors.Is(err, sql.ErrNoRows) {
			return account.ErrCodeInvalid
		}
		right = err == nil
		return err
	})
	if err == nil && !right {
		return account.ErrCodeInvalid
	}
	return err
}

// Enqueue adds jobs that no change causes.
func (a Accounts) Enqueue(ctx context.Context, jobs ...job.Job) error {
	return a.step(ctx, "enqueue jobs", func(ctx context.Context, tx *sql.Tx) error {
		return a.queue.Insert(ctx, tx, jobs...)
	})
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
