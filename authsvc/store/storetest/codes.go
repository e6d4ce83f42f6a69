package storetest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
)

// code is good until noon and a minute.
func code(plain string) account.Code {
	return account.Code{UserID: "u1", Hash: hash(plain), ExpiresAt: noon().Add(time.Minute)}
}

// later is when codes are spent here.
func later() time.Time { return noon().Add(30 * time.Second) }

// unproved opens a set with ada, who has the code "right".
func unproved(t *testing.T, s Set) {
	t.Helper()
	c := code("right")
	must(t, s.Accounts.Create(t.Context(), ada(), &c))
}

// codes is S13 and, of the spending of codes, S72.
func codes(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "the right code proves the address once (S13)", func(t *testing.T, s Set) {
		unproved(t, s)
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, later()))
		proved := ada()
		proved.VerifiedAt, proved.UpdatedAt = pointer(kept(later())), kept(later())
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), proved)
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, later()), account.ErrCodeInvalid)
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), proved)
	})

	check(t, open, "a wrong code proves nothing, and the right one still may", func(t *testing.T, s Set) {
		unproved(t, s)
		for _, guess := range [][]byte{hash("wrong"), hash("right")[:31], append(hash("right"), 0), {}, nil} {
			want(t, s.Accounts.SpendCode(t.Context(), "u1", guess, 6, later()), account.ErrCodeInvalid)
		}
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), ada())
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 6, later()))
	})

	check(t, open, "with the attempts used up the right code is refused (S13)", func(t *testing.T, s Set) {
		unproved(t, s)
		for range 3 {
			want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("wrong"), 3, later()), account.ErrCodeInvalid)
		}
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 3, later()), account.ErrCodeInvalid)
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), ada())
	})

	check(t, open, "a code is good until it expires, to the microsecond (S13)", func(t *testing.T, s Set) {
		unproved(t, s)
		end := code("right").ExpiresAt
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, end), account.ErrCodeInvalid)
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, end.Add(-tick)))
	})

	check(t, open, "a code proves no other user's address (S13)", func(t *testing.T, s Set) {
		unproved(t, s)
		bob := ada()
		bob.ID, bob.Email = "u2", "bob@x.test"
		bobs := account.Code{UserID: "u2", Hash: hash("bobs"), ExpiresAt: noon().Add(time.Minute)}
		must(t, s.Accounts.Create(t.Context(), bob, &bobs))
		want(t, s.Accounts.SpendCode(t.Context(), "u2", hash("right"), 5, later()), account.ErrCodeInvalid)
		must(t, s.Accounts.SpendCode(t.Context(), "u2", hash("bobs"), 5, later()))
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, later())) // bob's use of his own has not touched it
	})

	check(t, open, "who has no code has nothing to spend", func(t *testing.T, s Set) {
		must(t, s.Accounts.Create(t.Context(), ada(), nil))
		want(t, s.Accounts.SpendCode(t.Context(), "u1", nil, 5, later()), account.ErrCodeInvalid)
		want(t, s.Accounts.SpendCode(t.Context(), "nobody", hash("right"), 5, later()), account.ErrCodeInvalid)
	})

	check(t, open, "parallel code spends verify once (S13, S72)", func(t *testing.T, s Set) {
		unproved(t, s)
		errs := race(racers, func(i int) error {
			return s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 2*racers, later().Add(time.Duration(i)*time.Second/racers))
		})
		same(t, "verified, refused", tally(t, errs, nil, account.ErrCodeInvalid), []int{1, racers - 1})
		u := got[account.User](t)(s.Accounts.ByID(t.Context(), "u1"))
		for i, err := range errs {
			if err == nil {
				same(t, "verified at", u.VerifiedAt, pointer(kept(later().Add(time.Duration(i)*time.Second/racers))))
			}
		}
	})

	for _, limit := range []int{racers, racers + 1} {
		check(t, open, fmt.Sprintf("of %d attempts %d parallel wrong guesses all count (S13, S72)", limit, racers), func(t *testing.T, s Set) {
			unproved(t, s)
			errs := race(racers, func(int) error {
				return s.Accounts.SpendCode(t.Context(), "u1", hash("wrong"), limit, later())
			})
			same(t, "refused", tally(t, errs, account.ErrCodeInvalid), []int{racers})
			var expected error
			if limit == racers {
				expected = account.ErrCodeInvalid
			}
			want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), limit, later()), expected)
		})
	}

	newCodes(t, open)
}

