package jose

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// maxKeys bounds a key set: a poisoned one shall not fill the memory.
const maxKeys = 100

var (
	errUnknownKey = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid")
	errNoKeys     = fault.New(fault.Unavailable, "The keys that verify tokens cannot be had at the moment.").Named("keys_unavailable")
)

// keyset is an immutable set of public keys by kid.
type keyset map[string]PublicKey

// parseSet reads a JWK Set. Keys without a kid, of another use than "sig", or of a type that Gatehouse does not verify
// with are left out; private and symmetric keys never enter.
func parseSet(data []byte) (keyset, error) {
	set, err := jwk.Parse(data)
	if err != nil {
		return nil, errors.New("not a JWK Set")
	}
	if set.Len() > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	keys := keyset{}
	for i := range set.Len() {
		k, _ := set.Key(i)
		if use := k.KeyUsage(); k.KeyID() == "" || len(k.KeyID()) > maxKeyID || (use != "" && use != "sig") {
			continue
		}
		var raw any
		if err := k.Raw(&raw); err != nil {
			continue
		}
		if _, twice := keys[k.KeyID()]; twice {
			return nil, errors.New("two keys have the same kid")
		}
		public := PublicKey{ID: k.KeyID(), Algorithm: k.Algorithm().String(), Public: raw}
		for _, alg := range []string{RS256, PS256, ES256, EdDSA} {
			if suits(alg, raw) && (public.Algorithm == "" || public.Algorithm == alg) {
				keys[public.ID] = public
				break
			}
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no key that verifies signatures")
	}
	return keys, nil
}

func (s keyset) key(kid, algorithm string) (PublicKey, bool) {
	k, ok := s[kid]
	if !ok || (k.Algorithm != "" && k.Algorithm != algorithm) || !suits(algorithm, k.Public) {
		return PublicKey{}, false
	}
	return k, true
}

// Keys is a key set held in memory that its owner may replace, for a service that verifies its own tokens.
type Keys struct{ set atomic.Pointer[keyset] }

// StaticKeys reads a JWK Set.
func StaticKeys(jwks []byte) (*Keys, error) {
	k := &Keys{}
	return k, k.Replace(jwks)
}

// Replace swaps the whole set. A set that cannot be read leaves the old one.
func (k *Keys) Replace(jwks []byte) error {
	set, err := parseSet(jwks)
	if err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	k.set.Store(&set)
	return nil
}

// Key implements KeySource.
func (k *Keys) Key(_ context.Context, kid, algorithm string) (PublicKey, error) {
	key, ok := (*k.set.Load()).key(kid, algorithm)
	if !ok {
		return PublicKey{}, errUnknownKey
	}
	return key, nil
}
