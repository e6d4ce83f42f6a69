package password_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/gatehouse-auth/gatehouse/authsvc/password"
)

const good = "correct horse battery staple"

func hasher(o password.Options) *password.Hasher {
	if o.Pepper == nil {
		o.Pepper = []byte("a pepper of thirty-two bytes....")
	}
	if o.Wait == 0 {
		o.Wait = time.Minute // a loaded machine is not what these tests are about
	}
	return password.New(o)
}

func hash(t *testing.T, h *password.Hasher, plain string) string {
	t.Helper()
	stored, err := h.Hash(t.Context(), plain)
	if err != nil {
		t.Fatalf("Hash: %v", err)
	}
	return stored
}

func wantMatch(t *testing.T, h *password.Hasher, stored, plain string, want bool) {
	t.Helper()
	got, err := h.Verify(t.Context(), stored, plain)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if got != want {
		t.Errorf("Verify = %v, want %v", got, want)
	}
}

// S1, S2, S3.
func TestOnlyTheLengthOfAPasswordCounts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		plain string
		want  error
	}{
		"empty":                              {"", password.ErrTooShort},
		"S1 one below the least":             {strings.Repeat("x", 14), password.ErrTooShort},
		"S1 the least":                       {strings.Repeat("x", 15), nil},
		"S1 14 code points in 56 bytes":      {strings.Repeat("😀", 14), password.ErrTooShort},
		"S1 15 code points":                  {strings.Repeat("😀", 15), nil},
		"S1 counted after normalization":     {strings.Repeat("e\u0301", 14), password.ErrTooShort},
		"S2 64 characters":                   {strings.Repeat("aB3 ", 16), nil},
		"S2 1000 bytes of Unicode":           {strings.Repeat("żółć", 125), nil},
		"S2 the most":                        {strings.Repeat("x", 1024), nil},
		"one byte too many":                  {strings.Repeat("x", 1025), password.ErrTooLong},
		"not text":                           {strings.Repeat("x", 20) + "\xff", password.ErrNotText},
		"S3 lower case alone":                {"onlylowercaseletters", nil},
		"S3 digits alone":                    {"839204716305927", nil},
		"S3 spaces, also at the ends":        {"  spaces are taken  ", nil},
		"S3 no letter of the Latin alphabet": {"пароль без правил состава", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := password.Check(c.plain); !errors.Is(got, c.want) {
				t.Errorf("Check = %v, want %v", got, c.want)
			}
		})
	}
}

// S2: what is accepted is verified whole, however long.
func TestALongPasswordIsVerifiedToItsLastCharacter(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	for name, plain := range map[string]string{
		"64 characters":         strings.Repeat("aB3 ", 16),
		"1000 bytes of Unicode": strings.Repeat("żółć", 125),
		"the most":              strings.Repeat("x", 1024),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := password.Check(plain); err != nil {
				t.Fatalf("Check: %v", err)
			}
			stored := hash(t, h, plain)
			wantMatch(t, h, stored, plain, true)
			wantMatch(t, h, stored, plain[:len(plain)-1]+"?", false)
			wantMatch(t, h, stored, plain[:len(plain)-1], false)
		})
	}
}

// S2: bcrypt would take these two for the same.
func TestPasswordsThatDifferBeyond72BytesDiffer(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	same := strings.Repeat("x", 72)
	wantMatch(t, h, hash(t, h, same+"one"), same+"two", false)
}

// S2: a keyboard may compose é and another not.
func TestBothSpellingsOfACharacterAreOnePassword(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	composed, decomposed := "caf\u00e9 au lait, s'il vous pla\u00eet", "cafe\u0301 au lait, s'il vous plai\u0302t"
	wantMatch(t, h, hash(t, h, composed), decomposed, true)
	wantMatch(t, h, hash(t, h, decomposed), composed, true)
}

func TestSpacesBelongToThePassword(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	stored := hash(t, h, " "+good)
	wantMatch(t, h, stored, " "+good, true)
	wantMatch(t, h, stored, good, false)
}

func TestAPasswordTooLongToBeOneMatchesNothing(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	wantMatch(t, h, hash(t, h, good), strings.Repeat("x", 1<<20), false)
}

