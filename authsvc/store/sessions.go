package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

// Sessions is the session.Store.
type Sessions struct{ *DB }

const insertSession = `
	INSERT INTO sessions (id, user_id, client_id, amr, created_at, expires_at)
	VALUES ($1, $2, $3, $4, $5, $6)`

const insertRefresh = `
	INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at)
	VALUES ($1, $2, $3, $4)`

// Create adds a session and its first refresh token.
func (s Sessions) Create(ctx context.Context, n session.Session, first session.Refresh) error {
	amr, err := document(orEmpty(n.AMR))
	if err != nil {
		return err
	}
	return s.step(ctx, "create session", func(ctx context.Context, tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, insertSession, n.ID, n.UserID, n.ClientID, amr, stamp(n.CreatedAt),
			stamp(n.ExpiresAt)); err != nil {
			return err
		}
		return putRefresh(ctx, tx, n.ID, first)
	})
}

func putRefresh(ctx context.Context, tx *sql.Tx, sessionID string, r session.Refresh) error {
	_, err := tx.ExecContext(ctx, insertRefresh, r.Hash, sessionID, stamp(r.CreatedAt), stamp(r.ExpiresAt))
	return err
}

const selectSession = `
	SELECT id, user_id, client_id, amr, created_at, expires_at, revoked_at, reason
	FROM sessions WHERE id = $1`

// ByID finds a session, alive or not.
func (s Sessions) ByID(ctx context.Context, id string) (session.Session, error) {
	var found session.Session
	err := s.read(ctx, "find session", func(ctx context.Context) error {
		var err error
		found, err = scanSession(s.db.QueryRowContext(ctx, selectSession, id))
		if errors.Is(err, sql.ErrNoRows) {
			return session.ErrNotFound
		}
		return err
	})
	if err != nil {
		return session.Session{}, err
	}
	return found, nil
}

func scanSession(r row, more ...any) (session.Session, error) {
	var s session.Session
	var revoked sql.NullTime
	err := r.Scan(append([]any{&s.ID, &s.UserID, &s.ClientID, fromJSON{&s.AMR}, &s.CreatedAt, &s.ExpiresAt, &revoked,
		&s.Reason}, more...)...)
	s.CreatedAt, s.ExpiresAt, s.RevokedAt = s.CreatedAt.UTC(), s.ExpiresAt.UTC(), pointer(revoked)
	return s, err
}

// spend is the swap that decides a race: of all who present one token, it finds a row for the first only.
const spend = `
	UPDATE refresh_tokens SET spent_at = $2, successor = $3, next_hash = $4
	WHERE hash = $1 AND spent_at IS NULL AND expires_at > $2 AND EXISTS (
		SELECT 1 FROM sessions
		WHERE sessions.id = refresh_tokens.session_id AND sessions.revoked_at IS NULL AND sessions.expires_at > $2)
	RETURNING session_id`

// selectFamily is one snapshot of a token, its session and its successor.
const selectFamily = `
	SELECT s.id, s.user_id, s.client_id, s.amr, s.created_at, s.expires_at, s.revoked_at, s.reason,
		t.spent_at, t.successor, n.spent_at
	FROM refresh_tokens t
	JOIN sessions s ON s.id = t.session_id
	LEFT JOIN refresh_tokens n ON n.hash = t.next_hash
	WHERE t.hash = $1`

// Rotate spends a refresh token, answers the same successor to a replay in time, and ends the session for any other.
func (s Sessions) Rotate(ctx context.Context, hash []byte, next session.Refresh, sealed []byte, now time.Time,
	grace time.Duration, reused func(session.Session) (session.Revocation, []job.Job)) (session.Rotation, error) {
	var out session.Rotation
	err := s.step(ctx, "rotate refresh token", func(ctx context.Context, tx *sql.Tx) error {
		var sessionID string
		err := tx.QueryRowContext(ctx, spend, hash, stamp(now), sealed, next.Hash).Scan(&sessionID)
		first := err == nil
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if first {
			if err := putRefresh(ctx, tx, sessionID, next); err != nil {
				return err
			}
		}
		var spentAt, nextSpentAt sql.NullTime
		var successor []byte
		family, err := scanSession(tx.QueryRowContext(ctx, selectFamily, hash), &spentAt, &successor, &nextSpentAt)
		if errors.Is(err, sql.ErrNoRows) {
			out = session.Rotation{Outcome: session.Unknown}
			return nil
		}
		if err != nil {
			return err
		}
		out = session.Rotation{Session: family}
		switch {
		case family.RevokedAt != nil: // perhaps since the token was spent: its successor is as dead as the session
			out = session.Rotation{Outcome: session.Unknown}
		case first:
			out.Outcome = session.Rotated
		case !spentAt.Valid:
			out.Outcome = session.Expired
		case nextSpentAt.Valid || stamp(now).After(spentAt.Time.Add(grace)):
			return s.reuse(ctx, tx, &out, stamp(now), reused)
		case !family.Alive(now):
			out.Outcome = session.Expired
		default:
			out.Outcome, out.Successor = session.Replayed, successor
		}
		return nil
	})
	if err != nil {
		return session.Rotation{}, err
	}
	return out, nil
}

// reuse ends the family of out.
func (s Sessions) reuse(ctx context.Context, tx *sql.Tx, out *session.Rotation, now time.Time,
	reused func(session.Session) (session.Revocation, []job.Job)) error {
	r, jobs := reused(out.Session)
	ended, err := s.end(ctx, tx, out.Session.ID, session.ReasonReuse, now, r, jobs)
	if err != nil {
		return err
	}
	if !ended { // another request ended it meanwhile, and has told everyone
		*out = session.Rotation{Outcome: session.Unknown}
		return nil
	}
	out.Outcome = session.Reused
	out.Session.RevokedAt, out.Session.Reason = &now, session.ReasonReuse
	return nil
}

// Revoke ends a session once.
func (s Sessions) Revoke(ctx context.Context, id, reason string, r session.Revocation, jobs ...job.Job) (bool, error) {
	ended := false
	err := s.step(ctx, "revoke session", func(ctx context.Context, tx *sql.Tx) error {
		var err error
		if ended, err = s.end(ctx, tx, id, reason, stamp(r.CreatedAt), r, jobs); err != nil || ended {
			return err
		}
		_, err = scanSession(tx.QueryRowContext(ctx, selectSession, id))
		if errors.Is(err, sql.ErrNoRows) {
			return session.ErrNotFound
		}
		return err
	})
	return ended && err == nil, err
}

const endSession = `
	UPDATE sessions SET revoked_at = $2, reason = $3
	WHERE id = $1 AND revoked_at IS NULL
	RETURNING id`

const insertRevocation = `
	INSERT INTO revocations (id, kind, value, not_before, created_at, expires_at)
	VALUES ($1, $2, $3, $4, $5, $6)`

// end marks the session, and with it adds the revocation and the jobs; false if it has been ended before.
func (s Sessions) end(ctx context.Context, tx *sql.Tx, id, reason string, at time.Time, r session.Revocation,
	jobs []job.Job) (bool, error) {
	err := tx.QueryRowContext(ctx, endSession, id, at, reason).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if _, err := tx.ExecContext(ctx, insertRevocation, r.ID, r.Kind, r.Value, optional(&r.NotBefore), stamp(r.CreatedAt),
		stamp(r.ExpiresAt)); err != nil {
		return false, err
	}
	return true, s.queue.Insert(ctx, tx, jobs...)
}
