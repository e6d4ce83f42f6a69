package storetest

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

const grace = 30 * time.Second

func opened() (session.Session, session.Refresh) {
	return session.Session{
			ID: "s1", UserID: "u1", ClientID: "app", AMR: []string{"pwd"}, CreatedAt: noon(), ExpiresAt: noon().Add(24 * time.Hour),
		}, session.Refresh{
			Hash: []byte("first"), SessionID: "s1", CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour),
		}
}

// withSession answers stores that hold Ada and her session s1, whose first refresh token is "first".
func withSession(t *testing.T, open func(*testing.T) Set) Set {
	t.Helper()
	s := open(t)
	must(t, s.Accounts.Create(t.Context(), ada(), nil))
	of, first := opened()
	must(t, s.Sessions.Create(t.Context(), of, first))
	return s
}

func revocation(id string) (session.Revocation, job.Job) {
	r := session.Revocation{ID: id, Kind: "sid", Value: "s1", CreatedAt: noon().Add(time.Minute), ExpiresAt: noon().Add(time.Hour)}
	return r, job.PublishRevocation(job.Revocation{Kind: r.Kind, Value: r.Value, ExpiresAt: r.ExpiresAt})
}

func sessions(t *testing.T, open func(*testing.T) Set) {
	t.Run("what is created is found", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		want, _ := opened()
		got, err := s.Sessions.ByID(t.Context(), "s1")
		must(t, err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		_, err = s.Sessions.ByID(t.Context(), "s2")
		wantErr(t, err, session.ErrNotFound)
	})
	t.Run("revoking ends it once, with its revocation and jobs", func(t *testing.T) {
		t.Parallel()
		s, ctx := withSession(t, open), t.Context()
		answers, errs := race(20, func(i int) (bool, error) {
			r, j := revocation(fmt.Sprintf("r%d", i))
			return s.Sessions.Revoke(ctx, "s1", session.ReasonLogout, r, j)
		})
		ended := 0
		for i, err := range errs {
			must(t, err)
			if answers[i] {
				ended++
			}
		}
		rows, err := s.Revocations(ctx, "s1")
		must(t, err)
		if got := kinds(t, s)[job.KindRevocation]; ended != 1 || rows != 1 || got != 1 {
			t.Errorf("ended %d times, %d revocations, %d jobs", ended, rows, got)
		}
		got, err := s.Sessions.ByID(ctx, "s1")
		must(t, err)
		if got.RevokedAt == nil || !got.RevokedAt.Equal(noon().Add(time.Minute)) || got.Reason != session.ReasonLogout || got.Alive(noon().Add(2*time.Minute)) {
			t.Errorf("%+v", got)
		}
		r, j := revocation("other")
		_, err = s.Sessions.Revoke(ctx, "s2", session.ReasonLogout, r, j)
		wantErr(t, err, session.ErrNotFound)
	})
}

// rotate presents a token; its successor is named after the round.
func rotate(t *testing.T, s Set, hash, successor string, at time.Time) session.Rotation {
	t.Helper()
	r, err := try(t, s, hash, successor, at)
	must(t, err)
	return r
}

func try(t *testing.T, s Set, hash, successor string, at time.Time) (session.Rotation, error) {
	next := session.Refresh{Hash: []byte(successor), CreatedAt: at, ExpiresAt: at.Add(time.Hour)}
	return s.Sessions.Rotate(t.Context(), []byte(hash), next, []byte("sealed "+successor), at, grace,
		func(session.Session) (session.Revocation, []job.Job) {
			r, j := revocation("reuse of " + hash + " for " + successor)
			return r, []job.Job{j}
		})
}

func wantOutcome(t *testing.T, r session.Rotation, want session.Outcome) {
	t.Helper()
	if r.Outcome != want {
		t.Errorf("%s, want %s", r.Outcome, want)
	}
	if (r.Session.ID == "") != (want == session.Unknown) {
		t.Errorf("%s with session %q", r.Outcome, r.Session.ID)
	}
}

