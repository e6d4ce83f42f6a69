package login_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/password"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

// S23: each login opens a session of its own, of which the access token names the id, and leaves the others as they are.
func TestALoginOpensASessionOfItsOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.add(t, ada, "admin", "support")
		first, second := f.login(t, ada), f.login(t, ada)
		if first.SessionID == second.SessionID || first.RefreshToken == second.RefreshToken || first.AccessToken == second.AccessToken {
			t.Error("two logins share something")
		}
		for _, g := range []login.Grant{first, second} {
			if g.ExpiresIn != 5*time.Minute {
				t.Errorf("the token lives %s", g.ExpiresIn)
			}
			p, err := f.Authenticate(t.Context(), g.AccessToken)
			must(t, err)
			same(t, "what the token says", []any{p.Subject, p.SessionID, p.ClientID, p.Roles, p.AMR, p.Attributes, p.AuthTime.UTC()}, []any{
				id, g.SessionID, login.ClientID, []string{"admin", "support"}, []string{"pwd"}, map[string]any{"department": "sales"}, noon(),
			})
			u, err := f.User(t.Context(), p)
			must(t, err)
			same(t, "the user", []any{u.ID, u.Email, u.Verified()}, []any{id, ada, true})
		}
		f.wantNoSecret(t, right, first.AccessToken, first.RefreshToken, second.AccessToken, second.RefreshToken)
	})
}

// S12: whoever has not the password is told the same and costs the same, whether there is such an account and in which
// state it is.
func TestWithoutThePasswordEveryAccountLooksAlike(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, "proved@x.test")
		f.disable(t, f.add(t, "disabled@x.test"))
		must(t, f.Register(t.Context(), "unproved@x.test", right, ""))
		emails := []string{
			"proved@x.test", "disabled@x.test", "unproved@x.test", "unknown@x.test", // all guesses for these, one for the others
			"PROVED@X.test", "no address", "", "a@b@c", ada + "\x00", strings.Repeat("a", 300) + "@x.test", "' OR 1=1 --",
		}
		for name, guess := range map[string]string{"a wrong password": wrong, "none": "", "of another case": strings.ToUpper(right), "with a space more": right + " "} {
			errs := map[string]error{}
			for i, email := range emails {
				if i >= 4 && guess != wrong {
					break
				}
				f.hashed.Store(0)
				g, err := f.Login(t.Context(), email, guess)
				errs[name+" for "+email] = err
				if n := f.hashed.Load(); n != 1 || g != (login.Grant{}) {
					t.Errorf("%s for %q: %d hashes, %+v", name, email, n, g)
				}
			}
			alike(t, errs, login.ErrCredentials)
		}
		// What is too long to have ever been accepted is hashed for nobody.
		errs := map[string]error{}
		f.hashed.Store(0)
		for _, email := range []string{"proved@x.test", "unknown@x.test", "no address"} {
			_, errs[email] = f.Login(t.Context(), email, strings.Repeat("x", 1025))
		}
		alike(t, errs, login.ErrCredentials)
		if n := f.db.Count(t, "sessions"); n != 0 {
			t.Errorf("%d sessions have been opened", n)
		}
		f.wantNoSecret(t, wrong, right, "proved@x.test", "unknown@x.test")
	})
}

// S12: that an address is unproved, or its account disabled, is for those who have the password.
func TestWhoHasThePasswordIsToldWhatIsMissing(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		code := f.register(t, "unproved@x.test")
		f.disable(t, f.add(t, "disabled@x.test"))
		must(t, f.Register(t.Context(), "both@x.test", right, ""))
		both, err := f.Accounts.ByEmail(t.Context(), "both@x.test")
		must(t, err)
		f.disable(t, both.ID)
		for email, target := range map[string]error{
			"unproved@x.test": login.ErrNotVerified, "disabled@x.test": login.ErrDisabled, "both@x.test": login.ErrDisabled,
		} {
			g, err := f.Login(t.Context(), email, right)
			want(t, email, err, target)
			if g != (login.Grant{}) {
				t.Errorf("%s: %+v", email, g)
			}
		}
		if n := f.db.Count(t, "sessions"); n != 0 {
			t.Errorf("%d sessions have been opened", n)
		}
		must(t, f.VerifyEmail(t.Context(), "unproved@x.test", code))
		f.login(t, "unproved@x.test")
	})
}

