package outage_test

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

const issuer = "http://issuer.test"

// claims are those of a good token, with some changed, or taken out by nil.
func claims(changes map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": issuer, "sub": me, "aud": "gatehouse-api", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"jti": uuid.NewString(), "sid": "alive", "client_id": "test", "roles": []string{"customer"},
	}
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// signed is a token as an issuer makes it.
func signed(t *testing.T, k jose.SigningKey, changes map[string]any) func() string {
	t.Helper()
	token, err := jose.Sign(k, "at+jwt", claims(changes))
	if err != nil {
		t.Fatal(err)
	}
	return always(token)
}

func always(token string) func() string { return func() string { return token } }

// forged is a token as an attacker makes it: any header, any signature.
func forged(alg, kid string, changes map[string]any, sign func(input []byte) []byte) string {
	header, _ := json.Marshal(map[string]any{"alg": alg, "typ": "at+jwt", "kid": kid}) // texts always marshal
	payload, _ := json.Marshal(claims(changes))                                        // as above
	enc := base64.RawURLEncoding
	input := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	return input + "." + enc.EncodeToString(sign([]byte(input)))
}

func unsigned([]byte) []byte { return nil }

func hmacBy(key []byte) func([]byte) []byte {
	return func(input []byte) []byte {
		h := hmac.New(sha256.New, key)
		h.Write(input)
		return h.Sum(nil)
	}
}

func rs256By(t *testing.T, k crypto.Signer) func([]byte) []byte {
	return func(input []byte) []byte {
		sum := sha256.Sum256(input)
		out, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			t.Error(err)
		}
		return out
	}
}

func ps256By(t *testing.T, k crypto.Signer) func([]byte) []byte {
	return func(input []byte) []byte {
		sum := sha256.Sum256(input)
		out, err := k.Sign(rand.Reader, sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256})
		if err != nil {
			t.Error(err)
		}
		return out
	}
}

// publicPEM is a public key as it is published, and as an attacker takes it for a secret.
func publicPEM(t *testing.T, k jose.SigningKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// tokens are the kinds that must never be allowed, whatever is away: none of them bears a token that identifies anybody.
// S30, S34, S36, S38.
func tokens(t *testing.T, paths []string) []kind {
	t.Helper()
	good, err := jose.Sign(key(t), "at+jwt", claims(nil))
	if err != nil {
		t.Fatal(err)
	}
	head, signature := good[:strings.LastIndexByte(good, '.')+1], good[strings.LastIndexByte(good, '.')+1:]
	other := "A"
	if strings.HasPrefix(signature, other) {
		other = "B"
	}
	id, past := key(t).ID, time.Now().Add(-time.Hour)
	bad := func(name string, token func() string) kind {
		return kind{name: name, paths: paths, token: token, want: "token_invalid"}
	}
	return []kind{
		{name: "no token", paths: paths, token: always(""), want: "token_missing"},
		{name: "expired", paths: paths, token: signed(t, key(t), map[string]any{"iat": past.Unix(), "exp": past.Add(time.Minute).Unix()}), want: "token_expired"},
		bad("nonsense", always("nonsense")),
		bad("bad signature", always(head+other+signature[1:])),
		bad("no signature", always(head)),
		bad("alg none", always(forged("none", id, nil, unsigned))),
		bad("HS256 by the public key", always(forged("HS256", id, nil, hmacBy(publicPEM(t, key(t)))))),
		bad("wrong alg", always(forged("PS256", id, nil, ps256By(t, key(t).Private)))),
		bad("unknown kid", func() string { return forged("RS256", uuid.NewString(), nil, hmacBy([]byte("x"))) }),
		bad("unpublished key", signed(t, stranger(t), nil)),
		bad("another's key", always(forged("RS256", id, nil, rs256By(t, stranger(t).Private)))),
		bad("another issuer", signed(t, key(t), map[string]any{"iss": "http://other.test"})),
		bad("another audience", signed(t, key(t), map[string]any{"aud": "other"})),
	}
}
