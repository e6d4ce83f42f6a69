package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

const (
	absolute = 24 * time.Hour
	idle     = time.Hour
	grace    = 30 * time.Second
)

// opened is a session of ada, as a store answers it.
func opened() session.Session {
	return session.Session{
		ID: "s1", UserID: "u1", ClientID: "first-party", AMR: []string{"pwd", "otp"},
		CreatedAt: kept(noon()), ExpiresAt: kept(noon().Add(absolute)),
	}
}

// refresh is a token that is made at the given time.
func refresh(plain string, at time.Time) session.Refresh {
	return session.Refresh{Hash: hash(plain), CreatedAt: at, ExpiresAt: at.Add(idle)}
}

// begun adds ada and her session s1, whose refresh token is "t0".
func begun(t *testing.T, s Set) {
	t.Helper()
	must(t, s.Accounts.Create(t.Context(), ada(), nil))
	must(t, s.Sessions.Create(t.Context(), opened(), refresh("t0", noon())))
}

// revocation is what ends the session of this id, and told the job that says so.
func revocation(of string) session.Revocation {
	return session.Revocation{
		ID: "r-" + of, Kind: "sid", Value: of, CreatedAt: kept(noon().Add(time.Minute)), ExpiresAt: kept(noon().Add(time.Hour)),
	}
}

func told(r session.Revocation) job.Job {
	return job.PublishRevocation(job.Revocation{Kind: r.Kind, Value: r.Value, ExpiresAt: r.ExpiresAt})
}

func ends(of session.Session) (session.Revocation, []job.Job) {
	r := revocation(of.ID)
	return r, []job.Job{told(r), mail(of.UserID)}
}

// rotate presents a token at a time; its successor would be next, sealed as "sealed " and next.
func rotate(ctx context.Context, s Set, presented, next string, at time.Time) (session.Rotation, error) {
	return s.Sessions.Rotate(ctx, hash(presented), refresh(next, at), []byte("sealed "+next), at, grace, ends)
}

// outcome is rotate for a test that only asks what became of the token.
func outcome(t *testing.T, s Set, presented, next string, at time.Time, want session.Outcome) session.Rotation {
	t.Helper()
	r := got[session.Rotation](t)(rotate(t.Context(), s, presented, next, at))
	if r.Outcome != want {
		t.Errorf("%s at noon and %v was %s, want %s", presented, at.Sub(noon()), r.Outcome, want)
	}
	return r
}

func stored(t *testing.T, s Set, id string) session.Session {
	t.Helper()
	return got[session.Session](t)(s.Sessions.ByID(t.Context(), id))
}

func sessions(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a session is found as it was created", func(t *testing.T, s Set) {
		must(t, s.Accounts.Create(t.Context(), ada(), nil))
		given := opened()
		given.CreatedAt, given.ExpiresAt = noon(), noon().Add(absolute)
		must(t, s.Sessions.Create(t.Context(), given, refresh("t0", noon())))
		same(t, "the session", stored(t, s, "s1"), opened())
	})

	check(t, open, "an unknown session is not found", func(t *testing.T, s Set) {
		begun(t, s)
		_, err := s.Sessions.ByID(t.Context(), "s2")
		want(t, err, session.ErrNotFound)
	})

	check(t, open, "a session is created with its first token or not at all", func(t *testing.T, s Set) {
		begun(t, s)
		second := opened()
		second.ID = "s2"
		if s.Sessions.Create(t.Context(), second, refresh("t0", noon())) == nil {
			t.Error("two sessions share a refresh token")
		}
		_, err := s.Sessions.ByID(t.Context(), "s2")
		want(t, err, session.ErrNotFound)
		same(t, "the session", outcome(t, s, "t0", "t1", noon(), session.Rotated).Session, opened())
	})
}

