package login_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/authsvc/job"
	"github.com/gatehouse-auth/gatehouse/authsvc/login"
	"github.com/gatehouse-auth/gatehouse/authsvc/password"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// S12: whoever registers learns nothing of who has registered before, by the answer or by what it costs; only the mails
// differ, and those go to the owner of the address.
func TestRegistrationAnswersAlikeForEveryAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, "proved@x.test")
		f.disable(t, f.add(t, "disabled@x.test"))
		old := f.register(t, "unproved@x.test")
		const other = "the password of whoever came later"
		mails := map[string]job.Mail{}
		for _, email := range []string{"new@x.test", "unproved@x.test", "proved@x.test", "disabled@x.test"} {
			f.db.Forget(t)
			f.hashed.Store(0)
			if err := f.Register(t.Context(), email, other, "Eve"); err != nil {
				t.Errorf("%s: %v", email, err)
			}
			if n := f.hashed.Load(); n != 1 {
				t.Errorf("%s costs %d hashes", email, n)
			}
			profiles := 0
			for _, j := range f.db.Jobs(t) {
				switch args := j.Args.(type) {
				case job.Mail:
					if _, two := mails[email]; two || args.To != email {
						t.Errorf("%s: a mail too many or to somebody else: %q", email, args.To)
					}
					mails[email] = args
				case job.Profile:
					profiles++
					same(t, "the name in the profile", args.Name, "Eve")
				}
			}
			if isNew := email == "new@x.test"; (profiles == 1) != isNew {
				t.Errorf("%s: %d profiles", email, profiles)
			}
		}
		for email, template := range map[string]job.Template{
			"new@x.test": job.VerificationCode, "unproved@x.test": job.VerificationCode,
			"proved@x.test": job.RegistrationAttempt, "disabled@x.test": job.RegistrationAttempt,
		} {
			m := mails[email]
			if m.Template != template || (template == job.VerificationCode) != m.ExpiresAt.Equal(noon().Add(account.CodeTTL)) {
				t.Errorf("%s: mail %s, which is of use until %s", email, m.Template, m.ExpiresAt)
			}
		}
		f.login(t, "proved@x.test") // by the password that it has always had
		_, err := f.Login(t.Context(), "proved@x.test", other)
		want(t, "the password of the second registration", err, login.ErrCredentials)

		// Of an address that nobody has proved the last registration counts, its password with its code.
		code := mails["unproved@x.test"].Data["code"]
		if old != code { // the same by chance once in a million
			want(t, "the first code", f.VerifyEmail(t.Context(), "unproved@x.test", old), account.ErrCodeInvalid)
		}
		must(t, f.VerifyEmail(t.Context(), "unproved@x.test", code))
		_, err = f.Login(t.Context(), "unproved@x.test", right)
		want(t, "the password of the first registration", err, login.ErrCredentials)
		_, err = f.Login(t.Context(), "unproved@x.test", other)
		must(t, err)
		f.wantNoSecret(t, other, right, code, "new@x.test", "proved@x.test")
	})
}

// S12: PostgreSQL keeps no NUL, which showed with the jobs of a new address only: 400 there, and no mail to anybody, and 202
// for a known one.
func TestANameThatCannotBeKeptTellsNothingOfTheAddress(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada)
		f.db.Forget(t)
		for _, name := range []string{"N\x00N", "\x00", "N\xffN", strings.Repeat("n", 1<<16)} {
			for _, email := range []string{ada, "new@x.test"} {
				if err := f.Register(t.Context(), email, right, name); err != nil {
					t.Errorf("%q: %v", email, err)
				}
			}
			f.db.Exec(t, `DELETE FROM users WHERE email <> $1`, ada)
		}
		profiles := 0
		for _, j := range f.db.Jobs(t) {
			if p, ok := j.Args.(job.Profile); ok {
				profiles++
				if strings.Contains(p.Name, "\x00") {
					t.Errorf("the name is %q", p.Name)
				}
			}
		}
		if profiles != 4 {
			t.Errorf("%d profiles", profiles)
		}
		if _, err := f.Add(t.Context(), login.NewUser{Email: "bob@x.test", Password: right, Name: "N\x00N"}); err != nil {
			t.Error(err)
		}
	})
}

// S1, S12: what is wrong with a password or an address is said whoever has the address, before anything is spent on it.
func TestABadRegistrationIsRefusedBeforeItCostsAnything(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, ada)
		f.db.Forget(t)
		f.hashed.Store(0)
		for _, email := range []string{ada, "new@x.test"} {
			for plain, target := range map[string]error{
				"": password.ErrTooShort, "fourteen chars": password.ErrTooShort, strings.Repeat("😀", 14): password.ErrTooShort,
				strings.Repeat("x", 1025): password.ErrTooLong, "CANARY, long enough, \xff": password.ErrNotText,
			} {
				err := f.Register(t.Context(), email, plain, "")
				want(t, email, err, target)
				if err == nil || strings.Contains(err.Error(), "CANARY") {
					t.Errorf("the answer tells the password: %v", err)
				}
				_, err = f.Add(t.Context(), login.NewUser{Email: email, Password: plain})
				want(t, email+" added", err, target)
			}
		}
		for _, email := range []string{"", "CANARY", "CANARY@", "@x.test", "CANARY@x.test\r\nBcc: eve@x.test", "CANARY <a@x.test>", "CANARY@x.test\x00"} {
			err := f.Register(t.Context(), email, right, "")
			want(t, email, err, account.ErrEmailInvalid)
			if err == nil || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the answer tells the address: %v", err)
			}
		}
		same(t, "hashes, users, jobs", []int{int(f.hashed.Load()), f.db.Count(t, "users"), f.db.Count(t, "river_job")}, []int{0, 1, 0})
		f.wantNoSecret(t, "CANARY")
	})
}