// S6: OWASP's parameters, stored with the hash; a salt of its own for each; nothing of the pepper.
func TestAHashStatesHowItWasMade(t *testing.T) {
	t.Parallel()
	pepper := []byte("CANARY pepper of thirty-two byte")
	h := hasher(password.Options{Pepper: pepper})
	stored := hash(t, h, good)
	part := strings.Split(stored, "$")
	if len(part) != 6 || part[1] != "argon2id" || part[2] != "v=19" || !strings.HasPrefix(part[3], "m=19456,t=2,p=1,keyid=") {
		t.Fatalf("stored = %q, want argon2id with at least m=19456, t=2, p=1", stored)
	}
	salt, err := base64.RawStdEncoding.DecodeString(part[4])
	if err != nil || len(salt) < 4 {
		t.Errorf("salt has %d bytes (%v), want at least 32 bits", len(salt), err)
	}
	sum, err := base64.RawStdEncoding.DecodeString(part[5])
	if err != nil || len(sum) != 32 {
		t.Errorf("sum has %d bytes (%v), want 32", len(sum), err)
	}
	if other := hash(t, h, good); strings.Split(other, "$")[4] == part[4] || strings.Split(other, "$")[5] == part[5] {
		t.Error("two hashes of one password share salt or sum")
	}
	for _, secret := range [][]byte{[]byte(good), pepper, []byte(base64.RawStdEncoding.EncodeToString(pepper)[:20])} {
		if bytes.Contains([]byte(stored), secret) {
			t.Errorf("stored = %q holds a secret", stored)
		}
	}
	if bytes.Equal(sum, argon2.IDKey([]byte(good), salt, 2, 19456, 1, 32)) {
		t.Error("the pepper is not part of the hash: whoever has the row can try passwords")
	}
}

// S6: a stolen table is of no use without the pepper, and another pepper shows as a fault and not as a wrong password.
func TestAHashMadeWithAnotherPepperIsRefused(t *testing.T) {
	t.Parallel()
	stored := hash(t, hasher(password.Options{}), good)
	other := hasher(password.Options{Pepper: []byte("another pepper of thirty-two bytes")})
	if ok, err := other.Verify(t.Context(), stored, good); ok || err == nil {
		t.Errorf("Verify = %v, %v, want an error", ok, err)
	}
	// Also when the row claims to be of this pepper.
	mine := strings.Split(hash(t, other, good), "$")
	forged := strings.Split(stored, "$")
	forged[3] = mine[3]
	wantMatch(t, other, strings.Join(forged, "$"), good, false)
}

// S6: what a row asks for is bounded, so that one row cannot take the memory or the processor.
func TestAStoredHashBeyondTheBoundsIsRefused(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	stored := hash(t, h, good)
	part := strings.Split(stored, "$")
	keyid := part[3][strings.Index(part[3], "keyid="):]
	with := func(params, salt, sum string) string { return "$argon2id$v=19$" + params + "$" + salt + "$" + sum }
	for name, bad := range map[string]string{
		"empty":                "",
		"a word":               "password",
		"plain text":           good,
		"argon2i":              strings.Replace(stored, "argon2id", "argon2i", 1),
		"bcrypt":               "$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW",
		"old version":          strings.Replace(stored, "v=19", "v=16", 1),
		"much memory":          with("m=262145,t=2,p=1,"+keyid, part[4], part[5]),
		"little memory":        with("m=7,t=2,p=1,"+keyid, part[4], part[5]),
		"memory beyond 32 bit": with("m=4294967296,t=2,p=1,"+keyid, part[4], part[5]),
		"negative memory":      with("m=-1,t=2,p=1,"+keyid, part[4], part[5]),
		"no pass":              with("m=19456,t=0,p=1,"+keyid, part[4], part[5]),
		"many passes":          with("m=19456,t=17,p=1,"+keyid, part[4], part[5]),
		"no lane":              with("m=19456,t=2,p=0,"+keyid, part[4], part[5]),
		"many lanes":           with("m=19456,t=2,p=5,"+keyid, part[4], part[5]),
		"no pepper":            with("m=19456,t=2,p=1", part[4], part[5]),
		"twice the same":       with("m=19456,t=2,p=1,p=1,"+keyid, part[4], part[5]),
		"unknown parameter":    with("m=19456,t=2,p=1,x=1,"+keyid, part[4], part[5]),
		"short salt":           with(part[3], "AAAA", part[5]),
		"long salt":            with(part[3], strings.Repeat("A", 88), part[5]),
		"no sum":               with(part[3], part[4], ""),
		"short sum":            with(part[3], part[4], "AAAA"),
		"long sum":             with(part[3], part[4], strings.Repeat("A", 88)),
		"padded":               stored + "=",
		"line feed":            stored + "\n",
		"line feed inside":     with(part[3], part[4], part[5][:4]+"\r\n"+part[5][4:]),
		"one part more":        stored + "$",
		"very long":            stored + strings.Repeat("A", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if ok, err := h.Verify(t.Context(), bad, good); ok || err == nil {
				t.Errorf("Verify = %v, %v, want an error", ok, err)
			} else if strings.Contains(err.Error(), part[5]) {
				t.Errorf("the error holds the hash: %v", err)
			}
		})
	}
}