// A hash costs 19 MiB and a processor: for somebody who has hung up there is none.
func TestACallerWhoHasGoneCostsNoHash(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada)
		f.db.Forget(t)
		f.hashed.Store(0)
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		for name, call := range map[string]func() error{
			"login":            func() error { _, err := f.Login(gone, ada, right); return err },
			"login of nobody":  func() error { _, err := f.Login(gone, "unknown@x.test", wrong); return err },
			"login without @":  func() error { _, err := f.Login(gone, "no address", wrong); return err },
			"register":         func() error { return f.Register(gone, "bob@x.test", right, "") },
			"register a known": func() error { return f.Register(gone, ada, right, "") },
			"add":              func() error { _, err := f.Add(gone, login.NewUser{Email: "bob@x.test", Password: right}); return err },
		} {
			for range 10 { // of two ways that are open select takes either
				if err := call(); !errors.Is(err, context.Canceled) {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
		if n := f.hashed.Load(); n != 0 {
			t.Errorf("%d hashes for nobody", n)
		}
		same(t, "users, sessions, jobs", []int{f.db.Count(t, "users"), f.db.Count(t, "sessions"), f.db.Count(t, "river_job")}, []int{1, 0, 0})
	})
}

// With every turn taken a login is refused and not kept waiting, the known like the unknown, and opens nothing.
func TestWhenAllTurnsAreTakenALoginIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada)
		slow := f.add(t, "slow@x.test")
		pepper := []byte("a pepper of thirty-two bytes....")
		f.Passwords = password.New(password.Options{Pepper: pepper, AtOnce: 1, Wait: time.Millisecond})
		// The hash of this account takes a dozen times as long as others.
		f.db.Exec(t, `UPDATE users SET password_hash = replace(password_hash, 'm=19456,t=2', 'm=65536,t=8') WHERE id = $1`, slow)
		refused := map[string]bool{}
		for round := 0; len(refused) < 3 && round < 20; round++ {
			const slowly = 3
			done := make(chan error, slowly)
			for range slowly {
				go func() { _, err := f.Login(t.Context(), "slow@x.test", wrong); done <- err }()
			}
			busy := 0
			for i := range slowly {
				if err := <-done; errors.Is(err, password.ErrBusy) {
					busy++
				} else if !errors.Is(err, login.ErrCredentials) {
					t.Fatal(err)
				}
				if busy < slowly-1 || i != slowly-2 {
					continue
				}
				// The last of them has the turn, and most likely for long enough.
				for name, call := range map[string]func() error{
					"known":    func() error { _, err := f.Login(t.Context(), ada, wrong); return err },
					"unknown":  func() error { _, err := f.Login(t.Context(), "unknown@x.test", wrong); return err },
					"register": func() error { return f.Register(t.Context(), "bob@x.test", wrong, "") },
				} {
					if err := call(); errors.Is(err, password.ErrBusy) {
						refused[name] = true
					} else if err != nil && !errors.Is(err, login.ErrCredentials) {
						t.Fatal(err)
					}
				}
			}
		}
		if len(refused) != 3 {
			t.Errorf("only %v have been refused", refused)
		}
		f.Passwords = f.hasher
		f.login(t, ada)
	})
}

// S24, S25: a session that has ended, or never was this user's, makes its tokens worthless here.
func TestATokenIsWorthItsSession(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		adaID, bobID := f.add(t, ada), f.add(t, "bob@x.test")
		g, bobs := f.login(t, ada), f.login(t, "bob@x.test")
		p, err := f.Authenticate(t.Context(), g.AccessToken)
		must(t, err)
		for range 2 { // twice is once
			must(t, f.Logout(t.Context(), p))
		}
		_, err = f.Authenticate(t.Context(), g.AccessToken)
		want(t, "after the log-out", err, login.ErrRevoked)
		_, err = f.Refresh(t.Context(), g.RefreshToken)
		want(t, "refreshed after the log-out", err, login.ErrRefresh)
		if n := len(f.db.Revocations(t)); n != 1 {
			t.Errorf("%d revocations", n)
		}
		_, err = f.Authenticate(t.Context(), bobs.AccessToken)
		must(t, err)

		for name, of := range map[string]struct{ subject, session string }{
			"another user's session": {adaID, bobs.SessionID}, "no such session": {bobID, "018f3c00-0000-7000-8000-00000000dead"}, "none": {bobID, ""},
		} {
			minted := f.mint(t, of.subject, of.session)
			p, err := f.Authenticate(t.Context(), minted)
			if err == nil || p.Subject != "" {
				t.Errorf("%s: %v", name, err)
			}
		}
		f.db.Exec(t, `UPDATE sessions SET expires_at = created_at WHERE id = $1`, bobs.SessionID)
		_, err = f.Authenticate(t.Context(), bobs.AccessToken)
		want(t, "after the session's end", err, login.ErrRevoked)
		f.wantNoSecret(t, g.AccessToken, g.RefreshToken, bobs.AccessToken)
	})
}