// newCodes is S13 for codes that replace others, and S72 where one is spent meanwhile.
func newCodes(t *testing.T, open func(*testing.T) Set) {
	check(t, open, "a new code replaces code and password, and nothing else", func(t *testing.T, s Set) {
		unproved(t, s)
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("wrong"), 2, later()), account.ErrCodeInvalid)
		again := account.User{ID: "u1", Email: "eve@x.test", PasswordHash: "$argon2id$new", Roles: []string{"admin"}, UpdatedAt: later()}
		must(t, s.Accounts.NewCode(t.Context(), again, code("new"), mail("ada@x.test")))
		replaced := ada()
		replaced.PasswordHash, replaced.UpdatedAt = "$argon2id$new", kept(later())
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), replaced)
		wantJobs(t, s, mail("ada@x.test"))
		// The old code is wrong now, and the attempts have begun anew: there is a second one.
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 2, later()), account.ErrCodeInvalid)
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("new"), 2, later()))
	})

	check(t, open, "a new code expires when it says", func(t *testing.T, s Set) {
		unproved(t, s)
		fresh := code("new")
		fresh.ExpiresAt = noon().Add(time.Hour)
		must(t, s.Accounts.NewCode(t.Context(), ada(), fresh))
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("new"), 1, noon().Add(time.Hour-tick)))
	})

	check(t, open, "a user without a code gets one", func(t *testing.T, s Set) {
		must(t, s.Accounts.Create(t.Context(), ada(), nil))
		must(t, s.Accounts.NewCode(t.Context(), ada(), code("new")))
		must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("new"), 1, later()))
	})

	check(t, open, "a user whose address is proved gets no new code or password", func(t *testing.T, s Set) {
		proved := ada()
		proved.VerifiedAt = pointer(kept(noon()))
		must(t, s.Accounts.Create(t.Context(), proved, nil))
		again := proved
		again.PasswordHash, again.UpdatedAt = "$argon2id$new", later()
		want(t, s.Accounts.NewCode(t.Context(), again, code("new"), mail("ada@x.test")), account.ErrVerified)
		same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), proved)
		want(t, s.Accounts.SpendCode(t.Context(), "u1", hash("new"), 5, later()), account.ErrCodeInvalid)
		wantJobs(t, s)
	})

	for name, jobs := range broken() {
		check(t, open, name+" leaves code and password as they were", func(t *testing.T, s Set) {
			unproved(t, s)
			again := ada()
			again.PasswordHash = "$argon2id$new"
			if s.Accounts.NewCode(t.Context(), again, code("new"), jobs...) == nil {
				t.Error("no complaint")
			}
			same(t, "the user", got[account.User](t)(s.Accounts.ByID(t.Context(), "u1")), ada())
			wantJobs(t, s)
			must(t, s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 1, later()))
		})
	}

	// Whoever registers somebody else's address must not get in with the password of their own when the owner proves it.
	check(t, open, "a code that is spent while it is replaced never proves the address for another password (S72)", func(t *testing.T, s Set) {
		unproved(t, s)
		again := ada()
		again.PasswordHash = "$argon2id$new"
		errs := race(2, func(i int) error {
			if i == 0 {
				return s.Accounts.SpendCode(t.Context(), "u1", hash("right"), 5, later())
			}
			return s.Accounts.NewCode(t.Context(), again, code("new"), mail("ada@x.test"))
		})
		u := got[account.User](t)(s.Accounts.ByID(t.Context(), "u1"))
		switch spent, replaced := errs[0], errs[1]; {
		case spent == nil && errors.Is(replaced, account.ErrVerified):
			if !u.Verified() || u.PasswordHash != ada().PasswordHash {
				t.Errorf("the old code was spent: %+v", u)
			}
			wantJobs(t, s)
		case errors.Is(spent, account.ErrCodeInvalid) && replaced == nil:
			if u.Verified() || u.PasswordHash != again.PasswordHash {
				t.Errorf("the old code was replaced: %+v", u)
			}
			wantJobs(t, s, mail("ada@x.test"))
		default:
			t.Errorf("spent: %v, replaced: %v", spent, replaced)
		}
	})
}
