// Package storetest is the contract of authsvc's stores: what the doc comments of account.Store, session.Store, token.Store
// and profile.Store promise, races included. Every implementation passes it.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/profile"
	"github.com/gatehouse-auth/gatehouse/authsvc/session"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
)

// Set is one new, empty set of stores over one database.
type Set struct {
	Accounts account.Store
	Sessions session.Store
	Keys     token.Store
	Profiles profile.Store

	// Jobs answers what is queued: the kind and the arguments of each job.
	Jobs func(ctx context.Context) ([]Job, error)
	// Revocations counts the rows of revocations for a value.
	Revocations func(ctx context.Context, value string) (int, error)
}

// Job is a queued job.
type Job struct {
	Kind string
	Args json.RawMessage
}

// Run holds a store against the contract. open answers a new, empty set.
func Run(t *testing.T, open func(*testing.T) Set) {
	for name, slice := range map[string]func(*testing.T, func(*testing.T) Set){
		"accounts": accounts, "codes": codes, "sessions": sessions, "rotation": rotation, "keys": keys, "profiles": profiles,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			slice(t, open)
		})
	}
}

// noon is when everything happens unless a test says otherwise.
func noon() time.Time { return time.Date(2026, time.March, 3, 12, 0, 0, 123456000, time.UTC) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// race calls f from n goroutines at once and answers what each got.
func race[T any](n int, f func(i int) (T, error)) ([]T, []error) {
	type result struct {
		i   int
		out T
		err error
	}
	begin, results := make(chan struct{}), make(chan result)
	for i := range n {
		go func() {
			<-begin
			out, err := f(i)
			results <- result{i, out, err}
		}()
	}
	close(begin)
	outs, errs := make([]T, n), make([]error, n)
	for range n {
		r := <-results
		outs[r.i], errs[r.i] = r.out, r.err
	}
	return outs, errs
}

func kinds(t *testing.T, s Set) map[string]int {
	t.Helper()
	jobs, err := s.Jobs(t.Context())
	must(t, err)
	n := map[string]int{}
	for _, j := range jobs {
		n[j.Kind]++
	}
	return n
}