// A turn is never waited for longer than Wait; with one free, each call takes it.
func TestTheHashesAtOnceAreBounded(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{AtOnce: 2, Wait: time.Nanosecond})
	free1, free2 := h.Occupy(), h.Occupy()
	for name, call := range calls(h, hash(t, hasher(password.Options{}), good)) {
		if err := call(t.Context()); !errors.Is(err, password.ErrBusy) {
			t.Errorf("%s with every turn taken: %v, want ErrBusy", name, err)
		}
	}
	free1()
	free2()
	patient := hasher(password.Options{AtOnce: 1})
	for name, call := range calls(patient, hash(t, hasher(password.Options{}), good)) {
		free, done := patient.Occupy(), make(chan error, 1)
		go func() { done <- call(t.Context()) }()
		free()
		if err := <-done; err != nil {
			t.Errorf("%s after a turn came free: %v", name, err)
		}
	}
}

// S12: VerifyNobody is in here, so a login of an unknown address waits and computes like any other.
func calls(h *password.Hasher, stored string) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Hash":         func(ctx context.Context) error { _, err := h.Hash(ctx, good); return err },
		"Verify":       func(ctx context.Context) error { _, err := h.Verify(ctx, stored, good); return err },
		"VerifyNobody": func(ctx context.Context) error { return h.VerifyNobody(ctx, good) },
	}
}

func TestAnEndedRequestStopsWaitingForItsTurn(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{AtOnce: 1})
	defer h.Occupy()()
	for name, call := range calls(h, hash(t, hasher(password.Options{}), good)) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%s = %v, want the context's error", name, err)
		}
	}
}

// A turn that is free is not for somebody who has hung up: a hash costs 19 MiB and a processor, and nobody waits for it.
func TestACallerWhoHasGoneHashesNothing(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{AtOnce: 2})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(h, hash(t, h, good)) {
		for range 20 { // of two ways that are open select takes either
			if err := call(gone); !errors.Is(err, context.Canceled) {
				t.Fatalf("%s = %v, want the context's error", name, err)
			}
		}
	}
	h.Occupy()()
	defer h.Occupy()()
	defer h.Occupy()() // no turn was kept
}

func TestEveryTurnIsGivenBack(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{AtOnce: 2})
	stored := hash(t, h, good)
	var all sync.WaitGroup
	for i := range 12 {
		all.Go(func() {
			plain := good
			if i%2 == 0 {
				plain = "a wrong password"
			}
			if ok, err := h.Verify(t.Context(), stored, plain); err != nil || ok != (i%2 == 1) {
				t.Errorf("Verify = %v, %v", ok, err)
			}
		})
	}
	all.Wait()
	h.Occupy()()
	defer h.Occupy()()
	defer h.Occupy()() // both turns are free again, or this would hang
}

// S12: nobody's hash asks for what a real one asks for.
func TestTheHashOfNobodyCostsWhatARealOneCosts(t *testing.T) {
	t.Parallel()
	h := hasher(password.Options{})
	params := func(stored string) string { return strings.Split(stored, "$")[3] }
	if got, want := params(h.Nobody()), params(hash(t, h, good)); got != want {
		t.Errorf("nobody's parameters are %q, want %q", got, want)
	}
	if got, want := len(h.Nobody()), len(hash(t, h, good)); got != want {
		t.Errorf("nobody's hash has %d bytes, want %d", got, want)
	}
}

// A stored hash that is read is one that would be written the same way, within the bounds.
func FuzzStoredHash(f *testing.F) {
	stored, err := hasher(password.Options{}).Hash(f.Context(), good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(stored)
	f.Add("")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1,keyid=$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=19456,t=02,p=1,keyid=a$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$p=1,t=2,m=19456,keyid=a$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1,keyid=a$AAAAA\nAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if again, err := password.ParsePHC(s); err == nil && again != s {
			t.Errorf("%q is read as %q", s, again)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h := hasher(password.Options{})
	stored, err := h.Hash(b.Context(), good)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("somebody", func(b *testing.B) {
		for b.Loop() {
			if ok, err := h.Verify(b.Context(), stored, "a wrong password"); ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("nobody", func(b *testing.B) {
		for b.Loop() {
			if err := h.VerifyNobody(b.Context(), "a wrong password"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
