package token_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/seal"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/authsvc/store/dbtest"
	"github.com/gatehouse-auth/gatehouse/authsvc/token"
	"github.com/gatehouse-auth/gatehouse/authsvc/token/tokentest"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)

func box(t *testing.T, first byte) *seal.Box {
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

// options are those of a ring on a database, with keys that are made fast.
func options(t *testing.T, dsn string) token.Options {
	t.Helper()
	db, err := store.Open(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var mu sync.Mutex
	ids := 0
	return token.Options{
		Store: db.Keys(), Box: box(t, 1), Issuer: "https://auth.example", Audience: "orders", TTL: 5 * time.Minute,
		Now: func() time.Time { return now },
		NewID: func() string {
			mu.Lock()
			defer mu.Unlock()
			ids++
			return fmt.Sprintf("018f3c00-0000-7000-8000-%012d", ids)
		},
		Generate: tokentest.Keys(),
	}
}

func claims() token.Claims {
	return token.Claims{
		Subject: "018f3c00-0000-7000-8000-00000000ada0", ClientID: "first-party", SessionID: "018f3c00-0000-7000-8000-000000005e55",
		Roles: []string{"customer", "support"}, Attributes: map[string]string{"department": "sales"}, AMR: []string{"pwd"}, AuthTime: now.Add(-time.Hour),
	}
}

func mint(t *testing.T, r *token.Ring, c token.Claims) string {
	t.Helper()
	signed, life, err := r.Mint(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if life != 5*time.Minute {
		t.Errorf("the token lives %s", life)
	}
	return signed
}

// part decodes one of the three parts of a token.
func part(t *testing.T, signed string, i int) map[string]any {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(signed, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

type jwks struct {
	Keys []map[string]any `json:"keys"`
}

func published(t *testing.T, r *token.Ring) jwks {
	t.Helper()
	data, err := r.JWKS(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var set jwks
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	return set
}

func (s jwks) ids() []string {
	var ids []string
	for _, k := range s.Keys {
		ids = append(ids, k["kid"].(string))
	}
	slices.Sort(ids)
	return ids
}

// RFC 9068 section 2; S35 for typ, S36 for exp.
func TestAnAccessTokenSaysWhatTheRFCWants(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	r := token.New(o)
	signed := mint(t, r, claims())
	stored, err := o.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	active := slices.IndexFunc(stored, func(k token.Key) bool { return k.State == token.Active })
	if diff := cmp.Diff(map[string]any{"typ": "at+jwt", "alg": "RS256", "kid": stored[active].ID}, part(t, signed, 0)); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	want := map[string]any{
		"iss": "https://auth.example", "aud": "orders", "sub": "018f3c00-0000-7000-8000-00000000ada0", "client_id": "first-party",
		"sid": "018f3c00-0000-7000-8000-000000005e55", "jti": "018f3c00-0000-7000-8000-000000000001",
		"iat": float64(now.Unix()), "nbf": float64(now.Unix()), "exp": float64(now.Unix() + 300), "auth_time": float64(now.Unix() - 3600),
		"amr": []any{"pwd"}, "roles": []any{"customer", "support"}, "attributes": map[string]any{"department": "sales"},
	}
	if diff := cmp.Diff(want, part(t, signed, 1)); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	if again := part(t, mint(t, r, claims()), 1); again["jti"] == want["jti"] {
		t.Error("two tokens have one jti")
	}
	bare := claims()
	bare.Roles, bare.Attributes = nil, nil
	for name := range part(t, mint(t, r, bare), 1) {
		if name == "roles" || name == "attributes" {
			t.Errorf("the claim %s is there although there is nothing to say", name)
		}
	}
}

// S37: at least 3072 bits unless somebody chooses otherwise; then too a token stays under 1.5 KB.
func TestTheKeysThatAreMadeByDefaultAreLong(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	o.Generate = nil
	r := token.New(o)
	for _, k := range published(t, r).Keys {
		n, err := base64.RawURLEncoding.DecodeString(k["n"].(string))
		if err != nil || len(n)*8 < 3072 || n[0]&0x80 == 0 {
			t.Errorf("the modulus has %d bytes, %v", len(n), err)
		}
	}
	if signed := mint(t, r, claims()); len(signed) >= 1536 {
		t.Errorf("the token has %d bytes, want less than 1.5 KB", len(signed))
	}
}

// S38: a key is published before it signs.
func TestTheNextKeyIsPublishedWithTheActiveOne(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	r := token.New(o)
	if err := r.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	stored, err := o.Store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	states := map[token.State]string{}
	for _, k := range stored {
		states[k.State] = k.ID
	}
	if len(stored) != 2 || states[token.Active] == "" || states[token.Next] == "" || states[token.Active] == states[token.Next] {
		t.Fatalf("stored keys: %+v", states)
	}
	want := []string{states[token.Active], states[token.Next]}
	slices.Sort(want)
	if got := published(t, r).ids(); !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
	if kid := part(t, mint(t, r, claims()), 0)["kid"]; kid != states[token.Active] {
		t.Errorf("signed by %v, want the active key", kid)
	}
}

func TestNothingButThePublicHalfIsPublished(t *testing.T) {
	t.Parallel()
	set := published(t, token.New(options(t, dbtest.SQLiteDSN(t))))
	for _, k := range set.Keys {
		var members []string
		for name := range k {
			members = append(members, name)
		}
		slices.Sort(members)
		if want := []string{"alg", "e", "kid", "kty", "n", "use"}; !slices.Equal(members, want) {
			t.Errorf("members = %v, want %v", members, want)
		}
		if k["alg"] != "RS256" || k["use"] != "sig" || k["kty"] != "RSA" {
			t.Errorf("key = %v", k)
		}
	}
	if len(set.Keys) != 2 {
		t.Errorf("%d keys", len(set.Keys))
	}
}

// Two instances that start at the same moment on an empty database.
func TestTwoRingsThatStartTogetherHaveTheSameKeys(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	rings := []*token.Ring{token.New(o), token.New(o), token.New(o)}
	var made, all sync.WaitGroup // no ring stores its keys before each has found that there are none
	made.Add(2 * len(rings))
	for i := range rings {
		o.Generate = func() (jose.SigningKey, error) {
			made.Done()
			made.Wait()
			return jose.GenerateRSA(2048)
		}
		rings[i] = token.New(o)
		all.Go(func() {
			if err := rings[i].Load(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for _, r := range rings[1:] {
		if a, b := published(t, rings[0]).ids(), published(t, r).ids(); len(a) != 2 || !slices.Equal(a, b) {
			t.Errorf("the rings publish %v and %v", a, b)
		}
		if _, err := r.Verify(t.Context(), mint(t, rings[0], claims())); err != nil {
			t.Errorf("one ring's token is nothing to another: %v", err)
		}
	}
}

// Many requests meet a ring that has not loaded yet.
func TestARingThatIsUsedAtOnceMakesItsKeysOnce(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	var mu sync.Mutex
	made := 0
	generate := o.Generate
	o.Generate = func() (jose.SigningKey, error) {
		mu.Lock()
		made++
		mu.Unlock()
		return generate()
	}
	r := token.New(o)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, _, err := r.Mint(t.Context(), claims()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if made != 2 {
		t.Errorf("%d keys were made, want 2", made)
	}
}

func TestAFailureToMakeAKeyIsTold(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	broken := errors.New("no randomness")
	o.Generate = func() (jose.SigningKey, error) { return jose.SigningKey{}, broken }
	if err := token.New(o).Load(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Load = %v", err)
	}
}

func TestAMintedTokenIsVerified(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	r := token.New(o)
	p, err := r.Verify(t.Context(), mint(t, r, claims()))
	if err != nil {
		t.Fatal(err)
	}
	c := claims()
	if p.Subject != c.Subject || p.SessionID != c.SessionID || p.ClientID != c.ClientID || !slices.Equal(p.Roles, c.Roles) ||
		p.Attributes["department"] != "sales" || !p.AuthTime.Equal(c.AuthTime.Truncate(time.Second)) || !slices.Equal(p.AMR, c.AMR) {
		t.Errorf("principal = %+v", p)
	}
}

// S30, S34, S35, S36: the service does not rely on the edge. All of these are signed by the right key unless they say not.
func TestATokenThatIsNotForUsIsRefused(t *testing.T) {
	t.Parallel()
	o := options(t, dbtest.SQLiteDSN(t))
	var mu sync.Mutex
	made := map[string]jose.SigningKey{}
	generate := o.Generate
	o.Generate = func() (jose.SigningKey, error) {
		k, err := generate()
		mu.Lock()
		defer mu.Unlock()
		made[k.ID] = k
		return k, err
	}
	ours := token.New(o)
	signed := mint(t, ours, claims())
	active := made[part(t, signed, 0)["kid"].(string)]
	with := func(typ string, change func(c map[string]any)) string {
		c := part(t, signed, 1)
		change(c)
		forged, err := jose.Sign(active, typ, c)
		if err != nil {
			t.Fatal(err)
		}
		return forged
	}
	if _, err := ours.Verify(t.Context(), with("at+jwt", func(map[string]any) {})); err != nil {
		t.Fatalf("unchanged: %v", err)
	}
	stranger, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := jose.Sign(stranger, "at+jwt", part(t, signed, 1))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(signed, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"at+jwt","alg":"none","kid":"` + active.ID + `"}`))
	for name, bad := range map[string]string{
		"empty":                "",
		"five parts":           "a.b.c.d.e",
		"without signature":    signed[:strings.LastIndex(signed, ".")+1],
		"truncated":            signed[:len(signed)-10],
		"S30 alg none":         none + "." + rest,
		"signed by a stranger": foreign,
		"S34 another issuer":   with("at+jwt", func(c map[string]any) { c["iss"] = "https://auth.example/" }),
		"S34 another audience": with("at+jwt", func(c map[string]any) { c["aud"] = "payments" }),
		"S34 no subject":       with("at+jwt", func(c map[string]any) { c["sub"] = "" }),
		"S35 an id token":      with("JWT", func(map[string]any) {}),
		"S35 a logout token":   with("logout+jwt", func(map[string]any) {}),
		"S36 no expiry":        with("at+jwt", func(c map[string]any) { delete(c, "exp") }),
		"S36 expired":          with("at+jwt", func(c map[string]any) { c["exp"] = now.Unix() - 60; c["iat"] = now.Unix() - 300 }),
		"S36 not valid yet":    with("at+jwt", func(c map[string]any) { c["nbf"] = now.Unix() + 120 }),
		"S36 lives a day":      with("at+jwt", func(c map[string]any) { c["exp"] = now.Unix() + 86400 }),
	} {
		if p, err := ours.Verify(t.Context(), bad); fault.CodeOf(err) != fault.Unauthenticated || !p.Anonymous() {
			t.Errorf("%s: Verify = %+v, %v", name, p, err)
		}
	}
}
