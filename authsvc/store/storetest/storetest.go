// Package storetest is the contract that the doc comments of account.Store, session.Store, token.Store, profile.Store,
// role.Store and directory.Store state, as tests: every implementation passes Run, races included. All times are fixed; nothing here looks at a clock.
package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/directory"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/role"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
)

// Set is the stores over one database, and two views of what they have committed that no Store shows.
type Set struct {
	Accounts  account.Store
	Sessions  session.Store
	Keys      token.Store
	Profiles  profile.Store
	Roles     role.Store
	Directory directory.Store
	// Jobs answers the jobs that wait, oldest first. Their Args are json.RawMessage.
	Jobs func(context.Context) ([]job.Job, error)
	// Revocations answers the revocations in the order of their ids.
	Revocations func(context.Context) ([]session.Revocation, error)
}

// Run holds what open answers to the contract. open answers a new, empty set each time, and undoes it when its test ends.
func Run(t *testing.T, open func(*testing.T) Set) {
	t.Helper()
	accounts(t, open)
	codes(t, open)
	sessions(t, open)
	rotations(t, open)
	revocations(t, open)
	keys(t, open)
	profiles(t, open)
	roles(t, open)
	bindings(t, open)
	expiry(t, open)
	subjects(t, open)
	audits(t, open)
	directories(t, open)
}

// check runs one clause of the contract on a set of its own.
func check(t *testing.T, open func(*testing.T) Set, name string, clause func(t *testing.T, s Set)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		clause(t, open(t))
	})
}

// noon is when everything here begins. Its digits beyond a microsecond and its zone are to be lost in a database.
func noon() time.Time {
	return time.Date(2026, 3, 1, 13, 0, 0, 123456789, time.FixedZone("CET", 3600))
}

// kept is a time as a store answers it.
func kept(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// tick is the smallest difference between two times that a store keeps.
const tick = time.Microsecond

// racers is how many ask at the same moment.
const racers = 50

// race calls fn n times at the same moment and answers what each made.
func race[T any](n int, fn func(i int) T) []T {
	out := make([]T, n)
	gate := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-gate
			out[i] = fn(i)
		})
	}
	close(gate)
	wg.Wait()
	return out
}

// tally counts the errors that match each target, and fails for one that matches none.
func tally(t *testing.T, errs []error, targets ...error) []int {
	t.Helper()
	n := make([]int, len(targets))
next:
	for _, err := range errs {
		for i, target := range targets {
			if errors.Is(err, target) {
				n[i]++
				continue next
			}
		}
		t.Errorf("one of the racers got: %v", err)
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// got is must for a method that answers a value.
func got[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	document := func(p cmp.Path) bool { return p.Last().Type() == reflect.TypeFor[json.RawMessage]() }
	if diff := cmp.Diff(want, got, cmp.Comparer(sameTime), cmp.FilterPath(document, cmp.Comparer(sameJSON))); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// sameTime is stricter than Equal: a store answers UTC.
func sameTime(a, b time.Time) bool { return a.Equal(b) && a.Location() == b.Location() }

// sameJSON disregards spaces and the order of members, which a database need not keep.
func sameJSON(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

// mail is a job that can be told from others of its kind.
func mail(to string) job.Job {
	return job.SendMail(job.Mail{Template: job.RegistrationAttempt, To: to})
}

// broken are lists of jobs of which not all can be queued, so that none is and the change with them neither.
func broken() map[string][]job.Job {
	return map[string][]job.Job{
		"a job of unknown kind":        {mail("a@x.test"), {Kind: "no.such", Args: 1}},
		"a job that cannot be encoded": {mail("a@x.test"), {Kind: job.KindMail, Args: func() {}}},
	}
}

// wantJobs compares the jobs that wait with want, in their order.
func wantJobs(t *testing.T, s Set, want ...job.Job) {
	t.Helper()
	waiting := got[[]job.Job](t)(s.Jobs(t.Context()))
	encoded := make([]job.Job, len(want))
	for i, j := range want {
		raw, err := json.Marshal(j.Args)
		must(t, err)
		encoded[i] = job.Job{Kind: j.Kind, Args: json.RawMessage(raw)}
	}
	if len(waiting) == 0 && len(want) == 0 {
		return
	}
	same(t, "the jobs that wait", waiting, encoded)
}

func wantRevocations(t *testing.T, s Set, want ...session.Revocation) {
	t.Helper()
	stored := got[[]session.Revocation](t)(s.Revocations(t.Context()))
	if len(stored) == 0 && len(want) == 0 {
		return
	}
	same(t, "the revocations", stored, want)
}

func pointer[T any](v T) *T { return &v }

// hash is what a store is given of a code or a token.
func hash(plain string) []byte {
	sum := sha256.Sum256([]byte(plain))
	return sum[:]
}