// S12, S72: of many who register one address at the same moment all are told the same, and there is one account, which
// the last code that was mailed proves for the password that came with it.
func TestRacingRegistrationsMakeOneAccount(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if err := f.Register(t.Context(), ada, right, "Ada"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		same(t, "users, codes", []int{f.db.Count(t, "users"), f.db.Count(t, "email_codes")}, []int{1, 1})
		codes, profiles := map[string]bool{}, 0
		for _, j := range f.db.Jobs(t) {
			switch args := j.Args.(type) {
			case job.Mail:
				codes[args.Data["code"]] = true
			case job.Profile:
				profiles++
			}
		}
		if profiles != 1 {
			t.Errorf("%d profiles", profiles)
		}
		// Which of them was the last is the database's to know; the attempts of one code are fewer than the codes here.
		f.db.Exec(t, `UPDATE email_codes SET attempts = -10`)
		proved := 0
		for code := range codes {
			if err := f.VerifyEmail(t.Context(), ada, code); err == nil {
				proved++
			} else if !errors.Is(err, account.ErrCodeInvalid) {
				t.Error(err)
			}
		}
		if proved != 1 {
			t.Errorf("%d of %d codes prove the address", proved, len(codes))
		}
		f.login(t, ada)
	})
}

// S13: a code is good once, for its own address, five guesses and ten minutes, and whatever is wrong is answered alike.
func TestACodeIsGoodOnceForItsAddressAndForAWhile(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		f.add(t, "proved@x.test")
		bobs := f.register(t, "bob@x.test")
		code := f.register(t, ada)
		if found := f.db.Holds(t, code); len(found) > 1 || (len(found) == 1 && found[0] != "river_job") {
			t.Errorf("the code is readable in %v", found) // in its mail it has to be
		}
		errs := map[string]error{}
		verify := func(name, email, code string) { errs[name] = f.VerifyEmail(t.Context(), email, code) }
		verify("an unknown address", "unknown@x.test", code)
		verify("no address", "no address", code)
		verify("a proved address", "proved@x.test", code)
		if bobs != code {
			verify("another's code", "bob@x.test", code)
		}
		verify("a wrong code", ada, another(code))
		verify("nothing", ada, "")
		verify("a long one", ada, strings.Repeat("1", 1<<16))
		verify("its hash", ada, string(f.Codes.Hash("", code)))
		alike(t, errs, account.ErrCodeInvalid) // of these, four were guesses of Ada's
		must(t, f.VerifyEmail(t.Context(), ada, " "+code+"\n"))
		verify("a second time", ada, code)

		f.at(noon().Add(account.CodeTTL))
		verify("too late", "bob@x.test", bobs)
		alike(t, errs, account.ErrCodeInvalid)
		f.at(noon().Add(account.CodeTTL - 1000))
		must(t, f.VerifyEmail(t.Context(), "bob@x.test", bobs))
		f.wantNoSecret(t, code, bobs, ada)
	})
}

// S13: after five wrong guesses the right one is refused; so many guesses find one code in 200,000.
func TestTheGuessesOfACodeAreBounded(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		code := f.register(t, ada)
		var wg sync.WaitGroup
		for range account.MaxCodeAttempts {
			wg.Go(func() {
				if err := f.VerifyEmail(t.Context(), ada, another(code)); !errors.Is(err, account.ErrCodeInvalid) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want(t, "the right code after the guesses", f.VerifyEmail(t.Context(), ada, code), account.ErrCodeInvalid)
		_, err := f.Login(t.Context(), ada, right)
		want(t, "the address", err, login.ErrNotVerified)

		fresh := f.register(t, ada) // the owner may begin again
		must(t, f.VerifyEmail(t.Context(), ada, fresh))
		f.login(t, ada)
	})
}

// S13, S72: a code that is spent many times at the same moment proves its address once.
func TestParallelSpendsOfACodeProveOnce(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		code := f.register(t, ada)
		var wg sync.WaitGroup
		errs := make([]error, 5)
		for i := range errs {
			wg.Go(func() { errs[i] = f.VerifyEmail(t.Context(), ada, code) })
		}
		wg.Wait()
		proved := 0
		for _, err := range errs {
			if err == nil {
				proved++
			} else if !errors.Is(err, account.ErrCodeInvalid) {
				t.Error(err)
			}
		}
		if proved != 1 {
			t.Errorf("%d of %d have proved it", proved, len(errs))
		}
	})
}

// S7: there is no account but those that somebody has made; an operator's has the password, the roles and the attributes
// that the operator gives, and counts as proved.
func TestAnOperatorsAccountIsAsItWasAskedFor(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, f *fixture) {
		if n := f.db.Count(t, "users"); n != 0 {
			t.Errorf("%d accounts that nobody has made", n)
		}
		id := f.add(t, "Admin@X.Test", "admin")
		u, err := f.Accounts.ByID(t.Context(), id)
		must(t, err)
		same(t, "the account", []any{u.Email, u.Roles, u.Attributes, u.Verified()},
			[]any{"admin@x.test", []string{"admin"}, map[string]string{"department": "sales"}, true})
		same(t, "the jobs", f.db.Jobs(t), []job.Job{job.CreateProfile(job.Profile{UserID: id})})
		if strings.Contains(u.PasswordHash, right) || !strings.HasPrefix(u.PasswordHash, "$argon2id$") {
			t.Error("the password is not kept as argon2id")
		}
		if _, err := f.Add(t.Context(), login.NewUser{Email: "", Password: right}); fault.CodeOf(err) != fault.Invalid {
			t.Errorf("without an address: %v", err)
		}
	})
}
