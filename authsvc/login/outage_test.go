package login_test

import (
	"context"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// A database that is away is said to be; nobody is told that a password, a code or a token is wrong, and nothing is spent.
func TestWithoutTheDatabaseNobodyIsJudged(t *testing.T) {
	t.Parallel()
	db, proxy := dbtest.Behind(t)
	f := newFixture(t, db)
	f.add(t, ada)
	code := f.register(t, "bob@x.test")
	g := f.login(t, ada)
	p, err := f.Authenticate(t.Context(), g.AccessToken)
	must(t, err)
	jobs := f.db.Count(t, "river_job")
	proxy.Stop()
	for name, call := range map[string]func() error{
		"Login":        func() error { _, err := f.Login(t.Context(), ada, right); return err },
		"Register":     func() error { return f.Register(t.Context(), "new@x.test", right, "") },
		"VerifyEmail":  func() error { return f.VerifyEmail(t.Context(), "bob@x.test", code) },
		"Refresh":      func() error { _, err := f.Refresh(t.Context(), g.RefreshToken); return err },
		"Authenticate": func() error { _, err := f.Authenticate(t.Context(), g.AccessToken); return err },
		"User":         func() error { _, err := f.User(t.Context(), p); return err },
		"Logout":       func() error { return f.Logout(t.Context(), p) },
	} {
		if err := call(); fault.CodeOf(err) != fault.Unavailable {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.back(t, proxy)
	same(t, "users, sessions, jobs", []int{db.Count(t, "users"), db.Count(t, "sessions"), db.Count(t, "river_job")}, []int{2, 1, jobs})
	must(t, f.VerifyEmail(t.Context(), "bob@x.test", code))
	_, err = f.Authenticate(t.Context(), g.AccessToken)
	must(t, err)
	_, err = f.Refresh(t.Context(), g.RefreshToken)
	must(t, err)
}

// back brings the database back and waits until it answers.
func (f *fixture) back(t *testing.T, proxy *testenv.Proxy) {
	t.Helper()
	proxy.Start(t)
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for f.db.Ready(t.Context()) != nil {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the database does not come back")
		}
	}
}

// fallible are the real sessions, after whose next refresh something happens.
type fallible struct {
	login.Sessions
	then func()
}

func (s fallible) Refresh(ctx context.Context, presented string) (session.Rotation, string, error) {
	r, successor, err := s.Sessions.Refresh(ctx, presented)
	s.then()
	return r, successor, err
}

// S44: a client whose token was spent when the database went away has lost the answer, and gets it when it asks again.
func TestAnAnswerThatWasLostIsGivenAgain(t *testing.T) {
	t.Parallel()
	db, proxy := dbtest.Behind(t)
	f := newFixture(t, db)
	f.add(t, ada)
	g := f.login(t, ada)
	sessions := f.Sessions
	f.Sessions = fallible{sessions, proxy.Stop}
	if lost, err := f.Refresh(t.Context(), g.RefreshToken); fault.CodeOf(err) != fault.Unavailable || lost != (login.Grant{}) {
		t.Errorf("%+v, %v", lost, err)
	}
	f.Sessions = sessions
	f.back(t, proxy)
	f.at(noon().Add(session.Grace))
	next, err := f.Refresh(t.Context(), g.RefreshToken)
	must(t, err)
	_, err = f.Refresh(t.Context(), next.RefreshToken)
	must(t, err)
	if n := len(db.Revocations(t)); n != 0 {
		t.Errorf("%d sessions have been ended", n)
	}
}
