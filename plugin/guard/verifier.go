package guard

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

// KeySet is where an issuer's keys come from. Holds tells whether a key is still published, so that a remembered token dies
// with its key.
type KeySet interface {
	jose.KeySource
	Holds(key *jose.PublicKey) bool
}

// Asker asks an issuer who a token stands for (RFC 7662). Its failures are fault.Unauthenticated or fault.Unavailable.
type Asker interface {
	Ask(ctx context.Context, token string) (principal.Principal, error)
}

// TrustedIssuer is an issuer, what its tokens must be like, and its keys.
type TrustedIssuer struct {
	Policy jose.Policy
	Keys   KeySet // nil: its tokens are not verified here, it is asked
	Asker  Asker  // nil: it is never asked
	Opaque bool   // tokens that name no issuer are its own; one issuer of several at most
}

// Issuers verifies the tokens of several issuers, and remembers a verified token by its SHA-256 until it expires or its key
// is withdrawn, so that a hot token costs no signature check. Bad tokens are not remembered: a flood of them costs no memory.
type Issuers struct {
	byName map[string]TrustedIssuer
	opaque *TrustedIssuer // nil for none
	now    func() time.Time

	hits, misses atomic.Uint64

	remembered *remember.Owner
}

// verified is a principal, the key that said so, and the set that has to hold it.
type verified struct {
	principal.Principal
	key  *jose.PublicKey
	keys KeySet
}

// NewIssuers makes a verifier that remembers in the cache; the policies have been validated.
func NewIssuers(now func() time.Time, cache *remember.Cache, trusted ...TrustedIssuer) *Issuers {
	v := &Issuers{byName: map[string]TrustedIssuer{}, now: now, remembered: cache.Owner()}
	for _, i := range trusted {
		v.byName[i.Policy.Issuer] = i
		if i.Opaque && i.Asker != nil {
			v.opaque = &i
		}
	}
	return v
}

var errStranger = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid")

// Verify implements Verifier. A token that is a JWS is its issuer's, as the claim iss says; any other is the opaque issuer's.
func (v *Issuers) Verify(ctx context.Context, token string) (principal.Principal, error) {
	if v.opaque != nil && !jose.IsJWS(token) {
		return v.opaque.Asker.Ask(ctx, token)
	}
	sum := remember.SumOf(token)
	if p := v.recall(sum); p != nil {
		v.hits.Add(1)
		return p.Principal, nil
	}
	v.misses.Add(1)
	parsed, err := jose.Parse(token)
	if err != nil {
		return principal.Principal{}, err
	}
	trusted, ok := v.byName[parsed.Issuer()]
	if !ok {
		return principal.Principal{}, errStranger
	}
	if trusted.Keys == nil {
		return trusted.Asker.Ask(ctx, token)
	}
	p, key, err := parsed.Verify(ctx, trusted.Policy, trusted.Keys)
	if err != nil {
		return principal.Principal{}, err
	}
	v.remembered.Put(sum, &verified{p, key, trusted.Keys}, remember.SizeOf(&p)+32)
	return p, nil
}

// Counts answers how many tokens were remembered, and how many were not.
func (v *Issuers) Counts() (hits, misses uint64) { return v.hits.Load(), v.misses.Load() }

func (v *Issuers) recall(sum remember.Sum) *verified {
	kept, ok := v.remembered.Get(sum)
	if !ok {
		return nil
	}
	p, ok := kept.(*verified)
	if !ok || !v.now().Before(p.ExpiresAt) || !p.keys.Holds(p.key) {
		return nil
	}
	return p
}

// Active implements Introspector: the token is as alive as its issuer says, and stands for the one that it was read to.
func (v *Issuers) Active(ctx context.Context, token string, p principal.Principal) (bool, error) {
	asker := v.byName[p.Issuer].Asker
	if asker == nil {
		return false, errors.New("the issuer cannot be asked")
	}
	who, err := asker.Ask(ctx, token)
	switch {
	case err == nil:
		return who.Subject == p.Subject, nil
	case fault.CodeOf(err) == fault.Unauthenticated:
		return false, nil
	}
	return false, err
}
