package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
)

var errAlready = errors.New("it had been revoked already")

// rotations is S44, and S24 as far as refresh tokens keep a session alive.
func rotations(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a token is spent for its successor, and that for the next", func(t *testing.T, s Set) {
		begun(t, s)
		first := session.Rotation{Outcome: session.Rotated, Session: opened()}
		same(t, "the first", outcome(t, s, "t0", "t1", noon().Add(time.Minute), session.Rotated), first)
		same(t, "the second", outcome(t, s, "t1", "t2", noon().Add(2*time.Minute), session.Rotated), first)
		same(t, "the session", stored(t, s, "s1"), opened())
		wantRevocations(t, s)
		wantJobs(t, s)
	})

	check(t, open, "what is no token is unknown, and so is what was to follow it", func(t *testing.T, s Set) {
		begun(t, s)
		for _, presented := range []string{"no token", "next"} {
			same(t, "the answer", outcome(t, s, presented, "next", noon(), session.Unknown), session.Rotation{Outcome: session.Unknown})
		}
		got := got[session.Rotation](t)(s.Sessions.Rotate(t.Context(), nil, refresh("next", noon()), nil, noon(), grace, ends))
		same(t, "no hash at all", got, session.Rotation{Outcome: session.Unknown})
		outcome(t, s, "t0", "t1", noon(), session.Rotated)
	})

	check(t, open, "a token is good until it expires, to the microsecond (S44)", func(t *testing.T, s Set) {
		begun(t, s)
		end := noon().Add(idle)
		same(t, "the answer", outcome(t, s, "t0", "t1", end, session.Expired), session.Rotation{Outcome: session.Expired, Session: opened()})
		outcome(t, s, "t1", "t2", end, session.Unknown)
		outcome(t, s, "t0", "t1", end.Add(-tick), session.Rotated)
		outcome(t, s, "t1", "t2", end.Add(idle), session.Expired)        // no: it was made a microsecond before
		outcome(t, s, "t1", "t2", end.Add(idle-2*tick), session.Rotated) // each use moves the idle limit
	})

	check(t, open, "no refresh outlives the session, to the microsecond (S24, S44)", func(t *testing.T, s Set) {
		begun(t, s)
		end := noon().Add(absolute)
		long := refresh("t1", noon())
		long.ExpiresAt = noon().Add(2 * absolute)
		got[session.Rotation](t)(s.Sessions.Rotate(t.Context(), hash("t0"), long, []byte("sealed t1"), noon(), grace, ends))
		same(t, "the answer", outcome(t, s, "t1", "t2", end, session.Expired), session.Rotation{Outcome: session.Expired, Session: opened()})
		outcome(t, s, "t1", "t2", end.Add(-tick), session.Rotated)
		// A replay within the grace would be answered with a token and thus with a live session.
		replay := outcome(t, s, "t1", "t3", end, session.Expired)
		same(t, "the answer", replay, session.Rotation{Outcome: session.Expired, Session: opened()})
		wantJobs(t, s)
	})

	check(t, open, "a replay within the grace gets the same successor, however often (S44)", func(t *testing.T, s Set) {
		begun(t, s)
		spent := noon().Add(time.Minute)
		outcome(t, s, "t0", "t1", spent, session.Rotated)
		replayed := session.Rotation{Outcome: session.Replayed, Session: opened(), Successor: []byte("sealed t1")}
		for _, since := range []time.Duration{0, grace / 2, grace} { // to the grace's very end
			same(t, "the replay", outcome(t, s, "t0", "branch", spent.Add(since), session.Replayed), replayed)
		}
		outcome(t, s, "branch", "t2", spent.Add(grace), session.Unknown)
		outcome(t, s, "t1", "t2", spent.Add(grace), session.Rotated)
		wantRevocations(t, s)
		wantJobs(t, s)
	})

	check(t, open, "a token spent in its last moment may be replayed after it (S44)", func(t *testing.T, s Set) {
		begun(t, s)
		outcome(t, s, "t0", "t1", noon().Add(idle-tick), session.Rotated)
		outcome(t, s, "t0", "branch", noon().Add(idle), session.Replayed)
	})

	for name, reuse := range map[string]func(*testing.T, Set) time.Time{
		"a replay after the grace": func(t *testing.T, s Set) time.Time {
			outcome(t, s, "t0", "t1", noon().Add(time.Minute), session.Rotated)
			return noon().Add(time.Minute + grace + tick)
		},
		"a replay once the successor is spent, within the grace": func(t *testing.T, s Set) time.Time {
			outcome(t, s, "t0", "t1", noon(), session.Rotated)
			outcome(t, s, "t1", "t2", noon().Add(tick), session.Rotated)
			return noon().Add(2 * tick)
		},
		"a replay when everything has expired": func(t *testing.T, s Set) time.Time {
			outcome(t, s, "t0", "t1", noon(), session.Rotated)
			return noon().Add(absolute)
		},
	} {
		check(t, open, name+" ends the family, with revocation and jobs (S44)", func(t *testing.T, s Set) {
			begun(t, s)
			other := opened()
			other.ID = "s2"
			must(t, s.Sessions.Create(t.Context(), other, refresh("other", noon())))
			at := reuse(t, s)
			over := opened()
			over.RevokedAt, over.Reason = pointer(kept(at)), session.ReasonReuse
			same(t, "the answer", outcome(t, s, "t0", "branch", at, session.Reused), session.Rotation{Outcome: session.Reused, Session: over})
			same(t, "the session", stored(t, s, "s1"), over)
			for _, token := range []string{"t0", "t1", "t2", "branch"} {
				outcome(t, s, token, "more", at, session.Unknown)
			}
			wantRevocations(t, s, revocation("s1"))
			wantJobs(t, s, told(revocation("s1")), mail("u1"))
			same(t, "the user's other session", stored(t, s, "s2"), other)
		})
	}

	for name, jobs := range broken() {
		check(t, open, name+" keeps a reused family alive, with its revocation unsaid (S44)", func(t *testing.T, s Set) {
			begun(t, s)
			outcome(t, s, "t0", "t1", noon(), session.Rotated)
			at := noon().Add(grace + tick)
			r, err := s.Sessions.Rotate(t.Context(), hash("t0"), refresh("branch", at), []byte("sealed"), at, grace,
				func(of session.Session) (session.Revocation, []job.Job) { return revocation(of.ID), jobs })
			if err == nil {
				t.Error("no complaint")
			}
			same(t, "the answer", r, session.Rotation{})
			same(t, "the session", stored(t, s, "s1"), opened())
			wantRevocations(t, s)
			wantJobs(t, s)
			outcome(t, s, "t0", "branch", at, session.Reused) // the next attempt does end it
		})
	}

	check(t, open, "only reuse asks what reuse entails, and tells of which session", func(t *testing.T, s Set) {
		begun(t, s)
		var asked []session.Session
		for _, step := range []struct {
			presented string
			at        time.Time
			want      session.Outcome
		}{
			{"t0", noon(), session.Rotated},
			{"t0", noon(), session.Replayed},
			{"none", noon(), session.Unknown},
			{"next", noon().Add(absolute), session.Expired},
		} {
			r := got[session.Rotation](t)(s.Sessions.Rotate(t.Context(), hash(step.presented), refresh("next", step.at), []byte("sealed"),
				step.at, grace, func(of session.Session) (session.Revocation, []job.Job) {
					asked = append(asked, of)
					return ends(of)
				}))
			same(t, "the outcome", r.Outcome, step.want)
		}
		if asked != nil {
			t.Errorf("asked for %+v", asked)
		}
		_, err := s.Sessions.Rotate(t.Context(), hash("t0"), refresh("branch", noon()), nil, noon().Add(grace+tick), grace,
			func(of session.Session) (session.Revocation, []job.Job) {
				asked = append(asked, of)
				return ends(of)
			})
		must(t, err)
		same(t, "asked for", asked, []session.Session{opened()})
	})

	check(t, open, "a token is not spent unless its successor is stored", func(t *testing.T, s Set) {
		begun(t, s)
		if _, err := rotate(t.Context(), s, "t0", "t0", noon()); err == nil {
			t.Error("a token follows itself")
		}
		outcome(t, s, "t0", "t1", noon(), session.Rotated)
	})

	races(t, open)
}

