package storetest

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
)

func ada() account.User {
	return account.User{
		ID: "u1", Email: "ada@example.com", PasswordHash: "$argon2id$1", Roles: []string{"customer"},
		Attributes: map[string]string{"department": "sales"}, CreatedAt: noon(), UpdatedAt: noon(),
	}
}

func codeOf(userID, hash string) account.Code {
	return account.Code{UserID: userID, Hash: []byte(hash), ExpiresAt: noon().Add(10 * time.Minute)}
}

func mailTo(address string) job.Job {
	return job.SendMail(job.Mail{Template: job.RegistrationAttempt, To: address})
}

func accounts(t *testing.T, open func(*testing.T) Set) {
	t.Run("what is created is found by id and by address whatever its case", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		u := ada()
		at := noon().Add(time.Hour)
		u.VerifiedAt, u.DisabledAt = &at, &at
		must(t, s.Accounts.Create(ctx, u, nil))
		for _, find := range []func() (account.User, error){
			func() (account.User, error) { return s.Accounts.ByID(ctx, u.ID) },
			func() (account.User, error) { return s.Accounts.ByEmail(ctx, u.Email) },
			func() (account.User, error) { return s.Accounts.ByEmail(ctx, strings.ToUpper(u.Email)) },
		} {
			got, err := find()
			must(t, err)
			if diff := cmp.Diff(u, got); diff != "" {
				t.Error(diff)
			}
		}
		_, err := s.Accounts.ByID(ctx, "nobody")
		wantErr(t, err, account.ErrNotFound)
		_, err = s.Accounts.ByEmail(ctx, "nobody@example.com")
		wantErr(t, err, account.ErrNotFound)
	})
	t.Run("an address has one account, and a refused one leaves no job", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Accounts.Create(ctx, ada(), nil, mailTo("first@example.com")))
		twin := ada()
		twin.ID, twin.Email = "u2", "ADA@example.com"
		code := codeOf(twin.ID, "x")
		wantErr(t, s.Accounts.Create(ctx, twin, &code, mailTo("second@example.com")), account.ErrEmailTaken)
		if got := kinds(t, s); got[job.KindMail] != 1 {
			t.Errorf("jobs %v: the mail of the refused account was queued", got)
		}
		_, err := s.Accounts.ByID(ctx, twin.ID)
		wantErr(t, err, account.ErrNotFound)
	})
	t.Run("of accounts made at once for one address one is made", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		_, errs := race(20, func(i int) (struct{}, error) {
			u := ada()
			u.ID = fmt.Sprintf("u%d", i)
			return struct{}{}, s.Accounts.Create(ctx, u, nil, mailTo(u.Email))
		})
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
			} else if !errors.Is(err, account.ErrEmailTaken) {
				t.Error(err)
			}
		}
		if got := kinds(t, s)[job.KindMail]; made != 1 || got != 1 {
			t.Errorf("%d made, %d mails", made, got)
		}
	})
	t.Run("a job that nobody can do undoes the account", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		if err := s.Accounts.Create(ctx, ada(), nil, mailTo("x@example.com"), job.Job{Kind: "unheard.of"}); err == nil {
			t.Error("no error")
		}
		_, err := s.Accounts.ByID(ctx, ada().ID)
		wantErr(t, err, account.ErrNotFound)
		if got := kinds(t, s); len(got) != 0 {
			t.Errorf("jobs %v", got)
		}
	})
	t.Run("jobs without a change are queued all or none", func(t *testing.T) {
		t.Parallel()
		s, ctx := open(t), t.Context()
		must(t, s.Accounts.Enqueue(ctx, mailTo("a@example.com"), mailTo("b@example.com")))
		if err := s.Accounts.Enqueue(ctx, mailTo("c@example.com"), job.Job{Kind: "unheard.of"}); err == nil {
			t.Error("no error")
		}
		if got := kinds(t, s)[job.KindMail]; got != 2 {
			t.Errorf("%d mails", got)
		}
	})
}

