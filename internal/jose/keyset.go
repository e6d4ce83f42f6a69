package jose

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/lestrrat-go/jwx/v2/jwk"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// maxKeys bounds a key set: a poisoned one shall not fill the memory.
const maxKeys = 100

var (
	errUnknownKey = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid").Because(errors.New("the issuer publishes no such key"))
	errNoKeys     = fault.New(fault.Unavailable, "The keys that verify tokens cannot be had at the moment.").Named("keys_unavailable")
)

// keyset is an immutable set of public keys by kid.
type keyset map[string]*PublicKey

// parseSet reads a JWK Set (RFC 7517 section 5). Keys without a kid, for another purpose than signatures, of a type, strength
// or algorithm that Gatehouse does not verify with are left out; private and symmetric keys never enter.
func parseSet(data []byte) (keyset, error) {
	if _, err := readObject(data); err != nil {
		return nil, errors.New("not a JSON object of one reading")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, errors.New("not a JWK Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("more than %d keys", maxKeys)
	}
	keys := keyset{}
	for _, one := range set.Keys {
		k, err := jwk.ParseKey(one)
		if err != nil {
			continue // of a kind that is not understood; the others may be
		}
		public := readKey(k)
		if public == nil {
			continue
		}
		if _, twice := keys[public.ID]; twice {
			return nil, errors.New("two keys have the same kid")
		}
		keys[public.ID] = public
	}
	if len(keys) == 0 {
		return nil, errors.New("no key that verifies signatures")
	}
	return keys, nil
}

// readKey answers nil for a key that shall verify nothing.
func readKey(k jwk.Key) *PublicKey {
	if use := k.KeyUsage(); k.KeyID() == "" || len(k.KeyID()) > maxKeyID || (use != "" && use != "sig") {
		return nil
	}
	if ops := k.KeyOps(); len(ops) > 0 && !slices.Contains(ops, jwk.KeyOpVerify) {
		return nil
	}
	var raw any
	if err := k.Raw(&raw); err != nil {
		return nil
	}
	public := &PublicKey{ID: k.KeyID(), Algorithm: k.Algorithm().String(), Public: raw}
	for _, alg := range algorithms() {
		if suits(alg, raw) && (public.Algorithm == "" || public.Algorithm == alg) {
			return public
		}
	}
	return nil
}

func (s keyset) key(kid, algorithm string) (*PublicKey, bool) {
	k, ok := s[kid]
	if !ok || (k.Algorithm != "" && k.Algorithm != algorithm) || !suits(algorithm, k.Public) {
		return nil, false
	}
	return k, true
}

// keep lets the keys of an older set that are still there keep their addresses.
func (s keyset) keep(older keyset) {
	for kid, k := range s {
		if before, ok := older[kid]; ok && before.same(k) {
			s[kid] = before
		}
	}
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
	if older := k.set.Load(); older != nil {
		set.keep(*older)
	}
	k.set.Store(&set)
	return nil
}

// Key implements KeySource.
func (k *Keys) Key(_ context.Context, kid, algorithm string) (*PublicKey, error) {
	key, ok := (*k.set.Load()).key(kid, algorithm)
	if !ok {
		return nil, errUnknownKey
	}
	return key, nil
}

// Holds reports whether the set still has this very key.
func (k *Keys) Holds(key *PublicKey) bool { return (*k.set.Load())[key.ID] == key }
