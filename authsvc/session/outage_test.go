package session_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// calls are all that changes a session, each for a token that is unspent or, for reuse, spent long ago.
func calls(f *fixture, s session.Session, token string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Start": func(ctx context.Context) error { _, _, err := f.Start(ctx, "u1", "web", nil); return err },
		"Refresh": func(ctx context.Context) error {
			r, successor, err := f.Refresh(ctx, token)
			if r.Outcome != "" || successor != "" {
				return errors.New("it answers " + string(r.Outcome))
			}
			return err
		},
		"End": func(ctx context.Context) error { return f.End(ctx, s.ID, session.ReasonLogout) },
	}
}

// Without the database nothing is begun, spent, ended or told, and afterwards each goes on where it was.
func TestADatabaseThatIsAwayLeavesSessionsAsTheyWere(t *testing.T) {
	t.Parallel()
	db, proxy := dbtest.Behind(t)
	f := newFixture(t, db, testenv.Redis(t))
	s, token := f.start(t)
	proxy.Stop()
	for name, call := range calls(f, s, token) {
		if err := call(t.Context()); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	proxy.Start(t)
	await.That(t, "the database answers again", func() bool { return db.Ready(t.Context()) == nil })
	f.wantEnded(t, true, nil)
	if n := db.Count(t, "sessions"); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
	same(t, "the session", f.stored(t, s.ID), s)
	_, token = f.refresh(t, token, session.Rotated)
	if err := f.End(t.Context(), s.ID, session.ReasonLogout); err != nil {
		t.Error(err)
	}
	f.wantEnded(t, true, nil, over(s, noon(), session.ReasonLogout))
	f.wantNoToken(t, token)
}

// S44: the database goes away when a session has been marked as ended and its jobs have not been queued.
func TestADatabaseThatGoesAwayWhileASessionEndsUndoesTheEnd(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(ctx context.Context, f *fixture, s session.Session, spent string) error{
		"log-out": func(ctx context.Context, f *fixture, s session.Session, _ string) error {
			return f.End(ctx, s.ID, session.ReasonLogout)
		},
		"reuse": func(ctx context.Context, f *fixture, _ session.Session, spent string) error {
			r, _, err := f.Refresh(ctx, spent)
			if r.Outcome != "" {
				return errors.New("it answers " + string(r.Outcome))
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, proxy := dbtest.Behind(t)
			f := newFixture(t, db, testenv.Redis(t))
			s, spent := f.start(t)
			_, newest := f.refresh(t, spent, session.Rotated)
			f.at(noon().Add(time.Hour))

			lock, err := db.Raw.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = lock.Rollback() }()
			if _, err := lock.ExecContext(t.Context(), `LOCK TABLE river_job`); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- end(t.Context(), f, s, spent) }()
			await.That(t, "the end waits for the jobs' table", func() bool {
				const blocked = `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`
				var n int
				if err := db.Raw.QueryRowContext(t.Context(), blocked).Scan(&n); err != nil {
					t.Fatal(err)
				}
				return n > 0
			})
			proxy.Stop()
			if err := <-done; fault.CodeOf(err) != fault.Unavailable {
				t.Errorf("it answers %v", err)
			}
			if err := lock.Rollback(); err != nil {
				t.Fatal(err)
			}
			proxy.Start(t)
			await.That(t, "the database answers again", func() bool { return db.Ready(t.Context()) == nil })
			f.wantEnded(t, true, nil)
			same(t, "the session", f.stored(t, s.ID), s)
			f.refresh(t, newest, session.Rotated)
		})
	}
}

// S25, S67: without Redis a session ends all the same, and its job is there to tell the edge later.
func TestWithoutRedisASessionEndsAndTheJobIsLeft(t *testing.T) {
	t.Parallel()
	dbtest.OnBoth(t, func(t *testing.T, db dbtest.DB) {
		u, err := url.Parse(testenv.Redis(t))
		if err != nil {
			t.Fatal(err)
		}
		proxy := testenv.NewProxy(t, u.Host)
		u.Host = proxy.Address
		f := newFixture(t, db, u.String())
		proxy.Stop()
		left, token := f.start(t)
		robbed, spent := f.start(t)
		f.refresh(t, spent, session.Rotated)
		at := noon().Add(time.Hour)
		f.at(at)
		if err := f.End(t.Context(), left.ID, session.ReasonLogout); err != nil {
			t.Error(err)
		}
		f.refresh(t, spent, session.Reused)
		f.refresh(t, token, session.Unknown)
		if n := strings.Count(f.log.String(), "revocation not published at once; its job will"); n != 2 {
			t.Errorf("the log says it %d times: %s", n, f.log)
		}
		f.wantNoToken(t, token, spent)
		proxy.Start(t)
		await.That(t, "Redis answers again", func() bool { return f.redis.Ping(t.Context()).Err() == nil })
		f.wantEnded(t, false, reuseMail(), over(left, at, session.ReasonLogout), over(robbed, at, session.ReasonReuse))
	})
}

// S25: whoever has asked for the end may hang up before the edge is told; it is told nevertheless, and for a second at most.
func TestAnEndIsToldThoughTheCallerHangsUp(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		ctx, hangUp := context.WithCancel(t.Context())
		f.Publisher = publishing(func(own context.Context, r session.Revocation) error {
			hangUp()
			if err := own.Err(); err != nil {
				return err
			}
			if end, bounded := own.Deadline(); !bounded || time.Until(end) > time.Second {
				t.Error("a Redis that hangs would be waited for")
			}
			return publisher{f}.Publish(own, r)
		})
		s, _ := f.start(t)
		if err := f.End(ctx, s.ID, session.ReasonLogout); err != nil {
			t.Error(err)
		}
		f.wantEnded(t, true, nil, over(s, noon(), session.ReasonLogout))
	})
}

type publishing func(context.Context, session.Revocation) error

func (p publishing) Publish(ctx context.Context, r session.Revocation) error { return p(ctx, r) }

// A caller who hung up before anything was done has changed nothing.
func TestACallerWhoHasGoneChangesNothing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		for name, call := range calls(f, s, token) {
			if err := call(gone); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.wantEnded(t, true, nil)
		if n := f.db.Count(t, "sessions"); n != 1 {
			t.Errorf("there are %d sessions", n)
		}
		f.refresh(t, token, session.Rotated)
	})
}
