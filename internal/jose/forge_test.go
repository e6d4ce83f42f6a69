package jose_test

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// forge makes a token of any header and payload, as an attacker would. Without sign its signature is one zero byte.
func forge(header string, payload []byte, sign func(input string) []byte) string {
	enc := base64.RawURLEncoding
	input := enc.EncodeToString([]byte(header)) + "." + enc.EncodeToString(payload)
	signature := []byte{0}
	if sign != nil {
		signature = sign(input)
	}
	return input + "." + enc.EncodeToString(signature)
}

func signRS256(k jose.SigningKey) func(string) []byte {
	return func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		return must(k.Private.Sign(rand.Reader, sum[:], crypto.SHA256))
	}
}
