package token_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// S66: whoever reads the database cannot sign.
func TestPrivateKeysAreSealedAtRest(t *testing.T) {
	t.Parallel()
	dsn := dbtest.SQLiteDSN(t)
	o := options(t, dsn)
	var mu sync.Mutex
	var secrets [][]byte
	generate := o.Generate
	o.Generate = func() (jose.SigningKey, error) {
		k, err := generate()
		if err != nil {
			return k, err
		}
		der, err := k.MarshalPKCS8()
		mu.Lock()
		defer mu.Unlock()
		secrets = append(secrets, der[len(der)/2:len(der)/2+32]) // amid the private parts
		return k, err
	}
	if err := token.New(o).Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(strings.TrimPrefix(dsn, "sqlite:")), "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	found := false
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(data, []byte("RS256"))
		for _, s := range secrets {
			if bytes.Contains(data, s) {
				t.Errorf("%s holds a private key", filepath.Base(f))
			}
		}
	}
	if !found || len(secrets) != 2 {
		t.Error("the test looked at the wrong files")
	}
}

// wantNothing: a ring that cannot open its keys neither signs, publishes, verifies, nor makes others.
func wantNothing(t *testing.T, r *token.Ring, signed string) {
	t.Helper()
	if err := r.Load(t.Context()); err == nil {
		t.Error("Load succeeded")
	}
	if got, _, err := r.Mint(t.Context(), claims()); err == nil || got != "" {
		t.Error("a token was minted")
	}
	if got, err := r.JWKS(t.Context()); err == nil || got != nil {
		t.Error("a key set was published")
	}
	if p, err := r.Verify(t.Context(), signed); err == nil || !p.Anonymous() {
		t.Error("a token was verified")
	}
}

// S66, S56.
func TestAnotherRootKeyOpensNothing(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	right := token.New(o)
	signed := mint(t, right, claims())
	before, err := o.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.Box = box(t, 2)
	wrong := token.New(o)
	wantNothing(t, wrong, signed)
	if err := wrong.Load(t.Context()); !errors.Is(err, seal.ErrUnsealable) {
		t.Errorf("Load = %v, want ErrUnsealable", err)
	}
	after, err := o.Store.Keys(t.Context())
	if err != nil || !cmp.Equal(before, after) {
		t.Errorf("the stored keys have changed, %v", err)
	}
}

// rows is a store with whatever a test puts there.
type rows struct {
	keys []token.Key
	err  error
}

func (r *rows) Keys(context.Context) ([]token.Key, error) { return r.keys, r.err }

func (r *rows) Init(_ context.Context, keys []token.Key) ([]token.Key, error) {
	if len(r.keys) == 0 {
		r.keys = keys
	}
	return r.keys, r.err
}

// Somebody who can write to the database, but has no root key, makes the service stop and not sign with another key.
func TestRowsThatWereTamperedWithAreRefused(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	signed := mint(t, token.New(o), claims())
	stored, err := o.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(keys []token.Key){
		"keys swapped":        func(k []token.Key) { k[0].Sealed, k[1].Sealed = k[1].Sealed, k[0].Sealed },
		"another id":          func(k []token.Key) { k[0].ID = "another" },
		"another algorithm":   func(k []token.Key) { k[0].Algorithm = "ES256" },
		"no algorithm":        func(k []token.Key) { k[0].Algorithm = "none" },
		"no key":              func(k []token.Key) { k[0].Sealed = nil },
		"none active":         func(k []token.Key) { k[0].State, k[1].State = token.Retiring, token.Next },
		"an unsealed key":     func(k []token.Key) { k[0].Sealed = []byte("0\x82") },
		"sealed, but no key":  func(k []token.Key) { k[0].Sealed = o.Box.Seal([]byte("no key"), []byte(k[0].ID)) },
		"another's sealed id": func(k []token.Key) { k[0].Sealed = o.Box.Seal([]byte("no key"), []byte(k[1].ID)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, keys := o, slices.Clone(stored)
			change(keys)
			o.Store = &rows{keys: keys}
			wantNothing(t, token.New(o), signed)
		})
	}
}

func TestADatabaseThatComesBackMakesTheRingWork(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	s := &rows{err: fault.New(fault.Unavailable, "away")}
	o.Store = s
	r := token.New(o)
	if _, _, err := r.Mint(t.Context(), claims()); fault.CodeOf(err) != fault.Unavailable {
		t.Errorf("Mint = %v, want unavailable", err)
	}
	s.err = nil
	signed := mint(t, r, claims())
	s.err = fault.New(fault.Unavailable, "away")
	if _, err := r.Verify(t.Context(), signed); err != nil {
		t.Errorf("a ring that has its keys needs the database: %v", err)
	}
}