// races is S44 and S72 of refresh tokens.
func races(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "50 parallel refreshes give one successor (S44, S72)", func(t *testing.T, s Set) {
		begun(t, s)
		errs := make([]error, racers)
		answers := race(racers, func(i int) (r session.Rotation) {
			r, errs[i] = rotate(t.Context(), s, "t0", fmt.Sprint("n", i), noon().Add(time.Duration(i)*time.Second/2))
			return r
		})
		must(t, errors.Join(errs...))
		winner := ""
		for i, r := range answers {
			if r.Outcome == session.Rotated {
				if winner != "" {
					t.Errorf("%s and n%d both follow", winner, i)
				}
				winner = fmt.Sprint("n", i)
			}
		}
		for _, r := range answers {
			if r.Outcome == session.Rotated {
				continue
			}
			same(t, "the answer", r, session.Rotation{
				Outcome: session.Replayed, Session: opened(), Successor: []byte("sealed " + winner),
			})
		}
		for i := range racers {
			if n := fmt.Sprint("n", i); n != winner {
				outcome(t, s, n, "more", noon(), session.Unknown)
			}
		}
		outcome(t, s, winner, "more", noon(), session.Rotated)
		wantRevocations(t, s)
		wantJobs(t, s)
	})

	check(t, open, "parallel reuses end the family once (S44, S72)", func(t *testing.T, s Set) {
		begun(t, s)
		outcome(t, s, "t0", "t1", noon(), session.Rotated)
		answers := race(racers, func(i int) error {
			at := noon().Add(grace + tick)
			r, err := s.Sessions.Rotate(t.Context(), hash("t0"), refresh(fmt.Sprint("n", i), at), []byte("sealed"), at, grace,
				func(of session.Session) (session.Revocation, []job.Job) {
					r, jobs := ends(of)
					r.ID = fmt.Sprint("r", i)
					return r, jobs
				})
			switch {
			case err != nil:
				return err
			case r.Outcome == session.Unknown:
				return errAlready
			case r.Outcome != session.Reused:
				return fmt.Errorf("it was %s", r.Outcome)
			}
			return nil
		})
		same(t, "ended it, came too late", tally(t, answers, nil, errAlready), []int{1, racers - 1})
		if n := len(got[[]session.Revocation](t)(s.Revocations(t.Context()))); n != 1 {
			t.Errorf("there are %d revocations", n)
		}
		wantJobs(t, s, told(revocation("s1")), mail("u1"))
	})

	check(t, open, "a thief and the owner who race lose the family, and nobody keeps a branch (S44, S72)", func(t *testing.T, s Set) {
		begun(t, s)
		outcome(t, s, "t0", "t1", noon(), session.Rotated)
		at := noon().Add(grace + tick)
		errs := race(2, func(i int) error {
			_, err := rotate(t.Context(), s, fmt.Sprint("t", i), fmt.Sprint("n", i), at) // t0 is reused, t1 is in order
			return err
		})
		must(t, errors.Join(errs...))
		for _, token := range []string{"t0", "t1", "n0", "n1"} {
			outcome(t, s, token, "more", at, session.Unknown)
		}
		wantRevocations(t, s, revocation("s1"))
		wantJobs(t, s, told(revocation("s1")), mail("u1"))
	})
}
