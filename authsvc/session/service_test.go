package session_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// reuseMail tells the owner of u1's sessions.
func reuseMail() []job.Job {
	return []job.Job{job.SendMail(job.Mail{Template: job.RefreshTokenReused, UserID: "u1"})}
}

// S23: each session has an id and a token of its own, and the token is kept as its hash alone.
func TestASessionStartsAsItsLoginSays(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		same(t, "the session", s, session.Session{
			ID: s.ID, UserID: "u1", ClientID: "web", AMR: []string{"pwd"}, CreatedAt: noon(), ExpiresAt: noon().Add(30 * 24 * time.Hour),
		})
		same(t, "what is stored", f.stored(t, s.ID), s)
		if other, otherToken := f.start(t); other.ID == s.ID || otherToken == token {
			t.Error("two logins share an id or a token")
		}
		_, successor := f.refresh(t, token, session.Rotated)
		for _, secret := range []string{token, successor} {
			raw, err := base64.RawURLEncoding.DecodeString(secret)
			if err != nil {
				t.Fatal(err)
			}
			if found := append(f.db.Holds(t, secret), f.db.Holds(t, string(raw))...); found != nil {
				t.Errorf("a token is readable in %v", found)
			}
		}
		f.wantNoToken(t, token, successor)
	})
}

// S23: 256 bits, of which none is fixed.
func TestRefreshTokensCannotBeGuessed(t *testing.T) {
	t.Parallel()
	f := newFixture(t, dbtest.SQLite(t), testenv.Redis(t))
	const n = 64 // a bit that is by chance the same in all of them: once in 2^55 runs
	ones, zeros, seen := make([]byte, 32), make([]byte, 32), map[string]bool{}
	_, token := f.start(t)
	for range n {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
		if err != nil || len(raw) != 32 {
			t.Fatalf("a token of %d bytes: %v", len(raw), err)
		}
		for i, b := range raw {
			ones[i], zeros[i] = ones[i]|b, zeros[i]|^b
		}
		seen[token] = true
		if len(seen)%2 == 0 {
			_, token = f.start(t)
		} else {
			_, token = f.refresh(t, token, session.Rotated)
		}
	}
	full := bytes.Repeat([]byte{0xff}, 32)
	if len(seen) != n || !bytes.Equal(ones, full) || !bytes.Equal(zeros, full) {
		t.Errorf("%d different tokens of %d; bits that are ever one %x, ever zero %x", len(seen), n, ones, zeros)
	}
}

// S44: each token is good once and its successor goes on, with the session as it was.
func TestARefreshTokenIsSpentByItsUse(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		seen := map[string]bool{token: true}
		for day := range 5 {
			f.at(noon().Add(time.Duration(day) * 24 * time.Hour))
			var of session.Session
			of, token = f.refresh(t, token, session.Rotated)
			same(t, "the session", of, s)
			if seen[token] {
				t.Fatal("a token came twice")
			}
			seen[token] = true
		}
		f.wantEnded(t, true, nil)
	})
}

func TestWhatIsNoTokenOfOursIsUnknown(t *testing.T) {
	t.Parallel()
	f := newFixture(t, dbtest.SQLite(t), testenv.Redis(t))
	_, token := f.start(t)
	last := strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", token[42])
	twin := token[:42] + string("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last^1]) // the same bytes to a lax decoder
	for name, presented := range map[string]string{
		"nothing": "", "another": base64.RawURLEncoding.EncodeToString(make([]byte, 32)), "shorter": token[:42], "longer": token + "A",
		"padded": token + "=", "spaces": " " + token, "line feed": token + "\n", "line feed within": token[:8] + "\n" + token[8:], "NUL": token + "\x00",
		"in another case": strings.ToLower(token), "its twin": twin, "not UTF-8": "\xff\xfe", "SQL": "' OR 1=1 --", "very long": strings.Repeat("A", 1<<20),
	} {
		if presented == token {
			continue // a token without an upper-case letter: once in 10^9 runs
		}
		r, successor, err := f.Refresh(t.Context(), presented)
		if err != nil || successor != "" || r.Outcome != session.Unknown {
			t.Errorf("%s: %s, %q, %v", name, r.Outcome, successor, err)
		}
	}
	f.refresh(t, token, session.Rotated) // none of these has touched it
}

// S44, S72: two tabs that refresh at the same moment go on with one token, and so does whoever lost the answer.
func TestParallelRefreshesAreGivenOneSuccessor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		const tabs = 8
		var wg sync.WaitGroup
		var outcomes [tabs]session.Outcome
		var successors [tabs]string
		for i := range tabs {
			wg.Go(func() {
				r, successor, err := f.Refresh(t.Context(), token)
				if err != nil {
					t.Error(err)
				}
				outcomes[i], successors[i] = r.Outcome, successor
			})
		}
		wg.Wait()
		count := map[session.Outcome]int{}
		for i := range tabs {
			count[outcomes[i]]++
			if successors[i] != successors[0] || successors[i] == "" || successors[i] == token {
				t.Errorf("tab %d goes on with a token of its own", i)
			}
		}
		same(t, "outcomes", count, map[session.Outcome]int{session.Rotated: 1, session.Replayed: tabs - 1})

		f.at(noon().Add(session.Grace)) // the last moment that counts
		of, late := f.refresh(t, token, session.Replayed)
		same(t, "the session", of, s)
		if late != successors[0] {
			t.Error("a late tab goes on with a token of its own")
		}
		f.refresh(t, late, session.Rotated)
		f.wantEnded(t, true, nil)
	})
}

