package account_test

import (
	"bytes"
	"errors"
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/authsvc/account"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

func TestAnAddressHasOneForm(t *testing.T) {
	t.Parallel()
	label63 := strings.Repeat("d", 63)
	long := strings.Repeat("a", 64) + "@" + label63 + "." + label63 + "." + strings.Repeat("d", 254-64-1-2*64)
	for in, want := range map[string]string{
		"ada@example.org":              "ada@example.org",
		"Ada@Example.ORG":              "ada@example.org",
		"ada+orders@example.org":       "ada+orders@example.org",
		"a.d.a@sub.example.org":        "a.d.a@sub.example.org",
		"o'hara!#$%&*/=?^_`{|}~-@x.eu": "o'hara!#$%&*/=?^_`{|}~-@x.eu",
		"ada@localhost":                "ada@localhost",
		"1@2.example":                  "1@2.example",
		"ada@xn--bcher-kva.example":    "ada@xn--bcher-kva.example",
		long:                           long,
	} {
		got, err := account.NormalizeEmail(in)
		if err != nil || got != want {
			t.Errorf("NormalizeEmail(%q) = %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestWhatIsNoPlainAddressIsRefused(t *testing.T) {
	t.Parallel()
	for name, in := range map[string]string{
		"empty":                    "",
		"no at":                    "ada.example.org",
		"no local part":            "@example.org",
		"no domain":                "ada@",
		"two ats":                  "ada@x@example.org",
		"space":                    "ada @example.org",
		"space in front":           " ada@example.org",
		"header injection":         "ada@example.org\r\nBcc: eve@example.org",
		"line feed alone":          "ada@example.org\nBcc:eve@example.org",
		"carriage return alone":    "ada\r@example.org",
		"folded":                   "ada@example.org\r\n\tx",
		"SMTP command":             "ada@example.org>\r\nRCPT TO:<eve@example.org",
		"NUL":                      "ada@example.org\x00",
		"delete":                   "ada\x7f@example.org",
		"display name":             "Ada <ada@example.org>",
		"in brackets":              "<ada@example.org>",
		"two addresses":            "ada@example.org,eve@example.org",
		"group":                    "all:ada@example.org;",
		"quoted":                   `"ada"@example.org`,
		"quoted at":                `"ada@x"@example.org`,
		"comment":                  "ada(hello)@example.org",
		"encoded word":             "=?utf-8?q?ada=40example.org?=",
		"address literal":          "ada@[127.0.0.1]",
		"IPv6 literal":             "ada@[IPv6:::1]",
		"backslash":                `ada\@example.org`,
		"two dots":                 "ada..b@example.org",
		"dot in front":             ".ada@example.org",
		"dot at the end":           "ada.@example.org",
		"dots in the domain":       "ada@example..org",
		"dot at the domain's end":  "ada@example.org.",
		"beyond ASCII":             "ädä@example.org",
		"homograph":                "аda@example.org", // a Cyrillic a
		"Kelvin sign folds to k":   "\u212a@example.org",
		"domain beyond ASCII":      "ada@exämple.org",
		"domain no host name":      "ada@exa!mple.org",
		"underscore in the domain": "ada@exa_mple.org",
		"percent in the domain":    "ada@exa%mple.org",
		"hyphen first":             "ada@-example.org",
		"hyphen last":              "ada@example-.org",
		"label of 64":              "ada@" + strings.Repeat("d", 64) + ".org",
		"local part of 65":         strings.Repeat("a", 65) + "@example.org",
		"255 bytes":                strings.Repeat("a", 64) + "@" + strings.Repeat("d.", 92) + "org.eu",
		"a megabyte":               strings.Repeat("a", 1<<20) + "@example.org",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := account.NormalizeEmail(in)
			if !errors.Is(err, account.ErrEmailInvalid) || got != "" {
				t.Fatalf("NormalizeEmail = %q, %v, want ErrEmailInvalid", got, err)
			}
			if fault.CodeOf(err) != fault.Invalid || (in != "" && strings.Contains(err.Error(), in)) {
				t.Errorf("the answer is %v", err)
			}
		})
	}
}

func FuzzNormalizeEmail(f *testing.F) {
	f.Add("Ada@Example.org")
	f.Add("ada@example.org\r\nBcc: eve@example.org")
	f.Add(`"a b"@example.org`)
	f.Add("a@=?utf-8?q?x?=")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := account.NormalizeEmail(in)
		if err != nil {
			return
		}
		if again, err := account.NormalizeEmail(got); err != nil || again != got {
			t.Errorf("%q gives %q, which gives %q, %v", in, got, again, err)
		}
		if !strings.EqualFold(got, in) || len(got) > 254 || strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("%q gives %q", in, got)
		}
		if a, err := mail.ParseAddress(got); err != nil || a.Address != got || a.Name != "" {
			t.Errorf("%q is another address to a mailer: %v, %v", got, a, err)
		}
	})
}

