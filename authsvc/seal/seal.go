// Package seal keeps secrets that have to be stored: it encrypts them with XChaCha20-Poly1305 under a key that is not in
// the database, and derives other keys from that one, each for one purpose.
package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the length of the root key in bytes.
const KeySize = 32

// A sealed value is: version (1 byte), key id (4), nonce (24), ciphertext with its tag (16 more than the plaintext).
const (
	version = 1
	idSize  = 4
	prefix  = 1 + idSize
)

// What keys are derived for. The first two do not begin like the third, so that no purpose names either.
const (
	idLabel      = "box id"
	sealLabel    = "box seal"
	purposeLabel = "gatehouse "
)

// ErrUnsealable is the answer for what was sealed with another key, for another purpose, or changed since.
var ErrUnsealable = errors.New("seal: cannot be opened with this key")

// Box seals and opens. It is safe for concurrent use.
type Box struct {
	root []byte
	id   []byte
	aead cipher.AEAD
}

// New makes a box of a root key of KeySize random bytes.
func New(key []byte) (*Box, error) {
	if len(key) != KeySize {
		return nil, fmt.Errorf("seal: the key has %d bytes instead of %d", len(key), KeySize)
	}
	b := &Box{root: append([]byte(nil), key...)}
	var err error
	if b.id, err = hkdf.Key(sha256.New, b.root, nil, idLabel, idSize); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	secret, err := hkdf.Key(sha256.New, b.root, nil, sealLabel, chacha20poly1305.KeySize)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if b.aead, err = chacha20poly1305.NewX(secret); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b, nil
}

// Derive answers 32 bytes for one purpose, the same each time, from which neither the root key nor those of other
// purposes can be computed (HKDF, RFC 5869).
func (b *Box) Derive(purpose string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, b.root, nil, purposeLabel+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return key, nil
}

// Seal encrypts plaintext. The context is authenticated, not stored: Open wants the same, so that a sealed value cannot be
// moved to another row.
func (b *Box) Seal(plaintext, context []byte) []byte {
	nonce := make([]byte, chacha20poly1305.NonceSizeX)
	_, _ = rand.Read(nonce) // never fails, by its documentation
	sealed := append([]byte{version}, b.id...)
	sealed = append(sealed, nonce...)
	return b.aead.Seal(sealed, nonce, plaintext, context)
}

// Open decrypts what Seal made. It answers ErrUnsealable.
func (b *Box) Open(sealed, context []byte) ([]byte, error) {
	if len(sealed) < prefix+chacha20poly1305.NonceSizeX || sealed[0] != version ||
		subtle.ConstantTimeCompare(sealed[1:prefix], b.id) != 1 {
		return nil, ErrUnsealable
	}
	nonce, rest := sealed[prefix:prefix+chacha20poly1305.NonceSizeX], sealed[prefix+chacha20poly1305.NonceSizeX:]
	plaintext, err := b.aead.Open(nil, nonce, rest, context)
	if err != nil {
		return nil, ErrUnsealable
	}
	return plaintext, nil
}
