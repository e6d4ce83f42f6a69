package jose_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

// signES256 makes the 64 bytes of RFC 7518 section 3.4.
func signES256(k *ecdsa.PrivateKey) func(string) []byte {
	return func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
		if err != nil {
			panic(err)
		}
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

func publicJWK(k *ecdsa.PrivateKey) string {
	point := must(k.PublicKey.Bytes())
	return `{"kty":"EC","crv":"P-256","x":"` + b64(point[1:33]) + `","y":"` + b64(point[33:]) + `"}`
}

// S49: a proof is verified by the key that it brings, which must be a public one of an accepted kind.
func TestAProofIsVerifiedByItsOwnKey(t *testing.T) {
	t.Parallel()
	k, other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	payload := []byte(`{"jti":"j1"}`)
	header := func(jwk string) string { return `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwk + `}` }
	good := header(publicJWK(k))
	algs := []string{jose.ES256}
	p, err := jose.OpenProof(forge(good, payload, signES256(k)), "dpop+jwt", algs)
	// RFC 7638 section 3: the required members in order, without white space.
	print := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC",` + publicJWK(k)[len(`{"kty":"EC","crv":"P-256",`):]))
	if err != nil || p.Claims["jti"] != "j1" || p.Thumbprint != b64(print[:]) {
		t.Fatalf("proof %+v, error %v", p, err)
	}
	withD := strings.Replace(publicJWK(k), `"kty"`, `"d":"`+b64(must(k.Bytes()))+`","kty"`, 1)
	for name, token := range map[string]string{
		"another's signature": forge(good, payload, signES256(other)),
		"another typ":         forge(strings.Replace(good, "dpop+jwt", "at+jwt", 1), payload, signES256(k)),
		"no typ":              forge(strings.Replace(good, `"typ":"dpop+jwt",`, "", 1), payload, signES256(k)),
		"an algorithm of its": forge(strings.Replace(good, "ES256", "none", 1), payload, nil),
		"HS256":               forge(strings.Replace(good, "ES256", "HS256", 1), payload, nil),
		"no key":              forge(`{"typ":"dpop+jwt","alg":"ES256"}`, payload, signES256(k)),
		"a private key":       forge(header(withD), payload, signES256(k)),
		"a symmetric key":     forge(header(`{"kty":"oct","k":"AAAA"}`), payload, signES256(k)),
		"a key for another":   forge(header(strings.Replace(publicJWK(k), `"kty"`, `"alg":"ES384","kty"`, 1)), payload, signES256(k)),
		"crit":                forge(strings.Replace(good, `"alg"`, `"crit":["x"],"alg"`, 1), payload, signES256(k)),
		"a text for a key":    forge(header(`"x"`), payload, signES256(k)),
		"nonsense":            "a.b.c",
	} {
		if _, err := jose.OpenProof(token, "dpop+jwt", algs); fault.CodeOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzProof(f *testing.F) {
	k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f.Add(forge(`{"typ":"dpop+jwt","alg":"ES256","jwk":`+publicJWK(k)+`}`, []byte(`{"jti":"j1"}`), signES256(k)))
	f.Fuzz(func(t *testing.T, s string) {
		if p, err := jose.OpenProof(s, "dpop+jwt", []string{jose.ES256, jose.EdDSA, jose.RS256, jose.PS256}); (err == nil) != (p.Thumbprint != "") {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	})
}

func TestAnIntrospectedTokenIsCheckedToo(t *testing.T) {
	t.Parallel()
	answer := func(change map[string]any) []byte {
		c := claims(map[string]any{"active": true, "iss": nil})
		for k, v := range change {
			if c[k] = v; v == nil {
				delete(c, k)
			}
		}
		return must(json.Marshal(c))
	}
	p, err := jose.Introspected(answer(nil), policy(), time.Minute)
	if err != nil || p.Subject != "u1" || p.Issuer != "https://issuer.test" || p.Roles[0] != "customer" || !p.ExpiresAt.Equal(now.Add(5*time.Minute)) {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := jose.Introspected(answer(map[string]any{"token_type": "bearer"}), policy(), time.Minute); err != nil {
		t.Errorf("a bearer token: %v", err)
	}
	if p, err := jose.Introspected(answer(map[string]any{"exp": nil, "iat": nil}), policy(), time.Minute); err != nil || !p.ExpiresAt.Equal(now.Add(time.Minute)) {
		t.Errorf("without exp: %+v, %v", p, err)
	}
	for name, c := range map[string]struct {
		body   []byte
		reason string // "" for an answer that cannot be read
	}{
		"not active":       {answer(map[string]any{"active": false}), "token_invalid"},
		"bare":             {[]byte(`{"active":false}`), "token_invalid"},
		"no active":        {answer(map[string]any{"active": nil}), ""},
		"active as a text": {answer(map[string]any{"active": "true"}), ""},
		"active twice":     {[]byte(`{"active":false,"active":true,"sub":"u1","aud":"api"}`), ""},
		"nonsense":         {[]byte(`<html>`), ""},
		"another issuer":   {answer(map[string]any{"iss": "https://evil.test"}), "token_invalid"},        // S34
		"another audience": {answer(map[string]any{"aud": "web"}), "token_invalid"},                      // S34
		"no audience":      {answer(map[string]any{"aud": nil}), "token_invalid"},                        // S34
		"no subject":       {answer(map[string]any{"sub": nil}), "token_invalid"},                        // S34
		"expired":          {answer(map[string]any{"exp": now.Add(-time.Hour).Unix()}), "token_expired"}, // S36
		"expiry as a text": {answer(map[string]any{"exp": "x"}), "token_invalid"},                        // S36
		"a refresh token":  {answer(map[string]any{"token_type": "refresh_token"}), "token_invalid"},     // S35
		"a type of its":    {answer(map[string]any{"token_type": 1}), "token_invalid"},                   // S35
		"not yet":          {answer(map[string]any{"nbf": now.Add(time.Hour).Unix()}), "token_invalid"},
		"bound to a cert":  {answer(map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}), "token_invalid"},
	} {
		who, err := jose.Introspected(c.body, policy(), time.Minute)
		f, is := fault.As(err)
		if err == nil || who.Subject != "" || is != (c.reason != "") || (is && f.Reason != c.reason) {
			t.Errorf("%s: %+v, %v", name, who, err)
		}
	}
}

func FuzzIntrospected(f *testing.F) {
	f.Add([]byte(`{"active":true,"sub":"u1","aud":"api","exp":9999999999}`))
	f.Add([]byte(`{"active":true,"sub":"u1","aud":["api"],"cnf":{"jkt":"k"},"Active":false}`))
	f.Add([]byte(`{"active":false}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		who, err := jose.Introspected(body, policy(), time.Minute)
		if err != nil {
			if !who.Anonymous() {
				t.Errorf("%q is refused, and stands for %q", body, who.Subject)
			}
			return
		}
		var answer struct {
			Active bool   `json:"active"`
			Sub    string `json:"sub"`
		}
		if json.Unmarshal(body, &answer) != nil || !answer.Active || answer.Sub != who.Subject || who.Subject == "" {
			t.Errorf("%q stands for %q", body, who.Subject)
		}
	})
}
