package bundle

import (
	"context"
	"crypto"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	obundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// SigningKey signs bundles.
type SigningKey struct {
	ID        string // becomes the signature's kid
	Algorithm string // as Key.Algorithm
	PEM       string // PRIVATE KEY, EC PRIVATE KEY or RSA PRIVATE KEY
	Scope     string // becomes the claim scope, if not empty
}

// Sign answers the archive with a signature over all its files, in place of one that it may have had.
func Sign(archive []byte, limits Limits, key SigningKey) ([]byte, error) {
	files, err := unpack(context.Background(), archive, limits)
	if err != nil {
		return nil, err
	}
	delete(files, signaturesFile)
	hasher, err := obundle.NewSignatureHasher(obundle.SHA256)
	if err != nil {
		return nil, err
	}
	var infos []obundle.FileInfo
	for _, name := range slices.Sorted(maps.Keys(files)) {
		var value any = files[name]
		if obundle.IsStructuredDoc(name) { // OPA signs its meaning, not its text
			if err := util.Unmarshal(files[name], &value); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		sum, err := hasher.HashFile(value)
		if err != nil {
			return nil, err
		}
		infos = append(infos, obundle.NewFile(name, hex.EncodeToString(sum), string(obundle.SHA256)))
	}
	token, err := key.sign(infos)
	if err != nil {
		return nil, err
	}
	if files[signaturesFile], err = json.Marshal(obundle.SignaturesConfig{Signatures: []string{token}}); err != nil {
		return nil, err
	}
	return Write(files)
}

// check answers whether the key can sign by its algorithm.
func (k SigningKey) check() error {
	if k.ID == "" {
		return errors.New("a signing key needs an id")
	}
	config := obundle.NewSigningConfig(k.PEM, k.Algorithm, "")
	if block, _ := pem.Decode([]byte(k.PEM)); block == nil || !strings.HasPrefix(k.PEM, "-----BEGIN") || strings.HasPrefix(k.Algorithm, "HS") {
		return errors.New("the signing key is not a private key in PEM for ES256, RS256, …")
	}
	private, err := config.GetPrivateKey()
	if err != nil {
		return fmt.Errorf("the signing key cannot be read: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return errors.New("the signing key cannot sign")
	}
	return fits(signer.Public(), k.Algorithm)
}

func (k SigningKey) sign(files []obundle.FileInfo) (string, error) {
	if err := k.check(); err != nil {
		return "", err
	}
	claims := ""
	if k.Scope != "" { // OPA takes other claims from a file only
		dir, err := os.MkdirTemp("", "claims")
		if err != nil {
			return "", err
		}
		defer func() { _ = os.RemoveAll(dir) }() // it holds no secret
		claims = filepath.Join(dir, "claims.json")
		text, err := json.Marshal(map[string]string{"keyid": k.ID, "scope": k.Scope})
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(claims, text, 0o600); err != nil {
			return "", err
		}
	}
	token, err := obundle.GenerateSignedToken(files, obundle.NewSigningConfig(k.PEM, k.Algorithm, claims), k.ID)
	if err != nil {
		return "", fmt.Errorf("sign by %s with key %s: %w", k.Algorithm, k.ID, err)
	}
	return token, nil
}
