package guard

import (
	"context"
	"crypto/sha256"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// KeySet is where an issuer's keys come from. Holds tells whether a key is still published, so that a remembered token dies
// with its key.
type KeySet interface {
	jose.KeySource
	Holds(key *jose.PublicKey) bool
}

// TrustedIssuer is an issuer, what its tokens must be like, and its keys.
type TrustedIssuer struct {
	Policy jose.Policy
	Keys   KeySet
}

// maxRemembered bounds the verified tokens that are kept, each of some 2 KB.
const maxRemembered = 8192

// Issuers verifies the tokens of several issuers, and remembers a verified token by its SHA-256 until it expires or its key
// is withdrawn, so that a hot token costs no signature check. Bad tokens are not remembered: a flood of them costs no memory.
type Issuers struct {
	byName map[string]TrustedIssuer
	now    func() time.Time

	hits, misses atomic.Uint64

	mu         sync.RWMutex
	remembered map[[sha256.Size]byte]verified
}

// verified is a principal and the key that said so.
type verified struct {
	principal.Principal
	key *jose.PublicKey
}

// NewIssuers makes a verifier; the policies have been validated.
func NewIssuers(now func() time.Time, trusted ...TrustedIssuer) *Issuers {
	v := &Issuers{byName: map[string]TrustedIssuer{}, now: now, remembered: map[[sha256.Size]byte]verified{}}
	for _, i := range trusted {
		v.byName[i.Policy.Issuer] = i
	}
	return v
}

var errStranger = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid")

// Verify implements Verifier.
func (v *Issuers) Verify(ctx context.Context, token string) (principal.Principal, error) {
	sum := sha256.Sum256([]byte(token))
	if p, ok := v.recall(sum); ok {
		v.hits.Add(1)
		return p, nil
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
	p, key, err := parsed.Verify(ctx, trusted.Policy, trusted.Keys)
	if err != nil {
		return principal.Principal{}, err
	}
	v.remember(sum, verified{p, key})
	return p, nil
}

// Counts answers how many tokens were remembered, and how many were not.
func (v *Issuers) Counts() (hits, misses uint64) { return v.hits.Load(), v.misses.Load() }

func (v *Issuers) recall(sum [sha256.Size]byte) (principal.Principal, bool) {
	v.mu.RLock()
	p, ok := v.remembered[sum]
	v.mu.RUnlock()
	if !ok || !v.now().Before(p.ExpiresAt) || !v.byName[p.Issuer].Keys.Holds(p.key) {
		return principal.Principal{}, false
	}
	return p.Principal, true
}

// remember makes room by forgetting a few entries at random: map order is random enough, and a hot token comes back.
func (v *Issuers) remember(sum [sha256.Size]byte, p verified) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for old := range v.remembered {
		if len(v.remembered) < maxRemembered {
			break
		}
		delete(v.remembered, old)
	}
	v.remembered[sum] = p
}