// S44: whoever comes with a spent token, once neither excuse holds, ends the session for everybody. The edge is told at
// once and the owner by mail, both also by jobs of the same transaction.
func TestASpentTokenThatComesBackEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, spend := range map[string]func(t *testing.T, f *fixture, token string) (at time.Time, newest string){
		"after the grace": func(t *testing.T, f *fixture, token string) (time.Time, string) {
			_, newest := f.refresh(t, token, session.Rotated)
			return noon().Add(session.Grace + tick), newest
		},
		"once its successor is spent, in the same moment": func(t *testing.T, f *fixture, token string) (time.Time, string) {
			_, next := f.refresh(t, token, session.Rotated)
			_, newest := f.refresh(t, next, session.Rotated)
			return noon(), newest
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onBoth(t, func(t *testing.T, f *fixture) {
				s, token := f.start(t)
				other, otherToken := f.start(t)
				at, newest := spend(t, f, token)
				f.at(at)
				dead := over(s, at, session.ReasonReuse)
				of, _ := f.refresh(t, token, session.Reused)
				same(t, "the session", of, dead)
				f.wantEnded(t, true, reuseMail(), dead)
				for _, member := range []string{token, newest} { // the owner's newest token as well, and nobody is told again
					f.refresh(t, member, session.Unknown)
				}
				f.wantEnded(t, true, reuseMail(), dead)
				same(t, "the other session", f.stored(t, other.ID), other)
				f.refresh(t, otherToken, session.Rotated)
				f.wantNoToken(t, token, newest, otherToken)
			})
		})
	}
}

// S24: a session that rests for 14 days is over, and so is every one after 30 days.
func TestASessionEndsAtItsLimits(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		const day = 24 * time.Hour
		_, idle := f.start(t)
		_, used := f.start(t)
		s, kept := f.start(t)
		f.at(noon().Add(14*day - tick))
		_, used = f.refresh(t, used, session.Rotated)
		_, kept = f.refresh(t, kept, session.Rotated)
		f.at(noon().Add(14 * day))
		f.refresh(t, idle, session.Expired)
		f.at(noon().Add(28*day - tick))
		f.refresh(t, used, session.Expired) // 14 days since its last use
		f.at(noon().Add(28*day - 2*tick))
		_, kept = f.refresh(t, kept, session.Rotated)
		f.at(noon().Add(30*day - tick))
		_, kept = f.refresh(t, kept, session.Rotated)
		if !s.Alive(f.clock()) {
			t.Error("it is over before its time")
		}
		f.at(noon().Add(30 * day))
		f.refresh(t, kept, session.Expired) // however often it has been used
		if s.Alive(f.clock()) {
			t.Error("it outlives its time")
		}
		f.wantEnded(t, true, nil) // what has expired needs no revocation: its access tokens have too
	})
}

// S25: a log-out ends the session once, however often it is asked for.
func TestEndingASessionTwiceIsEndingItOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		f.refresh(t, token, session.Rotated)
		told := job.SendMail(job.Mail{Template: job.RegistrationAttempt, UserID: "u1"})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := f.End(t.Context(), s.ID, session.ReasonLogout, told); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		f.at(noon().Add(time.Minute))
		if err := f.End(t.Context(), s.ID, "later", told); err != nil {
			t.Error(err)
		}
		f.wantEnded(t, true, []job.Job{told}, over(s, noon(), session.ReasonLogout))
		f.refresh(t, token, session.Unknown)
		if err := f.End(t.Context(), "no such session", session.ReasonLogout); !errors.Is(err, session.ErrNotFound) {
			t.Errorf("a session that never was: %v", err)
		}
	})
}

// S66: a successor that cannot be opened, since the row or the key is another's, is given to nobody and ends nothing.
func TestASuccessorIsOpenedByItsOwnKeyAndRow(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		s, token := f.start(t)
		_, other := f.start(t)
		f.refresh(t, token, session.Rotated)
		f.refresh(t, other, session.Rotated)
		right := f.Box
		f.Box = box(t, 2)
		if r, successor, err := f.Refresh(t.Context(), token); err == nil || successor != "" || r.Outcome != "" {
			t.Errorf("by another key: %s, %q", r.Outcome, successor)
		}
		f.Box = right
		f.db.Exec(t, `UPDATE refresh_tokens SET successor = (
			SELECT x.successor FROM refresh_tokens x WHERE x.session_id <> $1 AND x.successor IS NOT NULL)
			WHERE session_id = $1 AND successor IS NOT NULL`, s.ID)
		if r, successor, err := f.Refresh(t.Context(), token); err == nil || successor != "" || r.Outcome != "" {
			t.Errorf("another session's: %s, %q", r.Outcome, successor)
		}
		f.wantEnded(t, true, nil)
	})
}