func codes(key string) account.Codes {
	return account.Codes{Key: []byte(key), Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }}
}

// S13: six digits, ten minutes.
func TestACodeHasSixDigitsAndTenMinutes(t *testing.T) {
	t.Parallel()
	c, seen, zero := codes("key"), map[string]bool{}, false
	for range 400 {
		plain, stored, err := c.New("u1")
		if err != nil {
			t.Fatal(err)
		}
		if len(plain) != 6 || strings.Trim(plain, "0123456789") != "" {
			t.Fatalf("the code is %q, want six digits", plain)
		}
		if life := stored.ExpiresAt.Sub(c.Now()); life != 10*time.Minute {
			t.Fatalf("the code lives %s, want 10m", life)
		}
		if stored.UserID != "u1" || stored.Attempts != 0 || !bytes.Equal(stored.Hash, c.Hash("u1", plain)) {
			t.Fatalf("stored = %+v", stored)
		}
		if bytes.Contains(stored.Hash, []byte(plain)) {
			t.Fatal("the code itself is stored")
		}
		seen[plain] = true
		zero = zero || plain[0] == '0'
	}
	if len(seen) < 390 { // about 0.08 repetitions are to be expected
		t.Errorf("only %d of 400 codes differ", len(seen))
	}
	if !zero { // by chance once in 10^18 runs
		t.Error("no code begins with zero: a tenth of them is missing")
	}
}

// S13: a code is bound to its user, and a reader of the database cannot try all of a million.
func TestAHashedCodeIsBoundToItsUserAndKey(t *testing.T) {
	t.Parallel()
	want := codes("key").Hash("u1", "123456")
	for name, other := range map[string][]byte{
		"another code":             codes("key").Hash("u1", "123457"),
		"another user":             codes("key").Hash("u2", "123456"),
		"another key":              codes("key2").Hash("u1", "123456"),
		"user and code run over":   codes("key").Hash("u11", "23456"),
		"no code":                  codes("key").Hash("u1", ""),
		"a space within":           codes("key").Hash("u1", "123 456"),
		"digits of another script": codes("key").Hash("u1", "١٢٣٤٥٦"),
	} {
		if bytes.Equal(other, want) {
			t.Errorf("%s: the same hash", name)
		}
	}
	if !bytes.Equal(codes("key").Hash("u1", " 123456\r\n"), want) {
		t.Error("a code pasted with spaces around it has another hash")
	}
	if len(want) != 32 {
		t.Errorf("the hash has %d bytes, want those of HMAC-SHA-256", len(want))
	}
}

func TestAUserIsVerifiedOrDisabledFromAMomentOn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if u := (account.User{}); u.Verified() || u.Disabled() {
		t.Error("a new user is verified or disabled")
	}
	if u := (account.User{VerifiedAt: &now, DisabledAt: &now}); !u.Verified() || !u.Disabled() {
		t.Error("a verified, disabled user is not")
	}
}
