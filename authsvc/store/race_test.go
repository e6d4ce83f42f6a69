package store_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// The races of storetest come as they come. Here PostgreSQL's locks bring about the one order of steps that hurts; SQLite
// lets nobody in between the steps of a transaction.

// deadline bounds the wait for what must come; it is long because the machine may be busy.
const deadline = 60 * time.Second

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// hold keeps what a statement locks until release.
func hold(t *testing.T, raw *sql.DB, statement string, args ...any) (release func()) {
	t.Helper()
	tx, err := raw.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := tx.Rollback(); err != nil {
			t.Error(err)
		}
	}
}

// waitForBlocked returns once n statements wait for a lock.
func waitForBlocked(t *testing.T, raw *sql.DB, n int) {
	t.Helper()
	const blocked = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
	eventually(t, "somebody waits for a lock", func(ctx context.Context) bool {
		var is int
		if err := raw.QueryRowContext(ctx, blocked).Scan(&is); err != nil {
			t.Fatal(err)
		}
		return is >= n
	})
}

// eventually asks until is answers true.
func eventually(t *testing.T, what string, is func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !is(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("in vain waited for this: %s", what)
		}
	}
}

func later[T any](fn func() T) <-chan T {
	c := make(chan T, 1)
	go func() { c <- fn() }()
	return c
}

// S13, S72: registering an address again while its code is being spent must not end in a deadlock, which would be a 503.
func TestSpendingACodeAndReplacingItTakeTheirLocksInOneOrder(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	db, raw := migrated(t, dsn), past(t, dsn)
	u := account.User{ID: "u1", Email: "ada@x.test", CreatedAt: noon(), UpdatedAt: noon()}
	code := account.Code{UserID: "u1", Hash: []byte("right"), ExpiresAt: noon().Add(time.Minute)}
	if err := db.Accounts().Create(t.Context(), u, &code); err != nil {
		t.Fatal(err)
	}
	release := hold(t, raw, `SELECT 1 FROM email_codes WHERE user_id = 'u1' FOR UPDATE`)
	spent := later(func() error { return db.Accounts().SpendCode(t.Context(), "u1", []byte("right"), 5, noon()) })
	waitForBlocked(t, raw, 1)
	replaced := later(func() error { return db.Accounts().NewCode(t.Context(), u, code) })
	waitForBlocked(t, raw, 2)
	release()
	if err := <-spent; err != nil {
		t.Errorf("spent: %v", err)
	}
	if err := <-replaced; !errors.Is(err, account.ErrVerified) {
		t.Errorf("replaced: %v", err)
	}
}

// S25, S72: a logout that commits between the steps of a refresh ends what the refresh has made.
func TestARefreshThatALogoutOvertakesIsUnknown(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	db, raw := migrated(t, dsn), past(t, dsn)
	if err := db.Accounts().Create(t.Context(), account.User{ID: "u1", CreatedAt: noon(), UpdatedAt: noon()}, nil); err != nil {
		t.Fatal(err)
	}
	s := session.Session{ID: "s1", UserID: "u1", CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour)}
	token := func(hash string) session.Refresh {
		return session.Refresh{Hash: []byte(hash), CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour)}
	}
	if err := db.Sessions().Create(t.Context(), s, token("first")); err != nil {
		t.Fatal(err)
	}
	// The refresh has spent its token and waits with the successor's hash, since another might be about to use the same.
	release := hold(t, raw, `INSERT INTO refresh_tokens (hash, session_id, created_at, expires_at, spent_at, next_hash)
		VALUES ('next', 's1', now(), now(), now(), '')`)
	var rotation session.Rotation
	rotated := later(func() (err error) {
		rotation, err = db.Sessions().Rotate(t.Context(), []byte("first"), token("next"), []byte("sealed"), noon(), time.Minute,
			func(session.Session) (session.Revocation, []job.Job) { panic("nothing has been reused") })
		return err
	})
	waitForBlocked(t, raw, 1)
	ended, err := db.Sessions().Revoke(t.Context(), "s1", session.ReasonLogout, session.Revocation{
		ID: "r1", Kind: "sid", Value: "s1", CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour),
	})
	if err != nil || !ended {
		t.Fatalf("the logout: %v, %v", ended, err)
	}
	release()
	if err := <-rotated; err != nil || rotation.Outcome != session.Unknown || rotation.Session.ID != "" {
		t.Errorf("the refresh: %+v, %v", rotation, err)
	}
}

// S72: changes of roles have an order before they look at anything, so that two that are fine alone cannot close a circle together.
func TestAChangeOfRolesWaitsBeforeItLooks(t *testing.T) {
	t.Parallel()
	dsn := testenv.Postgres(t)
	db, raw := migrated(t, dsn), past(t, dsn)
	cause := role.Cause{Actor: "boss", At: noon()}
	for _, name := range []string{"a", "b"} {
		if _, _, err := db.Roles().CreateRole(t.Context(), cause, role.Role{Name: name, CreatedAt: noon(), UpdatedAt: noon()}, nil); err != nil {
			t.Fatal(err)
		}
	}
	inherit := func(name, parent string) <-chan error {
		return later(func() error {
			_, _, err := db.Roles().UpdateRole(t.Context(), cause, name, func(r *role.Role) error {
				r.Inherits = []string{parent}
				return nil
			}, nil)
			return err
		})
	}
	release := hold(t, raw, `SELECT 1 FROM directory_state FOR UPDATE`)
	one, other := inherit("a", "b"), inherit("b", "a")
	waitForBlocked(t, raw, 2)
	release()
	first, second := <-one, <-other
	if first == nil {
		first, second = second, first
	}
	if !errors.Is(first, role.ErrCycle) || second != nil {
		t.Errorf("they answered %v and %v", first, second)
	}
}