// revocations is S25 as far as it is the store's: refresh tokens die with their session, in a race (S72) too.
func revocations(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a session ends once, with its revocation and its jobs", func(t *testing.T, s Set) {
		begun(t, s)
		r := revocation("s1")
		if !got[bool](t)(s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, r, told(r), mail("a@x.test"))) {
			t.Error("it had not been revoked")
		}
		over := opened()
		over.RevokedAt, over.Reason = &r.CreatedAt, session.ReasonLogout
		same(t, "the session", stored(t, s, "s1"), over)
		again := r
		again.ID, again.CreatedAt = "r-again", r.CreatedAt.Add(time.Second)
		if got[bool](t)(s.Sessions.Revoke(t.Context(), "s1", session.ReasonReuse, again, told(again))) {
			t.Error("it was revoked twice")
		}
		same(t, "the session", stored(t, s, "s1"), over)
		wantRevocations(t, s, r)
		wantJobs(t, s, told(r), mail("a@x.test"))
	})

	check(t, open, "a revocation is kept as it was given", func(t *testing.T, s Set) {
		begun(t, s)
		r := session.Revocation{ID: "r1", Kind: "sub", Value: "u1", NotBefore: noon(), CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour)}
		got[bool](t)(s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, r))
		wantRevocations(t, s, session.Revocation{
			ID: "r1", Kind: "sub", Value: "u1", NotBefore: kept(noon()), CreatedAt: kept(noon()), ExpiresAt: kept(noon().Add(time.Hour)),
		})
	})

	check(t, open, "ending an unknown session is refused and leaves nothing", func(t *testing.T, s Set) {
		begun(t, s)
		ended, err := s.Sessions.Revoke(t.Context(), "s2", session.ReasonLogout, revocation("s2"), mail("a@x.test"))
		want(t, err, session.ErrNotFound)
		if ended {
			t.Error("it says that it ended one")
		}
		wantRevocations(t, s)
		wantJobs(t, s)
	})

	for name, jobs := range broken() {
		check(t, open, name+" leaves the session alive", func(t *testing.T, s Set) {
			begun(t, s)
			if ended, err := s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, revocation("s1"), jobs...); err == nil || ended {
				t.Errorf("no complaint, or it says that it ended one: %v", err)
			}
			same(t, "the session", stored(t, s, "s1"), opened())
			wantRevocations(t, s)
			wantJobs(t, s)
		})
	}

	check(t, open, "a revoked session's tokens are all unknown, spent or not, in time or not (S25)", func(t *testing.T, s Set) {
		begun(t, s)
		outcome(t, s, "t0", "t1", noon(), session.Rotated)
		r := revocation("s1")
		got[bool](t)(s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, r))
		for _, at := range []time.Time{noon(), noon().Add(grace), noon().Add(idle), noon().Add(absolute)} {
			for _, presented := range []string{"t0", "t1"} {
				same(t, "the answer", outcome(t, s, presented, "t2", at, session.Unknown), session.Rotation{Outcome: session.Unknown})
			}
		}
		wantRevocations(t, s, r)
		wantJobs(t, s)
	})

	check(t, open, "a session past its end can be revoked", func(t *testing.T, s Set) {
		begun(t, s)
		r := revocation("s1")
		r.CreatedAt = kept(noon().Add(2 * absolute))
		if !got[bool](t)(s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, r)) {
			t.Error("it had not been revoked")
		}
		outcome(t, s, "t0", "t1", noon().Add(2*absolute), session.Unknown)
	})

	check(t, open, "of parallel revocations one ends the session (S72)", func(t *testing.T, s Set) {
		begun(t, s)
		r := revocation("s1")
		errs := race(racers, func(i int) error {
			own := r
			own.ID = time.Duration(i).String()
			ended, err := s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, own, told(r))
			if err == nil && !ended {
				err = errAlready
			}
			return err
		})
		same(t, "ended, too late", tally(t, errs, nil, errAlready), []int{1, racers - 1})
		if n := len(got[[]session.Revocation](t)(s.Revocations(t.Context()))); n != 1 {
			t.Errorf("there are %d revocations", n)
		}
		wantJobs(t, s, told(r))
	})

	// Either order will do, but what was rotated before the end is dead after it, and nothing is rotated for a dead session.
	check(t, open, "a refresh that races a logout leaves no live token (S25, S72)", func(t *testing.T, s Set) {
		begun(t, s)
		presented := "t0"
		for i := range 20 { // a family with some history
			next := "t" + time.Duration(i+1).String()
			outcome(t, s, presented, next, noon(), session.Rotated)
			presented = next
		}
		r := revocation("s1")
		var rotation session.Rotation
		errs := race(2, func(i int) (err error) {
			if i == 0 {
				rotation, err = rotate(t.Context(), s, presented, "last", noon())
				return err
			}
			_, err = s.Sessions.Revoke(t.Context(), "s1", session.ReasonLogout, r, told(r))
			return err
		})
		must(t, errors.Join(errs...))
		switch rotation.Outcome {
		case session.Rotated:
			same(t, "the session of what was rotated", rotation.Session, opened())
		case session.Unknown:
		default:
			t.Errorf("it was %s", rotation.Outcome)
		}
		for _, token := range []string{presented, "last"} {
			outcome(t, s, token, "more", noon(), session.Unknown)
		}
		wantRevocations(t, s, r)
		wantJobs(t, s, told(r))
	})
}