// S44: rotation, grace and reuse.
func rotation(t *testing.T, open func(*testing.T) Set) {
	t.Run("a token is spent for its successor, which is good in its turn", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		wantOutcome(t, rotate(t, s, "first", "second", noon()), session.Rotated)
		wantOutcome(t, rotate(t, s, "second", "third", noon()), session.Rotated)
		wantOutcome(t, rotate(t, s, "never issued", "x", noon()), session.Unknown)
	})
	t.Run("a replay gets the same successor up to the end of the grace", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		wantOutcome(t, rotate(t, s, "first", "second", noon()), session.Rotated)
		for _, at := range []time.Duration{0, grace} {
			r := rotate(t, s, "first", "another", noon().Add(at))
			wantOutcome(t, r, session.Replayed)
			if !bytes.Equal(r.Successor, []byte("sealed second")) {
				t.Errorf("successor %q", r.Successor)
			}
		}
		wantOutcome(t, rotate(t, s, "another", "x", noon()), session.Unknown) // no second branch
		wantOutcome(t, rotate(t, s, "second", "third", noon()), session.Rotated)
	})
	reused := func(t *testing.T, s Set, at time.Time) {
		t.Helper()
		r := rotate(t, s, "first", "stolen", at)
		wantOutcome(t, r, session.Reused)
		if r.Session.RevokedAt == nil || r.Session.Reason != session.ReasonReuse {
			t.Errorf("the answer says %+v", r.Session)
		}
		got, err := s.Sessions.ByID(t.Context(), "s1")
		must(t, err)
		rows, err := s.Revocations(t.Context(), "s1")
		must(t, err)
		if got.Reason != session.ReasonReuse || rows != 1 || kinds(t, s)[job.KindRevocation] != 1 {
			t.Errorf("session %+v, %d revocations, jobs %v", got, rows, kinds(t, s))
		}
		for _, hash := range []string{"first", "second", "stolen"} {
			wantOutcome(t, rotate(t, s, hash, "x"+hash, at), session.Unknown)
		}
	}
	t.Run("a replay after the grace ends the session", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		rotate(t, s, "first", "second", noon())
		reused(t, s, noon().Add(grace+time.Microsecond))
	})
	t.Run("a replay after the successor's use ends the session, even within the grace", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		rotate(t, s, "first", "second", noon())
		rotate(t, s, "second", "third", noon())
		reused(t, s, noon().Add(time.Second))
	})
	t.Run("S72: 50 refreshes at once give one successor", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		answers, errs := race(50, func(i int) (session.Rotation, error) {
			return try(t, s, "first", fmt.Sprintf("next %d", i), noon())
		})
		rotated, successor := 0, []byte(nil)
		for i, r := range answers {
			must(t, errs[i])
			switch r.Outcome {
			case session.Rotated:
				rotated, successor = rotated+1, fmt.Appendf(nil, "sealed next %d", i)
			case session.Replayed:
			default:
				t.Errorf("%s", r.Outcome)
			}
		}
		if rotated != 1 {
			t.Fatalf("%d were rotated", rotated)
		}
		for _, r := range answers {
			if r.Outcome == session.Replayed && !bytes.Equal(r.Successor, successor) {
				t.Errorf("a second branch: %q beside %q", r.Successor, successor)
			}
		}
	})
	t.Run("S72: reuse seen by many at once ends the session once", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		rotate(t, s, "first", "second", noon())
		answers, errs := race(20, func(i int) (session.Rotation, error) {
			return try(t, s, "first", fmt.Sprintf("next %d", i), noon().Add(time.Hour))
		})
		told := 0
		for i, r := range answers {
			must(t, errs[i])
			if r.Outcome == session.Reused {
				told++
			} else if r.Outcome != session.Unknown {
				t.Errorf("%s", r.Outcome)
			}
		}
		if told != 1 || kinds(t, s)[job.KindRevocation] != 1 {
			t.Errorf("told %d times, jobs %v", told, kinds(t, s))
		}
	})
	t.Run("S24: a token ends at its time, and no token outlives its session", func(t *testing.T) {
		t.Parallel()
		s := withSession(t, open)
		wantOutcome(t, rotate(t, s, "first", "x", noon().Add(time.Hour)), session.Expired)
		wantOutcome(t, rotate(t, s, "first", "second", noon().Add(time.Hour-time.Microsecond)), session.Rotated)
		must(t, s.Sessions.Create(t.Context(),
			session.Session{ID: "s2", UserID: "u1", ClientID: "app", CreatedAt: noon(), ExpiresAt: noon().Add(time.Minute)},
			session.Refresh{Hash: []byte("short"), CreatedAt: noon(), ExpiresAt: noon().Add(time.Hour)}))
		wantOutcome(t, rotate(t, s, "short", "x", noon().Add(time.Minute)), session.Expired)
	})
	t.Run("a revoked session's tokens are unknown", func(t *testing.T) {
		t.Parallel()
		s, ctx := withSession(t, open), t.Context()
		rotate(t, s, "first", "second", noon())
		r, j := revocation("r")
		ended, err := s.Sessions.Revoke(ctx, "s1", session.ReasonLogout, r, j)
		must(t, err)
		if !ended {
			t.Error("not ended")
		}
		for _, hash := range []string{"first", "second"} {
			wantOutcome(t, rotate(t, s, hash, "x", noon()), session.Unknown)
		}
	})
	t.Run("a refresh that races a logout leaves nothing that can be refreshed", func(t *testing.T) {
		t.Parallel()
		s, ctx := withSession(t, open), t.Context()
		_, errs := race(10, func(i int) (struct{}, error) {
			if i == 5 {
				r, j := revocation("r")
				_, err := s.Sessions.Revoke(ctx, "s1", session.ReasonLogout, r, j)
				return struct{}{}, err
			}
			_, err := try(t, s, "first", fmt.Sprintf("next %d", i), noon())
			return struct{}{}, err
		})
		for i, err := range errs {
			must(t, err)
			wantOutcome(t, rotate(t, s, fmt.Sprintf("next %d", i), fmt.Sprintf("later %d", i), noon()), session.Unknown)
		}
	})
}
