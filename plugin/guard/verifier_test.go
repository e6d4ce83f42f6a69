package guard_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

var edgeKey = sync.OnceValue(func() jose.SigningKey {
	k, err := jose.GenerateRSA(2048)
	if err != nil {
		panic(err)
	}
	return k
})

// published is an issuer's key set that counts how often it is asked and may lose its keys.
type published struct {
	jose.KeySource
	id        string
	withdrawn atomic.Bool
	asked     atomic.Int64
}

func (p *published) Key(ctx context.Context, kid, algorithm string) (*jose.PublicKey, error) {
	p.asked.Add(1)
	if p.withdrawn.Load() {
		return nil, fault.New(fault.Unauthenticated, "").Named("token_invalid")
	}
	return p.KeySource.Key(ctx, kid, algorithm)
}

func (p *published) Holds(k *jose.PublicKey) bool { return !p.withdrawn.Load() && k.ID == p.id }

func publish(t testing.TB) *published {
	t.Helper()
	return publishOf(t, edgeKey())
}

func publishOf(t testing.TB, key jose.SigningKey) *published {
	t.Helper()
	set, err := jose.PublicSet(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jose.StaticKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	return &published{KeySource: keys, id: key.ID}
}

func trusted(name string, keys guard.KeySet, clock func() time.Time) guard.TrustedIssuer {
	return guard.TrustedIssuer{Keys: keys, Policy: jose.Policy{
		Issuer: name, Audiences: []string{"api"}, Algorithms: []string{jose.RS256}, Types: []string{"at+jwt"},
		Claims: jose.StandardClaims(), Now: clock,
	}}
}

func token(t testing.TB, issuer string) string {
	t.Helper()
	return tokenOf(t, edgeKey(), issuer)
}

func tokenOf(t testing.TB, key jose.SigningKey, issuer string) string {
	t.Helper()
	s, err := jose.Sign(key, "at+jwt", map[string]any{
		"iss": issuer, "sub": "u1", "aud": "api", "iat": now.Unix(), "exp": now.Add(time.Minute).Unix(), "roles": []string{"customer"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAHotTokenCostsOneVerification(t *testing.T) {
	t.Parallel()
	keys := publish(t)
	v := guard.NewIssuers(func() time.Time { return now }, remember.New(0), trusted("https://a.test", keys, func() time.Time { return now }))
	hot := token(t, "https://a.test")
	for range 10 {
		if p, err := v.Verify(t.Context(), hot); err != nil || p.Subject != "u1" || p.Roles[0] != "customer" {
			t.Fatalf("principal %+v, error %v", p, err)
		}
	}
	if n := keys.asked.Load(); n != 1 {
		t.Errorf("verified %d times, want once", n)
	}
}

// S36: a remembered token does not outlive its expiry.
func TestARememberedTokenDiesAtItsExpiry(t *testing.T) {
	t.Parallel()
	var passed atomic.Int64
	clock := func() time.Time { return now.Add(time.Duration(passed.Load())) }
	v := guard.NewIssuers(clock, remember.New(0), trusted("https://a.test", publish(t), clock))
	hot := token(t, "https://a.test")
	if _, err := v.Verify(t.Context(), hot); err != nil {
		t.Fatal(err)
	}
	passed.Store(int64(time.Minute))
	wantReason(t, v, hot, "token_expired")
}

// S38: a remembered token dies with the key that signed it.
func TestARememberedTokenDiesWithItsKey(t *testing.T) {
	t.Parallel()
	keys := publish(t)
	v := guard.NewIssuers(func() time.Time { return now }, remember.New(0), trusted("https://a.test", keys, func() time.Time { return now }))
	hot := token(t, "https://a.test")
	if _, err := v.Verify(t.Context(), hot); err != nil {
		t.Fatal(err)
	}
	keys.withdrawn.Store(true)
	wantReason(t, v, hot, "token_invalid")
}

// S34: each issuer's tokens are verified by its own keys; no issuer can speak for another.
func TestAnIssuerSpeaksForItselfOnly(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return now }
	other := publish(t)
	other.withdrawn.Store(true) // it publishes none of the keys in use
	v := guard.NewIssuers(clock, remember.New(0), trusted("https://a.test", publish(t), clock), trusted("https://b.test", other, clock))
	if _, err := v.Verify(t.Context(), token(t, "https://a.test")); err != nil {
		t.Errorf("its own token: %v", err)
	}
	for _, name := range []string{"https://b.test", "https://A.test", "https://a.test/", "https://stranger.test", ""} {
		wantReason(t, v, token(t, name), "token_invalid")
	}
}

// S30: a token that was refused is refused again.
func TestABadTokenIsNotRemembered(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return now }
	v := guard.NewIssuers(clock, remember.New(0), trusted("https://a.test", publish(t), clock))
	good := token(t, "https://a.test")
	if _, err := v.Verify(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	last := byte('A')
	if good[len(good)-2] == last {
		last = 'B'
	}
	bad := good[:len(good)-2] + string(last) + good[len(good)-1:]
	for range 2 {
		wantReason(t, v, bad, "token_invalid")
		wantReason(t, v, "a.b.c", "token_invalid")
		wantReason(t, v, "", "token_invalid")
	}
}

func wantReason(t *testing.T, v *guard.Issuers, token, reason string) {
	t.Helper()
	p, err := v.Verify(t.Context(), token)
	f := (*fault.Error)(nil)
	if !errors.As(err, &f) || f.Reason != reason || p.Subject != "" {
		t.Errorf("subject %q, error %v, want %s", p.Subject, err, reason)
	}
}

// asked is an issuer that knows some tokens.
type asked struct {
	knows map[string]principal.Principal
	err   error
	times int
}

func (a *asked) Ask(_ context.Context, token string) (principal.Principal, error) {
	a.times++
	if a.err != nil {
		return principal.Principal{}, a.err
	}
	who, ok := a.knows[token]
	if !ok {
		return who, fault.New(fault.Unauthenticated, "").Named("token_invalid")
	}
	return who, nil
}

// S34: an opaque token is asked about at the one issuer that has such; what names its issuer is that issuer's alone.
func TestAnOpaqueTokenIsItsIssuersToKnow(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return now }
	jws := token(t, "https://b.test")
	b := &asked{knows: map[string]principal.Principal{"opaque": {Subject: "u2", Issuer: "https://b.test"}, jws: {Subject: "u3", Issuer: "https://b.test"}}}
	opaque := trusted("https://b.test", nil, clock)
	opaque.Keys, opaque.Asker, opaque.Opaque = nil, b, true
	v := guard.NewIssuers(clock, remember.New(0), trusted("https://a.test", publish(t), clock), opaque)
	for token, subject := range map[string]string{"opaque": "u2", jws: "u3", token(t, "https://a.test"): "u1"} {
		if who, err := v.Verify(t.Context(), token); err != nil || who.Subject != subject {
			t.Errorf("%q, %v; want %s", who.Subject, err, subject)
		}
	}
	wantReason(t, v, "unknown", "token_invalid")
	times := b.times
	wantReason(t, v, token(t, "https://stranger.test"), "token_invalid")
	wantReason(t, v, "a.b.c", "token_invalid")
	if b.times != times {
		t.Error("an issuer was asked about a token that is not its own")
	}
	both := trusted("https://b.test", publish(t), clock)
	both.Asker, both.Opaque = b, true
	v = guard.NewIssuers(clock, remember.New(0), both)
	if who, err := v.Verify(t.Context(), jws); err != nil || who.Subject != "u1" || b.times != times {
		t.Errorf("a JWS of an issuer with keys: %q, %v", who.Subject, err)
	}
	wantReason(t, guard.NewIssuers(clock, remember.New(0), trusted("https://a.test", publish(t), clock)), "opaque", "token_invalid")
}

// S25: an issuer that is asked whether a token is alive speaks for the one whose token it was.
func TestATokenIsAsAliveAsItsIssuerSays(t *testing.T) {
	t.Parallel()
	clock := func() time.Time { return now }
	a := &asked{knows: map[string]principal.Principal{"t": {Subject: "u1", Issuer: "https://a.test"}}}
	with := trusted("https://a.test", publish(t), clock)
	with.Asker = a
	v := guard.NewIssuers(clock, remember.New(0), with, trusted("https://b.test", publish(t), clock))
	active := func(token, subject, issuer string) (bool, error) {
		return v.Active(t.Context(), token, principal.Principal{Subject: subject, Issuer: issuer})
	}
	if ok, err := active("t", "u1", "https://a.test"); !ok || err != nil {
		t.Errorf("alive: %v, %v", ok, err)
	}
	if ok, err := active("t", "u2", "https://a.test"); ok || err != nil {
		t.Errorf("another's: %v, %v", ok, err)
	}
	if ok, err := active("u", "u1", "https://a.test"); ok || err != nil {
		t.Errorf("ended: %v, %v", ok, err)
	}
	if ok, err := active("t", "u1", "https://b.test"); ok || err == nil {
		t.Errorf("an issuer that cannot be asked: %v, %v", ok, err)
	}
	a.err = fault.New(fault.Unavailable, "").Named("introspection_unavailable")
	if ok, err := active("t", "u1", "https://a.test"); ok || err == nil {
		t.Errorf("an issuer that is away: %v, %v", ok, err)
	}
}

// However many distinct tokens there are, good or bad, what is kept of them stays within the bound, and the heap with it.
func TestAFloodOfDistinctTokensStaysInItsMemory(t *testing.T) { // not parallel: it looks at the heap
	const most = 2 << 20
	key, err := jose.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jose.PublicSet(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jose.StaticKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return now }
	cache := remember.New(most)
	v := guard.NewIssuers(clock, cache, trusted("https://a.test", eternal{keys}, clock))
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	mint := func(i int) string {
		token, err := jose.Sign(key, "at+jwt", map[string]any{
			"iss": "https://a.test", "sub": fmt.Sprint("user-", i), "aud": []string{"api", "other"}, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": fmt.Sprint(i),
			"sid": "0193-session", "tid": "t1", "client_id": "app", "scope": "orders:read orders:write", "roles": []string{"customer", "clerk"}, "amr": []string{"pwd", "otp"}, "acr": "aal2",
			"attributes": map[string]any{"department": "sales", "level": 3}, "realm_access": map[string]any{"roles": []string{"a", "b", "c"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	before, entries := heap(), 0
	for i := range 700 {
		if _, err := v.Verify(t.Context(), mint(i)); err != nil {
			t.Fatal(err)
		}
		bytes, n := cache.Used()
		if entries = n; bytes > most {
			t.Fatalf("%d bytes after %d tokens", bytes, i+1)
		}
	}
	grown := heap() - before
	t.Logf("%d tokens kept; the heap has grown by %d KiB, the bound is %d KiB", entries, grown>>10, most>>10)
	if grown > most {
		t.Errorf("the heap has grown by %d bytes, the bound is %d", grown, most)
	}
	for i := range 20_000 {
		if _, err := v.Verify(t.Context(), fmt.Sprintf("eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2EudGVzdCJ9.%08d", i)); err == nil {
			t.Fatal("a bad token is taken")
		}
	}
	if more := heap() - before; more > most {
		t.Errorf("with bad tokens the heap has grown by %d bytes", more)
	}
	if _, n := cache.Used(); n != entries {
		t.Errorf("bad tokens have pushed out good ones: %d of %d are left", n, entries)
	}
	runtime.KeepAlive(v)
}

// eternal publishes its keys for ever.
type eternal struct{ jose.KeySource }

func (eternal) Holds(*jose.PublicKey) bool { return true }
