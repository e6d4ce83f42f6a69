// Package jose signs and verifies JSON Web Tokens. It is the only package that imports jwx.
//
// Which function do I want? A service that issues tokens makes keys (GenerateRSA), signs (Sign) and publishes (PublicSet).
// A service that checks them chooses where keys come from (StaticKeys, NewRemoteKeys) and calls Verify, or Parse and then the
// token's own Verify where its issuer decides on the policy. OpenProof is for a JWS that brings its own key (DPoP).
package jose

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// The signature algorithms that Gatehouse knows (RFC 7518 section 3.1, RFC 8037). There is no "none" and no HMAC.
const (
	RS256 = "RS256"
	PS256 = "PS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

// The moduli that are accepted (S37): RFC 7518 section 3.3 says 2048, a policy may ask for more. A larger modulus than the
// most would only cost time.
const (
	minRSABits = 2048
	maxRSABits = 8192
)

func algorithms() []string { return []string{RS256, PS256, ES256, EdDSA} }

// SigningKey is a private key with its name and its one algorithm.
type SigningKey struct {
	ID        string // kid: the RFC 7638 thumbprint
	Algorithm string
	Private   crypto.Signer
}

// GenerateRSA makes an RS256 key of the given modulus length in bits.
func GenerateRSA(bits int) (SigningKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return SigningKey{}, fmt.Errorf("generate RSA key: %w", err)
	}
	return named(RS256, k)
}

// ParsePKCS8 reads a private key that MarshalPKCS8 wrote. The id is computed anew and must be the given one.
func ParsePKCS8(id, algorithm string, der []byte) (SigningKey, error) {
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return SigningKey{}, errors.New("parse private key: not PKCS #8")
	}
	signer, ok := private.(crypto.Signer)
	if !ok || !suits(algorithm, signer.Public()) {
		return SigningKey{}, fmt.Errorf("parse private key: not one for %s", algorithm)
	}
	k, err := named(algorithm, signer)
	if err != nil {
		return SigningKey{}, err
	}
	if k.ID != id {
		return SigningKey{}, errors.New("parse private key: another key than its name says")
	}
	return k, nil
}

// MarshalPKCS8 encodes the private key in DER.
func (k SigningKey) MarshalPKCS8() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.Private) }

func named(algorithm string, private crypto.Signer) (SigningKey, error) {
	public, err := jwk.FromRaw(private.Public())
	if err != nil {
		return SigningKey{}, fmt.Errorf("name key: %w", err)
	}
	print, err := public.Thumbprint(crypto.SHA256)
	if err != nil {
		return SigningKey{}, fmt.Errorf("name key: %w", err)
	}
	return SigningKey{ID: base64.RawURLEncoding.EncodeToString(print), Algorithm: algorithm, Private: private}, nil
}

// Sign makes a compact JWS of the claims with the header's typ, alg and kid.
func Sign(k SigningKey, typ string, claims map[string]any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	h := jws.NewHeaders()
	for name, value := range map[string]any{jws.TypeKey: typ, jws.KeyIDKey: k.ID} {
		if err := h.Set(name, value); err != nil {
			return "", fmt.Errorf("sign token: %w", err)
		}
	}
	token, err := jws.Sign(payload, jws.WithKey(jwa.SignatureAlgorithm(k.Algorithm), k.Private, jws.WithProtectedHeaders(h)))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return string(token), nil
}

// PublicSet encodes the public halves as a JWK Set (RFC 7517 section 5), each with kid, alg and use.
func PublicSet(keys ...SigningKey) ([]byte, error) {
	set := jwk.NewSet()
	for _, k := range keys {
		public, err := jwk.FromRaw(k.Private.Public())
		if err != nil {
			return nil, fmt.Errorf("publish key: %w", err)
		}
		for name, value := range map[string]any{jwk.KeyIDKey: k.ID, jwk.AlgorithmKey: k.Algorithm, jwk.KeyUsageKey: "sig"} {
			if err := public.Set(name, value); err != nil {
				return nil, fmt.Errorf("publish key: %w", err)
			}
		}
		if err := set.AddKey(public); err != nil {
			return nil, fmt.Errorf("publish key: %w", err)
		}
	}
	return json.Marshal(set)
}

// PublicKey verifies signatures of one algorithm. A key keeps its address as long as its issuer publishes it.
type PublicKey struct {
	ID        string
	Algorithm string // "" where the set does not pin one: then the key's type decides
	Public    crypto.PublicKey
}

// same reports whether both are the same key under the same name.
func (k *PublicKey) same(other *PublicKey) bool {
	public, ok := k.Public.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.ID == other.ID && k.Algorithm == other.Algorithm && public.Equal(other.Public)
}

// KeySource answers the key of a name. It answers fault.Unauthenticated for a name that the issuer does not publish, and
// fault.Unavailable "keys_unavailable" as long as no key set could be had.
type KeySource interface {
	Key(ctx context.Context, kid, algorithm string) (*PublicKey, error)
}

// suits reports whether a key of this type and strength may verify the algorithm (RFC 8725 sections 3.1, 3.4 and 3.5).
func suits(algorithm string, public crypto.PublicKey) bool {
	switch k := public.(type) {
	case *rsa.PublicKey:
		bits := k.N.BitLen()
		return (algorithm == RS256 || algorithm == PS256) && bits >= minRSABits && bits <= maxRSABits && k.E >= 3 && k.E&1 == 1
	case *ecdsa.PublicKey:
		if algorithm != ES256 || k.Curve != elliptic.P256() {
			return false
		}
		_, err := k.ECDH() // refuses a point that is not on the curve
		return err == nil
	case ed25519.PublicKey:
		return algorithm == EdDSA && len(k) == ed25519.PublicKeySize
	default:
		return false
	}
}
