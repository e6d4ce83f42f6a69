package session

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
)

// Limits of a session.
const (
	Absolute = 30 * 24 * time.Hour // from login to the last refresh
	Idle     = 14 * 24 * time.Hour // between two refreshes
	Grace    = 30 * time.Second    // in which a replayed token gets the same successor
)

// tokenSize is 256 bits of randomness.
const tokenSize = 32

// Service starts, continues and ends sessions.
type Service struct {
	Store     Store
	Box       *seal.Box
	Publisher Publisher
	// TokenLife is how long after its end a session's access tokens could still be taken for good: their lifetime and the
	// skew of clocks.
	TokenLife time.Duration
	Now       func() time.Time
	NewID     func() string // UUIDv7
	Log       *slog.Logger
}

// Start opens a session and answers it with its first refresh token.
func (s *Service) Start(ctx context.Context, userID, clientID string, amr []string) (Session, string, error) {
	now := s.Now()
	opened := Session{
		ID: s.NewID(), UserID: userID, ClientID: clientID, AMR: amr,
		CreatedAt: now, ExpiresAt: now.Add(Absolute),
	}
	plain, row := s.refresh(now)
	row.SessionID = opened.ID
	if err := s.Store.Create(ctx, opened, row); err != nil {
		return Session{}, "", fmt.Errorf("store session: %w", err)
	}
	return opened, plain, nil
}

// Refresh spends a refresh token. For Rotated and Replayed it answers the successor. For Reused it has ended the session,
// and the jobs that tell the edge and the user are queued with that.
func (s *Service) Refresh(ctx context.Context, presented string) (Rotation, string, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(presented)
	if err != nil || len(raw) != tokenSize {
		return Rotation{Outcome: Unknown}, "", nil //nolint:nilerr // what is no token of ours names no session
	}
	hash := hashOf(presented)
	now := s.Now()
	successor, next := s.refresh(now)
	var ended Revocation
	r, err := s.Store.Rotate(ctx, hash, next, s.Box.Seal([]byte(successor), hash), now, Grace,
		func(reused Session) (Revocation, []job.Job) {
			ended = s.revocation(reused.ID, now)
			mail := job.Mail{Template: job.RefreshTokenReused, UserID: reused.UserID}
			return ended, []job.Job{publication(ended), job.SendMail(mail)}
		})
	if err != nil {
		return Rotation{}, "", fmt.Errorf("rotate refresh token: %w", err)
	}
	switch r.Outcome {
	case Rotated:
		return r, successor, nil
	case Replayed:
		same, err := s.Box.Open(r.Successor, hash)
		if err != nil {
			return Rotation{}, "", fmt.Errorf("open the successor of a refresh token: %w", err)
		}
		return r, string(same), nil
	case Reused:
		s.publish(ctx, ended)
		return r, "", nil
	default:
		return r, "", nil
	}
}

// ByID answers a session, dead or alive.
func (s *Service) ByID(ctx context.Context, id string) (Session, error) { return s.Store.ByID(ctx, id) }

// End revokes a session: no token of its family is good any more, and the edge is told, at once if it can be reached and
// by a job in any case. Ending it again does nothing; jobs are only queued the first time.
func (s *Service) End(ctx context.Context, id, reason string, jobs ...job.Job) error {
	r := s.revocation(id, s.Now())
	ended, err := s.Store.Revoke(ctx, id, reason, r, append(jobs, publication(r))...)
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	if ended {
		s.publish(ctx, r)
	}
	return nil
}

func (s *Service) revocation(sessionID string, now time.Time) Revocation {
	return Revocation{ID: s.NewID(), Kind: "sid", Value: sessionID, CreatedAt: now, ExpiresAt: now.Add(s.TokenLife)}
}

func publication(r Revocation) job.Job {
	return job.PublishRevocation(job.Revocation{Kind: r.Kind, Value: r.Value, NotBefore: r.NotBefore, ExpiresAt: r.ExpiresAt})
}

// publish tells the edge at once. The caller may hang up meanwhile; the edge shall know nevertheless.
func (s *Service) publish(ctx context.Context, r Revocation) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := s.Publisher.Publish(ctx, r); err != nil {
		s.Log.WarnContext(ctx, "revocation not published at once; its job will", "revocation_id", r.ID, "error", err)
	}
}

// refresh makes a refresh token and its row, which lacks the session.
func (s *Service) refresh(now time.Time) (plain string, row Refresh) {
	raw := make([]byte, tokenSize)
	_, _ = rand.Read(raw) // never fails, by its documentation
	plain = base64.RawURLEncoding.EncodeToString(raw)
	return plain, Refresh{Hash: hashOf(plain), CreatedAt: now, ExpiresAt: now.Add(Idle)}
}

// hashOf is SHA-256: a token of 256 random bits needs no slow hash.
func hashOf(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}
