package e2e_test

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
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// A forged token never gets further than 401. Each is made from a good one by one change and signed with an attacker's key
// or not at all; that each check refuses on its own, with a right signature, is proved in internal/jose (S30 to S36).
func TestForgedTokensAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	want(t, send(t, ann.Client, http.MethodGet, "/orders", nil), http.StatusOK, "") // the change is what refuses the others

	header, claims := parts(t, ann.Access)
	attacker, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		out, err := rsa.SignPKCS1v15(rand.Reader, attacker, crypto.SHA256, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	signature := func(string) []byte { return decode(t, strings.Split(ann.Access, ".")[2]) }
	public := publicKey(t, s, header["kid"])
	shared := func(key []byte) func(string) []byte {
		return func(input string) []byte {
			mac := hmac.New(sha256.New, key)
			mac.Write([]byte(input))
			return mac.Sum(nil)
		}
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	for name, token := range map[string]string{
		"alg none":                        token(with(header, "alg", "none"), claims, func(string) []byte { return nil }),
		"alg none, capitals":              token(with(header, "alg", "nOnE"), claims, func(string) []byte { return nil }),
		"alg none, old signature":         token(with(header, "alg", "none"), claims, signature),
		"HS256 with the public key (PEM)": token(with(header, "alg", "HS256"), claims, shared(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))),
		"HS256 with the public key (DER)": token(with(header, "alg", "HS256"), claims, shared(der)),
		"another key":                     token(header, claims, sign),
		"another issuer":                  token(header, with(claims, "iss", "https://evil.example"), sign),
		"another audience":                token(header, with(claims, "aud", "another-api"), sign),
		"no exp":                          token(header, with(claims, "exp", nil), sign),
		"expired":                         token(header, with(claims, "exp", now-3600), sign),
		"not yet valid":                   token(header, with(claims, "nbf", now+3600), sign),
		"wrong typ":                       token(with(header, "typ", "JWT"), claims, sign),
		"unknown kid":                     token(with(header, "kid", "nobody-knows"), claims, sign),
		"no kid":                          token(with(header, "kid", nil), claims, sign),
		"key in the header":               token(with(header, "jwk", map[string]any{"kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(attacker.N.Bytes())}), claims, sign),
		"more roles, old signature":       token(header, with(claims, "roles", []string{"admin"}), signature),
		"three dots":                      "..",
		"not a token":                     "hello",
		"9 KB":                            ann.Access + strings.Repeat("A", 9<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := send(t, ann.Client.As(token), http.MethodGet, "/auth/me", nil)
			if a.Status != http.StatusUnauthorized || a.DecisionID() == "" {
				t.Fatalf("%d, decision %q: %.300s", a.Status, a.DecisionID(), a.Body)
			}
			want(t, a, http.StatusUnauthorized, a.Problem().Code)
			if strings.Contains(string(a.Body), token) {
				t.Error("the token is echoed")
			}
		})
	}
}

func token(header, claims map[string]any, sign func(string) []byte) string {
	input := encode(header) + "." + encode(claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
}

// with answers a copy with one member changed; nil takes it away.
func with(m map[string]any, name string, value any) map[string]any {
	m = maps.Clone(m)
	if m[name] = value; value == nil {
		delete(m, name)
	}
	return m
}

func encode(m map[string]any) string {
	data, err := json.Marshal(m)
	if err != nil {
		panic(err) // maps of plain values always encode
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func decode(t *testing.T, s string) []byte {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parts(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	segments := strings.Split(token, ".")
	if len(segments) != 3 {
		t.Fatalf("%d segments", len(segments))
	}
	for i, m := range []*map[string]any{&header, &claims} {
		if err := json.Unmarshal(decode(t, segments[i]), m); err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func publicKey(t *testing.T, s site, kid any) *rsa.PublicKey {
	t.Helper()
	a := send(t, s.guest(), http.MethodGet, "/auth/.well-known/jwks.json", nil)
	want(t, a, http.StatusOK, "")
	var set struct {
		Keys []struct{ Kid, N, E, D string }
	}
	if err := a.Decode(&set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if k.D != "" {
			t.Fatal("the key set holds a private key")
		}
		if k.Kid == kid {
			return &rsa.PublicKey{N: new(big.Int).SetBytes(decode(t, k.N)), E: int(new(big.Int).SetBytes(decode(t, k.E)).Int64())}
		}
	}
	t.Fatalf("the key set lacks %v", kid)
	return nil
}

// S39, S55: what two parsers could read differently is refused before anything else is looked at.
func TestTwoTokensAndBadBytesAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	bearer := "Authorization: Bearer " + ann.Access
	for name, c := range map[string]struct{ head, code string }{
		"two Authorization headers":      {"GET /auth/me HTTP/1.1\n" + bearer + "\nAuthorization: Bearer other", "two_tokens"},
		"the same token twice":           {"GET /auth/me HTTP/1.1\n" + bearer + "\n" + bearer, "two_tokens"},
		"a header that is not UTF-8":     {"GET /auth/me HTTP/1.1\n" + bearer + "\nX-Note: \xff", "bad_header"},
		"a header with underscores":      {"GET /auth/me HTTP/1.1\n" + bearer + "\nX_Gatehouse_Subject: admin", "bad_header"},
		"a token with a non-UTF-8 byte":  {"GET /auth/me HTTP/1.1\n" + bearer + "\xff", "bad_header"},
		"dot segments":                   {"GET /orders/../orders HTTP/1.1\n" + bearer, "bad_path"},
		"encoded dot segments":           {"GET /orders/%2e%2e/orders HTTP/1.1\n" + bearer, "bad_path"},
		"an encoded slash":               {"GET /orders/1%2f2 HTTP/1.1\n" + bearer, "bad_path"},
		"an encoded backslash":           {"GET /orders/1%5c2 HTTP/1.1\n" + bearer, "bad_path"},
		"a doubly encoded slash":         {"GET /orders/1%252f2 HTTP/1.1\n" + bearer, "bad_path"},
		"an encoded zero byte":           {"GET /orders/1%00 HTTP/1.1\n" + bearer, "bad_path"},
		"two slashes":                    {"GET /orders//1 HTTP/1.1\n" + bearer, "bad_path"},
		"a path parameter":               {"GET /orders/1;x=2 HTTP/1.1\n" + bearer, "bad_path"},
		"a path whose bytes are not UTF": {"GET /orders/%ff HTTP/1.1\n" + bearer, "bad_path"}, // 404: Kong finds no route for it
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := raw(t, s.Gateway, c.head, "")
			if name == "a header with underscores" && a.Status == http.StatusOK && !strings.Contains(string(a.Body), "admin") {
				return // the gateway dropped it, as nginx does by default; nobody saw it
			}
			if a.Status != http.StatusBadRequest && a.Status != http.StatusNotFound {
				t.Fatalf("%d: %.300s", a.Status, a.Body)
			}
			if p := a.Problem(); p.Code != "" && p.Code != c.code && p.Code != "bad_request" {
				t.Errorf("code %s, want %s", p.Code, c.code)
			}
		})
	}
}

// S54: nobody says who he is but the token.
func TestSpoofedIdentityHeadersAreOverwritten(t *testing.T) {
	t.Parallel()
	s := open(t)
	ann := s.join(t)
	a, err := ann.Client.Send(t.Context(), story.Request{
		Method: http.MethodPost, Path: "/orders", Body: map[string]any{"item": "a lamp", "amount": 1},
		Header: http.Header{"X-Gatehouse-Subject": {"somebody-else", "another"}, "x-gatehouse-subject": {"third"}, "X-Gatehouse-Roles": {"admin"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, a, http.StatusCreated, "")
	var o struct{ Owner string }
	if err := a.Decode(&o); err != nil || o.Owner != ann.ID {
		t.Errorf("owner %q, want %q; error %v", o.Owner, ann.ID, err)
	}
}
