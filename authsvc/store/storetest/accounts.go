package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

// ada is a user whose address is not proved, as a store answers her.
func ada() account.User {
	return account.User{
		ID: "u1", Email: "ada@x.test", PasswordHash: "$argon2id$ada", Roles: []string{"customer", "auditor"},
		Attributes: map[string]string{"department": "sales"}, CreatedAt: kept(noon()), UpdatedAt: kept(noon().Add(time.Second)),
	}
}

func accounts(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a user is found as it was created", func(t *testing.T, s Set) {
		given := ada()
		given.CreatedAt, given.VerifiedAt, given.DisabledAt = noon(), pointer(noon().Add(tick)), pointer(noon().Add(time.Hour))
		must(t, s.Accounts.Create(t.Context(), given, nil))
		expected := ada()
		expected.VerifiedAt, expected.DisabledAt = pointer(kept(noon().Add(tick))), pointer(kept(noon().Add(time.Hour)))
		same(t, "by id", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), expected)
		same(t, "by address", got[account.User](t)(s.Accounts.ByEmail(t.Context(), "ada@x.test")), expected)
	})

	check(t, open, "a user needs no roles, attributes, code or jobs", func(t *testing.T, s Set) {
		given := ada()
		given.Roles, given.Attributes = nil, nil
		must(t, s.Accounts.Create(t.Context(), given, nil))
		u := got[account.User](t)(s.Accounts.ByID(t.Context(), "u1"))
		if len(u.Roles) != 0 || len(u.Attributes) != 0 || u.Verified() || u.Disabled() {
			t.Errorf("something was added: %+v", u)
		}
		wantJobs(t, s)
	})

	check(t, open, "who is not there is not found", func(t *testing.T, s Set) {
		must(t, s.Accounts.Create(t.Context(), ada(), nil))
		_, err := s.Accounts.ByID(t.Context(), "ada@x.test")
		want(t, err, account.ErrNotFound)
		_, err = s.Accounts.ByEmail(t.Context(), "u1")
		want(t, err, account.ErrNotFound)
	})

	check(t, open, "email is unique, and a refused user leaves nothing", func(t *testing.T, s Set) {
		must(t, s.Accounts.Create(t.Context(), ada(), &account.Code{UserID: "u1", Hash: hash("right"), ExpiresAt: noon().Add(time.Minute)}))
		twin := ada()
		twin.ID, twin.PasswordHash = "u2", "$argon2id$twin"
		want(t, s.Accounts.Create(t.Context(), twin, &account.Code{UserID: "u2", Hash: hash("wrong"), ExpiresAt: noon().Add(time.Minute)},
			mail("twin@x.test")), account.ErrEmailTaken)
		_, err := s.Accounts.ByID(t.Context(), "u2")
		want(t, err, account.ErrNotFound)
		same(t, "the first", got[account.User](t)(s.Accounts.ByEmail(t.Context(), "ada@x.test")), ada())
		wantJobs(t, s)
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 1, noon()))
	})

	check(t, open, "of parallel creates of one address one wins (S72)", func(t *testing.T, s Set) {
		errs := race(racers, func(i int) error {
			u := ada()
			u.ID = fmt.Sprint("u", i)
			return s.Accounts.Create(t.Context(), u, nil, mail(u.ID))
		})
		same(t, "won, refused", tally(t, errs, nil, account.ErrEmailTaken), []int{1, racers - 1})
		winner := got[account.User](t)(s.Accounts.ByEmail(t.Context(), "ada@x.test"))
		wantJobs(t, s, mail(winner.ID))
	})

	check(t, open, "jobs commit with the user, in their order", func(t *testing.T, s Set) {
		jobs := []job.Job{
			job.SendMail(job.Mail{
				Template: job.VerificationCode, To: "ada@x.test", Data: map[string]string{"code": "012345"}, ExpiresAt: kept(noon()),
			}),
			job.CreateProfile(job.Profile{UserID: "u1", Name: "Ada <\u2028> \"Lovelace\""}),
			job.PublishRevocation(job.Revocation{Kind: "sub", Value: "u1", NotBefore: kept(noon()), ExpiresAt: kept(noon())}),
		}
		must(t, s.Accounts.Create(t.Context(), ada(), nil, jobs...))
		wantJobs(t, s, jobs...)
	})

	for name, jobs := range broken() {
		check(t, open, name+" leaves neither user nor job", func(t *testing.T, s Set) {
			if s.Accounts.Create(t.Context(), ada(), nil, jobs...) == nil {
				t.Error("no complaint")
			}
			_, err := s.Accounts.ByID(t.Context(), "u1")
			want(t, err, account.ErrNotFound)
			wantJobs(t, s)
			must(t, s.Accounts.Create(t.Context(), ada(), nil)) // the address is free
		})
		check(t, open, name+" is not enqueued, nor are those beside it", func(t *testing.T, s Set) {
			if s.Accounts.Enqueue(t.Context(), jobs...) == nil {
				t.Error("no complaint")
			}
			wantJobs(t, s)
		})
	}

	check(t, open, "jobs are enqueued without a change", func(t *testing.T, s Set) {
		must(t, s.Accounts.Enqueue(t.Context()))
		must(t, s.Accounts.Enqueue(t.Context(), mail("a@x.test"), mail("b@x.test")))
		must(t, s.Accounts.Enqueue(t.Context(), mail("c@x.test")))
		wantJobs(t, s, mail("a@x.test"), mail("b@x.test"), mail("c@x.test"))
	})

	check(t, open, "who has hung up gets nothing done", func(t *testing.T, s Set) {
		gone, hangUp := context.WithCancel(t.Context())
		hangUp()
		want(t, s.Accounts.Create(gone, ada(), nil, mail("a@x.test")), context.Canceled)
		_, err := s.Accounts.ByID(t.Context(), "u1")
		want(t, err, account.ErrNotFound)
		wantJobs(t, s)
	})
}
