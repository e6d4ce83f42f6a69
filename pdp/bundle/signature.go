package bundle

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	obundle "github.com/open-policy-agent/opa/v1/bundle"

	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// Key is a public key by which bundles may be signed.
type Key struct {
	ID        string // as in the signature's kid
	Algorithm string // the only one that counts: ES256, ES384, ES512, RS256, RS384, RS512, PS256, PS384, PS512 or EdDSA
	PEM       string // PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE
}

// Verifier checks signatures.
type Verifier struct {
	scope string
	keys  map[string]*obundle.KeyConfig
}

// NewVerifier takes the keys that may sign and the scope that each signature must name ("": none).
func NewVerifier(scope string, keys ...Key) (*Verifier, error) {
	if len(keys) == 0 {
		return nil, errors.New("no keys to check signatures by")
	}
	v := &Verifier{scope: scope, keys: map[string]*obundle.KeyConfig{}}
	for _, k := range keys {
		if k.ID == "" || v.keys[k.ID] != nil {
			return nil, fmt.Errorf("key %q has no id of its own", k.ID)
		}
		if err := k.check(); err != nil {
			return nil, fmt.Errorf("key %s: %w", k.ID, err)
		}
		v.keys[k.ID] = &obundle.KeyConfig{Key: k.PEM, Algorithm: k.Algorithm}
	}
	return v, nil
}

// check answers whether the key is public and fits its algorithm. A shared secret (HS256) is refused: whoever could check
// signatures by it could also make them.
func (k Key) check() error {
	block, rest := pem.Decode([]byte(k.PEM))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return errors.New("not one PEM block")
	}
	var public any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var c *x509.Certificate
		if c, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = c.PublicKey
		}
	default:
		return fmt.Errorf("a %s is not a public key; the decision point must not be able to sign", block.Type)
	}
	if err != nil {
		return errors.New("the key cannot be read")
	}
	return fits(public, k.Algorithm)
}

func fits(public any, algorithm string) error {
	bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm]
	ok := false
	switch key := public.(type) {
	case *ecdsa.PublicKey:
		ok = bits > 0 && key.Curve.Params().BitSize == bits
	case *rsa.PublicKey:
		switch algorithm {
		case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
			if key.N.BitLen() < 2048 {
				return errors.New("RSA keys need 2048 bits")
			}
			ok = true
		}
	case ed25519.PublicKey:
		ok = algorithm == "EdDSA"
	}
	if !ok {
		return fmt.Errorf("the algorithm %q is not one for this key; ES256 and others are known, HS256 and none are not", algorithm)
	}
	return nil
}

// verify checks that the one signature is by one of the keys and covers every other file, and nothing else. It answers whose.
func (v *Verifier) verify(ctx context.Context, files map[string][]byte) (keyID string, err error) {
	text, ok := files[signaturesFile]
	if !ok {
		return "", fmt.Errorf("not signed: there is no %s", signaturesFile)
	}
	token, err := tokenOf(text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", signaturesFile, err)
	}
	keyID, err = v.keyOf(token)
	if err != nil {
		return "", err
	}
	config := obundle.NewVerificationConfig(map[string]*obundle.KeyConfig{keyID: v.keys[keyID]}, keyID, v.scope, nil)
	listed, err := obundle.VerifyBundleSignature(obundle.SignaturesConfig{Signatures: []string{token}}, config)
	if err != nil {
		return "", fmt.Errorf("by key %s: %w", keyID, err)
	}
	return keyID, covered(ctx, files, token, listed)
}

// tokenOf reads .signatures.json, strictly: one token, and no plugin that would have another way of verifying.
func tokenOf(text []byte) (string, error) {
	var doc struct {
		Signatures []string `json:"signatures"`
		Plugin     string   `json:"plugin"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return "", errors.New("not what it must be: {\"signatures\": [\"…\"]}")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", errors.New("something follows it")
	}
	if doc.Plugin != "" && doc.Plugin != "_default" {
		return "", errors.New("names a plugin; only OPA's own kind of signature is known")
	}
	if len(doc.Signatures) != 1 {
		return "", fmt.Errorf("holds %d signatures instead of one", len(doc.Signatures))
	}
	return doc.Signatures[0], nil
}

// header is what a token says of itself before it is believed.
type header struct {
	Algorithm string   `json:"alg"`
	KeyID     string   `json:"kid"`
	Critical  []string `json:"crit"`
	Base64    *bool    `json:"b64"`
}

// keyOf answers which of the keys the token says it is by. The algorithm is the key's; the token's must only agree.
func (v *Verifier) keyOf(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("the signature is not a compact JWS")
	}
	var h header
	var claims struct {
		KeyID string `json:"keyid"`
	}
	if decode(parts[0], &h) != nil || decode(parts[1], &claims) != nil {
		return "", errors.New("the signature is not a compact JWS")
	}
	if len(h.Critical) > 0 || h.Base64 != nil {
		return "", errors.New("the signature needs an extension that is not known (crit, b64)")
	}
	id := h.KeyID
	switch {
	case id == "":
		id = claims.KeyID // OPA's older way
	case claims.KeyID != "" && claims.KeyID != id:
		return "", errors.New("the signature names two keys")
	}
	if id == "" {
		if len(v.keys) > 1 {
			return "", errors.New("the signature names no key, and there are several")
		}
		for only := range v.keys {
			id = only
		}
	}
	key, ok := v.keys[id]
	switch {
	case !ok:
		return "", fmt.Errorf("signed by the key %q, which is not one of %q", clip(id), slices.Sorted(maps.Keys(v.keys)))
	case h.Algorithm != key.Algorithm:
		return "", fmt.Errorf("signed by %q, but the key %s is for %s", clip(h.Algorithm), id, key.Algorithm)
	}
	return id, nil
}

func decode(part string, into any) error {
	b, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// strong are the hashes that still say which file was signed; OPA would also take MD5 and SHA-1.
var strong = []string{"SHA-256", "SHA-384", "SHA-512", "SHA-512-256"}

// covered checks each file against the verified list.
func covered(ctx context.Context, files map[string][]byte, token string, listed map[string]obundle.FileInfo) error {
	var claims obundle.DecodedSignature
	if err := decode(strings.Split(token, ".")[1], &claims); err != nil {
		return errors.New("the signature's list of files cannot be read")
	}
	switch {
	case len(claims.Files) == 0:
		return errors.New("the signature covers no files")
	case len(claims.Files) != len(listed):
		return errors.New("the signature lists a file twice")
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if name == signaturesFile {
			continue
		}
		info, ok := listed[name]
		switch {
		case !ok:
			return fmt.Errorf("%q is not covered by the signature", name)
		case !slices.Contains(strong, info.Algorithm):
			return fmt.Errorf("%q is signed by the hash %q, which is not one of %q", name, clip(info.Algorithm), strong)
		}
		if err := obundle.VerifyBundleFile(name, *bytes.NewBuffer(files[name]), listed); err != nil {
			return fmt.Errorf("%q is not what was signed: %w", name, err)
		}
		pace.Breathe(ctx)
	}
	if len(listed) > 0 {
		return fmt.Errorf("signed files are missing: %q", slices.Sorted(maps.Keys(listed)))
	}
	return nil
}