// S26: of a user who is disabled or gone nothing is answered, though the token is good for some minutes yet.
func TestAUserWhoIsDisabledOrGoneIsNobody(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada, "customer")
		g := f.login(t, ada)
		p, err := f.Authenticate(t.Context(), g.AccessToken)
		must(t, err)
		f.disable(t, p.Subject)
		_, err = f.User(t.Context(), p)
		want(t, "disabled", err, login.ErrRevoked)
		f.db.Exec(t, `DELETE FROM users`)
		_, err = f.User(t.Context(), p)
		want(t, "gone", err, login.ErrRevoked)
		_, err = f.Authenticate(t.Context(), g.AccessToken)
		want(t, "gone, with the sessions", err, login.ErrRevoked)
		_, err = f.Refresh(t.Context(), g.RefreshToken)
		want(t, "refreshed when gone", err, login.ErrRefresh)
	})
}

// What a token says of the user is what is known when it is made.
func TestARefreshSaysWhatIsNowKnownOfTheUser(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		id := f.add(t, ada, "customer")
		g := f.login(t, ada)
		f.db.Exec(t, `UPDATE users SET roles = '["admin"]', attributes = '{}' WHERE id = $1`, id)
		f.at(noon().Add(time.Hour))
		next, err := f.Refresh(t.Context(), g.RefreshToken)
		must(t, err)
		p, err := f.Authenticate(t.Context(), next.AccessToken)
		must(t, err)
		same(t, "what the token says", []any{p.Subject, p.SessionID, p.Roles, len(p.Attributes), p.AuthTime.UTC(), p.AMR},
			[]any{id, g.SessionID, []string{"admin"}, 0, noon(), []string{"pwd"}})
		if next.RefreshToken == g.RefreshToken || next.SessionID != g.SessionID {
			t.Error("the refresh token is not another of the same session")
		}
		f.disable(t, id)
		none, err := f.Refresh(t.Context(), next.RefreshToken)
		want(t, "a disabled user", err, login.ErrDisabled)
		same(t, "its grant", none, login.Grant{})
	})
}

// S44: whatever is wrong with a refresh token, the answer is one; and a reused one has ended its session.
func TestEveryBadRefreshTokenIsAnsweredAlike(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada)
		reused, ended, idle := f.login(t, ada), f.login(t, ada), f.login(t, ada)
		next, err := f.Refresh(t.Context(), reused.RefreshToken)
		must(t, err)
		again, err := f.Refresh(t.Context(), reused.RefreshToken) // a second tab
		must(t, err)
		same(t, "the second tab's token", again.RefreshToken, next.RefreshToken)
		p, err := f.Authenticate(t.Context(), ended.AccessToken)
		must(t, err)
		must(t, f.Logout(t.Context(), p))
		f.at(noon().Add(2 * time.Minute))
		_, err = f.Authenticate(t.Context(), next.AccessToken)
		must(t, err)

		errs := map[string]error{}
		for name, token := range map[string]string{
			"unknown": strings.Repeat("A", 43), "nonsense": "x", "nothing": "", "of an ended session": ended.RefreshToken, "an access token": next.AccessToken,
			"reused": reused.RefreshToken,
		} {
			_, errs[name] = f.Refresh(t.Context(), token)
		}
		_, errs["the thief's or the owner's newest"] = f.Refresh(t.Context(), next.RefreshToken)
		_, err = f.Authenticate(t.Context(), next.AccessToken)
		want(t, "the access token of the reused family", err, login.ErrRevoked)
		f.at(noon().Add(session.Idle))
		_, errs["idle"] = f.Refresh(t.Context(), idle.RefreshToken)
		alike(t, errs, login.ErrRefresh)
		if n := len(f.db.Revocations(t)); n != 2 {
			t.Errorf("%d revocations, want the log-out's and the reuse's", n)
		}
		f.wantNoSecret(t, reused.RefreshToken, next.RefreshToken, next.AccessToken, ended.RefreshToken)
		if !strings.Contains(f.log.String(), "refresh token reused; session ended") {
			t.Errorf("the reuse is not logged: %s", f.log)
		}
	})
}

// An account has one address, however it is written.
func TestAnAddressIsOneInWhateverCase(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		code := f.register(t, "Ada@X.Test")
		must(t, f.VerifyEmail(t.Context(), "ADA@x.test", code))
		f.login(t, "aDa@x.tEST")
		u, err := f.Accounts.ByEmail(t.Context(), ada)
		must(t, err)
		same(t, "stored as", u.Email, ada)
		_, err = f.Add(t.Context(), login.NewUser{Email: "ADA@X.TEST", Password: right})
		want(t, "added again", err, account.ErrEmailTaken)
		if n := f.db.Count(t, "users"); n != 1 {
			t.Errorf("%d users", n)
		}
	})
}
