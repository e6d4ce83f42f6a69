package guard_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
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

func (p *published) Holds(k *jose.PublicKey) bool { return !p.withdrawn.Load() && k.ID == edgeKey().ID }

func publish(t testing.TB) *published {
	t.Helper()
	set, err := jose.PublicSet(edgeKey())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := jose.StaticKeys(set)
	if err != nil {
		t.Fatal(err)
	}
	return &published{KeySource: keys}
}

func trusted(name string, keys guard.KeySet, clock func() time.Time) guard.TrustedIssuer {
	return guard.TrustedIssuer{Keys: keys, Policy: jose.Policy{
		Issuer: name, Audiences: []string{"api"}, Algorithms: []string{jose.RS256}, Types: []string{"at+jwt"},
		Claims: jose.StandardClaims(), Now: clock,
	}}
}

func token(t testing.TB, issuer string) string {
	t.Helper()
	s, err := jose.Sign(edgeKey(), "at+jwt", map[string]any{
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
	v := guard.NewIssuers(func() time.Time { return now }, trusted("https://a.test", keys, func() time.Time { return now }))
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
	v := guard.NewIssuers(clock, trusted("https://a.test", publish(t), clock))
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
	v := guard.NewIssuers(func() time.Time { return now }, trusted("https://a.test", keys, func() time.Time { return now }))
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
	v := guard.NewIssuers(clock, trusted("https://a.test", publish(t), clock), trusted("https://b.test", other, clock))
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
	v := guard.NewIssuers(clock, trusted("https://a.test", publish(t), clock))
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
