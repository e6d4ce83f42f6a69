package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
)

// GenerateEC makes an ES256 key (P-256).
func GenerateEC() (SigningKey, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return SigningKey{}, fmt.Errorf("generate EC key: %w", err)
	}
	return named(ES256, k)
}

// Signer signs many tokens of one type with one key, at little more than the signature's own price.
type Signer struct {
	key    SigningKey
	header string // encoded, with its dot
	signer jws.Signer
}

// NewSigner makes a signer of tokens of the type typ.
func NewSigner(k SigningKey, typ string) (*Signer, error) {
	header, err := json.Marshal(map[string]string{"alg": k.Algorithm, "kid": k.ID, "typ": typ})
	if err != nil {
		return nil, fmt.Errorf("sign tokens: %w", err)
	}
	signer, err := jws.NewSigner(jwa.SignatureAlgorithm(k.Algorithm))
	if err != nil {
		return nil, fmt.Errorf("sign tokens: %w", err)
	}
	return &Signer{key: k, header: base64.RawURLEncoding.EncodeToString(header) + ".", signer: signer}, nil
}

// Sign makes a compact JWS of what claims are in JSON.
func (s *Signer) Sign(claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token := base64.RawURLEncoding.AppendEncode([]byte(s.header), payload)
	signature, err := s.signer.Sign(token, s.key.Private)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token = append(token, '.')
	return string(base64.RawURLEncoding.AppendEncode(token, signature)), nil
}

// ParseECKeys reads one or more P-256 private keys in PEM: PKCS #8 ("PRIVATE KEY") or SEC 1 ("EC PRIVATE KEY"). Blocks of
// another type are passed over; a key of another kind is refused. Errors hold nothing of the text.
func ParseECKeys(text []byte) ([]SigningKey, error) {
	var keys []SigningKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		var private any
		var err error
		switch block.Type {
		case "PRIVATE KEY":
			private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			private, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			continue
		}
		signer, ok := private.(crypto.Signer)
		if err != nil || !ok || !suits(ES256, signer.Public()) {
			return nil, fmt.Errorf("key %d is no P-256 private key", len(keys)+1)
		}
		k, err := named(ES256, signer)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("no private key in PEM")
	}
	return keys, nil
}
