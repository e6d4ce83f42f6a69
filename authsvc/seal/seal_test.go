package seal_test

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
)

func box(t testing.TB, first byte) *seal.Box {
	t.Helper()
	key := make([]byte, seal.KeySize)
	for i := range key {
		key[i] = first + byte(i*37)
	}
	b, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// S66: what is stored is encrypted, and comes back.
func TestWhatIsSealedComesBack(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	for name, plain := range map[string][]byte{
		"text":   []byte("CANARY refresh token"),
		"empty":  {},
		"64 KiB": bytes.Repeat([]byte("x"), 64<<10),
	} {
		sealed := b.Seal(plain, []byte("row 1"))
		if len(plain) > 0 && bytes.Contains(sealed, plain) {
			t.Errorf("%s: the sealed value holds the plaintext", name)
		}
		got, err := b.Open(sealed, []byte("row 1"))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: Open = %d bytes, %v", name, len(got), err)
		}
		if got, err := box(t, 1).Open(sealed, []byte("row 1")); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%s: another process with the same key: %d bytes, %v", name, len(got), err)
		}
	}
}

func TestSealingTwiceGivesDifferentValues(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	if bytes.Equal(b.Seal([]byte("x"), nil), b.Seal([]byte("x"), nil)) {
		t.Error("the same nonce twice")
	}
}

// S66.
func TestAChangedOrStrangeValueIsUnsealable(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	sealed := b.Seal([]byte("secret"), []byte("row 1"))
	refused := func(name string, sealed, context []byte, with *seal.Box) {
		t.Helper()
		if got, err := with.Open(sealed, context); !errors.Is(err, seal.ErrUnsealable) || got != nil {
			t.Errorf("%s: Open = %q, %v, want ErrUnsealable", name, got, err)
		}
	}
	refused("another row's context", sealed, []byte("row 2"), b)
	refused("no context", sealed, nil, b)
	refused("another key", sealed, []byte("row 1"), box(t, 2))
	for i := range sealed {
		for bit := range 8 {
			flipped := bytes.Clone(sealed)
			flipped[i] ^= 1 << bit
			refused("a flipped bit", flipped, []byte("row 1"), b)
		}
	}
	for n := range sealed {
		refused("truncated", sealed[:n], []byte("row 1"), b)
	}
	refused("one byte more", append(bytes.Clone(sealed), 0), []byte("row 1"), b)
	// Also if somebody writes this key's id into a value of another key.
	foreign := box(t, 2).Seal([]byte("secret"), []byte("row 1"))
	copy(foreign[:5], sealed[:5])
	refused("another key's value under this key's id", foreign, []byte("row 1"), b)
}

// S66, S37: one key for each purpose.
func TestEachPurposeHasAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	derive := func(b *seal.Box, purpose string) []byte {
		key, err := b.Derive(purpose)
		if err != nil || len(key) != 32 {
			t.Fatalf("Derive(%q) = %d bytes, %v", purpose, len(key), err)
		}
		return key
	}
	pepper := derive(b, "password pepper")
	if !bytes.Equal(pepper, derive(b, "password pepper")) || !bytes.Equal(pepper, derive(box(t, 1), "password pepper")) {
		t.Error("one purpose gives two keys")
	}
	if bytes.Equal(pepper, derive(b, "email codes")) {
		t.Error("two purposes have one key")
	}
	if bytes.Equal(pepper, derive(box(t, 2), "password pepper")) {
		t.Error("two root keys give one key")
	}
}

// S66: nobody who is given a key for some purpose can open what is sealed, whatever the purpose is called.
func TestNoPurposeNamesTheSealingKey(t *testing.T) {
	t.Parallel()
	b := box(t, 1)
	sealed := b.Seal([]byte("secret"), nil)
	id, rest := sealed[1:5], sealed[5:]
	for _, purpose := range []string{"", "seal", "key id", "gatehouse seal", "sealing"} {
		key, err := b.Derive(purpose)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(key, id) {
			t.Errorf("the key of purpose %q begins with the key id, which is stored in the clear", purpose)
		}
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := aead.Open(nil, rest[:aead.NonceSize()], rest[aead.NonceSize():], nil); err == nil {
			t.Errorf("the key of purpose %q opens what is sealed", purpose)
		}
	}
}

func TestARootKeyOfAnotherLengthIsRefused(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 16, 31, 33, 64} {
		key := bytes.Repeat([]byte("CANARY"), 11)[:n]
		if _, err := seal.New(key); err == nil || bytes.Contains([]byte(err.Error()), []byte("CANARY")) {
			t.Errorf("New with %d bytes: %v", n, err)
		}
	}
}

func TestTheBoxKeepsItsOwnCopyOfTheKey(t *testing.T) {
	t.Parallel()
	key := bytes.Repeat([]byte{7}, seal.KeySize)
	b, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	before, _ := b.Derive("x")
	clear(key)
	if after, _ := b.Derive("x"); !bytes.Equal(before, after) {
		t.Error("clearing the caller's key changed the box")
	}
}

func FuzzOpen(f *testing.F) {
	b := box(f, 1)
	f.Add(b.Seal([]byte("secret"), []byte("row 1")), []byte("row 1"))
	f.Add([]byte{1}, []byte{})
	f.Fuzz(func(t *testing.T, sealed, context []byte) {
		got, err := b.Open(sealed, context)
		if err == nil && (string(got) != "secret" || string(context) != "row 1") {
			t.Errorf("opened a value that nobody sealed: %q", got)
		}
		if err != nil && !errors.Is(err, seal.ErrUnsealable) {
			t.Errorf("Open: %v", err)
		}
	})
}