// S13: codes are spent once, within their time, and guesses count.
func codes(t *testing.T, open func(*testing.T) Set) {
	const attempts = 5
	register := func(t *testing.T) Set {
		s, code := open(t), codeOf("u1", "right")
		must(t, s.Accounts.Create(t.Context(), ada(), &code))
		return s
	}
	t.Run("the right code proves the address once", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		at := noon().Add(time.Minute)
		must(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, at))
		u, err := s.Accounts.ByID(ctx, "u1")
		must(t, err)
		if u.VerifiedAt == nil || !u.VerifiedAt.Equal(at) || !u.UpdatedAt.Equal(at) {
			t.Errorf("verified %v, updated %v", u.VerifiedAt, u.UpdatedAt)
		}
		wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, at), account.ErrCodeInvalid)
	})
	t.Run("S72: of codes spent at once one counts", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		_, errs := race(50, func(int) (struct{}, error) {
			return struct{}{}, s.Accounts.SpendCode(ctx, "u1", []byte("right"), 100, noon())
		})
		spent := 0
		for _, err := range errs {
			if err == nil {
				spent++
			} else if !errors.Is(err, account.ErrCodeInvalid) {
				t.Error(err)
			}
		}
		if spent != 1 {
			t.Errorf("spent %d times", spent)
		}
	})
	t.Run("after too many guesses even the right code is refused, and guesses at once all count", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		_, errs := race(attempts, func(int) (struct{}, error) {
			return struct{}{}, s.Accounts.SpendCode(ctx, "u1", []byte("wrong"), attempts, noon())
		})
		for _, err := range errs {
			wantErr(t, err, account.ErrCodeInvalid)
		}
		wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, noon()), account.ErrCodeInvalid)
		u, err := s.Accounts.ByID(ctx, "u1")
		must(t, err)
		if u.Verified() {
			t.Error("verified")
		}
	})
	t.Run("the last guess may be right", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		for range attempts - 1 {
			wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("wrong"), attempts, noon()), account.ErrCodeInvalid)
		}
		must(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, noon()))
	})
	t.Run("a code ends at its time", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		end := noon().Add(10 * time.Minute)
		wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, end), account.ErrCodeInvalid)
		must(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, end.Add(-time.Microsecond)))
	})
	t.Run("nobody's code is refused", func(t *testing.T) {
		t.Parallel()
		wantErr(t, open(t).Accounts.SpendCode(t.Context(), "nobody", []byte("right"), attempts, noon()), account.ErrCodeInvalid)
	})
	t.Run("a new code comes with a new password, and the old one is worth nothing", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		for range attempts {
			wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("wrong"), attempts, noon()), account.ErrCodeInvalid)
		}
		u := ada()
		u.PasswordHash, u.UpdatedAt = "$argon2id$2", noon().Add(time.Minute)
		must(t, s.Accounts.NewCode(ctx, u, codeOf("u1", "newer"), mailTo(u.Email)))
		wantErr(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, noon()), account.ErrCodeInvalid)
		must(t, s.Accounts.SpendCode(ctx, "u1", []byte("newer"), attempts, noon()))
		got, err := s.Accounts.ByID(ctx, "u1")
		must(t, err)
		if got.PasswordHash != u.PasswordHash || kinds(t, s)[job.KindMail] != 1 {
			t.Errorf("hash %s, jobs %v", got.PasswordHash, kinds(t, s))
		}
	})
	t.Run("a proved address keeps its password", func(t *testing.T) {
		t.Parallel()
		s, ctx := register(t), t.Context()
		must(t, s.Accounts.SpendCode(ctx, "u1", []byte("right"), attempts, noon()))
		u := ada()
		u.PasswordHash = "$argon2id$2"
		wantErr(t, s.Accounts.NewCode(ctx, u, codeOf("u1", "newer"), mailTo(u.Email)), account.ErrVerified)
		got, err := s.Accounts.ByID(ctx, "u1")
		must(t, err)
		if got.PasswordHash != ada().PasswordHash || len(kinds(t, s)) != 0 {
			t.Errorf("hash %s, jobs %v", got.PasswordHash, kinds(t, s))
		}
	})
}
