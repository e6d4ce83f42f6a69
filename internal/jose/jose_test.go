package jose_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

var testKey = sync.OnceValue(func() jose.SigningKey { return must(jose.GenerateRSA(2048)) })

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func policy() jose.Policy {
	return jose.Policy{
		Issuer: "https://issuer.test", Audiences: []string{"api"}, Algorithms: []string{jose.RS256}, Types: []string{"at+jwt"},
		Skew: 30 * time.Second, MaxLifetime: time.Hour, Claims: jose.StandardClaims(),
		Now: func() time.Time { return now },
	}
}

func claims(changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": "https://issuer.test", "sub": "u1", "aud": []string{"api"}, "exp": now.Add(5 * time.Minute).Unix(), "iat": now.Unix(),
		"nbf": now.Unix(), "jti": "j1", "sid": "s1", "client_id": "c1", "scope": "a b", "roles": []string{"customer"},
		"attributes": map[string]any{"department": "sales"},
	}
	for name, v := range changes {
		if c[name] = v; v == nil {
			delete(c, name)
		}
	}
	return c
}

func keys(t *testing.T, k ...jose.SigningKey) jose.KeySource {
	t.Helper()
	s, err := jose.StaticKeys(must(jose.PublicSet(k...)))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAGoodTokenAnswersItsPrincipal(t *testing.T) {
	t.Parallel()
	token := must(jose.Sign(testKey(), "at+jwt", claims(nil)))
	p, err := jose.Verify(t.Context(), token, policy(), keys(t, testKey()))
	if err != nil {
		t.Fatal(err)
	}
	if p.Subject != "u1" || p.SessionID != "s1" || p.ClientID != "c1" || p.TokenID != "j1" || p.KeyID != testKey().ID ||
		p.Roles[0] != "customer" || p.Attributes["department"] != "sales" || len(p.Scope) != 2 || !p.ExpiresAt.Equal(now.Add(5*time.Minute)) {
		t.Errorf("principal %+v", p)
	}
}

// S34, S35, S36: issuer, audience, subject, type and times are all insisted on.
func TestATokenThatIsNotForUsIsRefused(t *testing.T) {
	t.Parallel()
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, c := range map[string]struct {
		typ     string
		changes map[string]any
		reason  string
	}{
		"another issuer":           {"at+jwt", map[string]any{"iss": "https://issuer.test/"}, "token_invalid"},
		"no issuer":                {"at+jwt", map[string]any{"iss": nil}, "token_invalid"},
		"another audience":         {"at+jwt", map[string]any{"aud": "web"}, "token_invalid"},
		"no audience":              {"at+jwt", map[string]any{"aud": nil}, "token_invalid"},
		"mixed audience":           {"at+jwt", map[string]any{"aud": []any{"api", 1}}, "token_invalid"},
		"no subject":               {"at+jwt", map[string]any{"sub": ""}, "token_invalid"},
		"numeric subject":          {"at+jwt", map[string]any{"sub": 7}, "token_invalid"},
		"no expiry":                {"at+jwt", map[string]any{"exp": nil}, "token_invalid"},
		"expiry as text":           {"at+jwt", map[string]any{"exp": "9999999999"}, "token_invalid"},
		"expiry beyond all time":   {"at+jwt", map[string]any{"exp": 1e300, "iat": nil}, "token_invalid"},
		"expired":                  {"at+jwt", map[string]any{"exp": at(-31 * time.Second), "iat": at(-time.Minute), "nbf": nil}, "token_expired"},
		"not yet valid":            {"at+jwt", map[string]any{"nbf": at(31 * time.Second)}, "token_invalid"},
		"issued in the future":     {"at+jwt", map[string]any{"iat": at(31 * time.Second)}, "token_invalid"},
		"longer than any may live": {"at+jwt", map[string]any{"exp": at(2 * time.Hour)}, "token_invalid"},
		"an id token":              {"JWT", nil, "token_invalid"},
		"a logout token":           {"logout+jwt", nil, "token_invalid"},
		"no type":                  {"", nil, "token_invalid"},
		"an id token as at+jwt":    {"at+jwt", map[string]any{"at_hash": "x"}, "token_invalid"},
		"a logout token as at+jwt": {"at+jwt", map[string]any{"events": map[string]any{}}, "token_invalid"},
		"bound to a certificate":   {"at+jwt", map[string]any{"cnf": map[string]any{"x5t#S256": "x"}}, "token_invalid"},
		"bound twice":              {"at+jwt", map[string]any{"cnf": map[string]any{"jkt": "x", "x5t#S256": "x"}}, "token_invalid"},
		"bound to nothing":         {"at+jwt", map[string]any{"cnf": nil, "CNF": 1, "cNf": 2}, "token_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token := must(jose.Sign(testKey(), c.typ, claims(c.changes)))
			wantRefused(t, token, c.reason)
		})
	}
}

func TestClocksMayDifferByTheSkewAndNoMore(t *testing.T) {
	t.Parallel()
	edge := now.Add(-29 * time.Second).Unix()
	token := must(jose.Sign(testKey(), "application/at+JWT", claims(map[string]any{"exp": edge, "iat": edge - 60, "nbf": nil})))
	if _, err := jose.Verify(t.Context(), token, policy(), keys(t, testKey())); err != nil {
		t.Errorf("within the skew: %v", err)
	}
}

// S30: only the algorithm that is pinned, whatever the token says of itself.
func TestTheAlgorithmIsPinned(t *testing.T) {
	t.Parallel()
	payload := must(json.Marshal(claims(nil)))
	none := forge(`{"alg":"none","typ":"at+jwt","kid":"`+testKey().ID+`"}`, payload, nil)
	der := must(x509.MarshalPKIXPublicKey(testKey().Private.Public()))
	hs := forge(`{"alg":"HS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, payload, func(in string) []byte {
		m := hmac.New(sha256.New, der)
		m.Write([]byte(in))
		return m.Sum(nil)
	})
	for name, token := range map[string]string{"none": none, "none, unsigned": strings.TrimRight(none, "A"), "HS256 with the public key": hs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, token, "token_invalid")
		})
	}
	ps := testKey()
	ps.Algorithm = jose.PS256
	wantRefused(t, must(jose.Sign(ps, "at+jwt", claims(nil))), "token_invalid")
}

// S30: the issuer's policy pins the algorithm, and so does its key set; each on its own.
func TestEachPinHoldsAlone(t *testing.T) {
	t.Parallel()
	ps := testKey()
	ps.Algorithm = jose.PS256
	token := must(jose.Sign(ps, "at+jwt", claims(nil)))
	pinned := must(jose.PublicSet(testKey()))
	open := bytes.Replace(pinned, []byte(`"alg":"RS256",`), nil, 1)
	if bytes.Equal(open, pinned) {
		t.Fatal("the published set does not say alg")
	}
	both := policy()
	both.Algorithms = []string{jose.RS256, jose.PS256}
	for name, c := range map[string]struct {
		set    []byte
		policy jose.Policy
		good   bool
	}{
		"neither pins":     {open, both, true},
		"the policy alone": {open, policy(), false},
		"the set alone":    {pinned, both, false},
	} {
		if _, err := jose.Verify(t.Context(), token, c.policy, must(jose.StaticKeys(c.set))); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// S31, S32, S33: a header cannot bring its own key, nor anything that we do not understand.
func TestAHeaderCannotSayWhereItsKeyIs(t *testing.T) {
	t.Parallel()
	stranger := must(jose.GenerateRSA(2048))
	jwks := string(must(jose.PublicSet(stranger)))
	good := `"alg":"RS256","typ":"at+jwt","kid":"` + testKey().ID + `"`
	payload := must(json.Marshal(claims(nil)))
	signed := func(header string, k jose.SigningKey) string { return forge(header, payload, signRS256(k)) }
	for name, token := range map[string]string{
		"its own jwk":       signed(`{`+good+`,"jwk":`+jwks[len(`{"keys":[`):len(jwks)-2]+`}`, stranger),
		"its own jku":       signed(`{`+good+`,"jku":"https://evil.test/jwks"}`, stranger),
		"unknown kid":       must(jose.Sign(stranger, "at+jwt", claims(nil))),
		"no kid":            signed(`{"alg":"RS256","typ":"at+jwt"}`, testKey()),
		"an endless kid":    signed(`{"alg":"RS256","typ":"at+jwt","kid":"`+strings.Repeat("x", 300)+`"}`, testKey()),
		"crit":              signed(`{`+good+`,"crit":["exp"]}`, testKey()),
		"b64":               signed(`{`+good+`,"b64":false}`, testKey()),
		"encrypted":         signed(`{`+good+`,"enc":"A256GCM"}`, testKey()),
		"nested":            signed(`{`+good+`,"cty":"JWT"}`, testKey()),
		"kid as a path":     signed(`{"alg":"RS256","typ":"at+jwt","kid":"../../dev/null"}`, testKey()),
		"kid as SQL":        signed(`{"alg":"RS256","typ":"at+jwt","kid":"' OR '1'='1"}`, testKey()),
		"kid as a URL":      signed(`{"alg":"RS256","typ":"at+jwt","kid":"https://evil.test/jwks"}`, testKey()),
		"kid as a number":   signed(`{"alg":"RS256","typ":"at+jwt","kid":7}`, testKey()),
		"deep":              signed(`{`+good+`,"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`}`, testKey()),
		"its own x5c":       signed(`{`+good+`,"x5c":["MIIB"]}`, stranger),
		"its own x5u":       signed(`{`+good+`,"x5u":"https://evil.test/x"}`, stranger),
		"alg twice":         signed(`{"alg":"none",`+good+`}`, testKey()),
		"alg in other case": signed(`{"ALG":"none",`+good+`}`, testKey()),
		"trailing bytes":    signed(`{`+good+`} {}`, testKey()),
		"an array":          signed(`[{`+good+`}]`, testKey()),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, token, "token_invalid")
		})
	}
	// S31: what a header says of its key is ignored, not read.
	for _, header := range []string{`{` + good + `}`, `{` + good + `,"jku":"https://evil.test","x5u":"https://evil.test","jwk":{"kty":"oct","k":"AA"},"x5c":["x"]}`} {
		if _, err := jose.Verify(t.Context(), signed(header, testKey()), policy(), keys(t, testKey())); err != nil {
			t.Errorf("our own signature under %s: %v", header, err)
		}
	}
}

// S32: one token is one sequence of bytes.
func TestAMangledTokenIsRefused(t *testing.T) {
	t.Parallel()
	token := must(jose.Sign(testKey(), "at+jwt", claims(nil)))
	parts := strings.Split(token, ".")
	twice := `{"sub":"admin",` + string(must(json.Marshal(claims(nil))))[1:]
	for name, bad := range map[string]string{
		"empty": "", "two parts": parts[0] + "." + parts[1], "four parts": token + ".x", "five parts": token + ".x.y", "padding": token + "=",
		"a line break": parts[0] + "." + parts[1] + "\n." + parts[2], "no signature": parts[0] + "." + parts[1] + ".",
		"another's signature":  parts[0] + "." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(claims(map[string]any{"sub": "admin"})))) + "." + parts[2],
		"too long":             must(jose.Sign(testKey(), "at+jwt", claims(map[string]any{"x": strings.Repeat("x", 8<<10)}))),
		"bytes after claims":   forge(`{"alg":"RS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, append(must(json.Marshal(claims(nil))), "{}"...), signRS256(testKey())),
		"claims not UTF-8":     forge(`{"alg":"RS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, bytes.Replace(must(json.Marshal(claims(nil))), []byte("u1"), []byte("u\xff"), 1), signRS256(testKey())),
		"a claim in two cases": forge(`{"alg":"RS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, []byte(strings.Replace(twice, `"sub":"admin"`, `"\u017fub":"admin"`, 1)), signRS256(testKey())),
		"a claim twice, deep":  forge(`{"alg":"RS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, []byte(strings.Replace(twice, `"sub":"admin"`, `"x":[{"a":{"b":1,"\u0062":2}}]`, 1)), signRS256(testKey())),
		"a claim twice":        forge(`{"alg":"RS256","typ":"at+jwt","kid":"`+testKey().ID+`"}`, []byte(twice), signRS256(testKey())),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, bad, "token_invalid")
		})
	}
}

// S37: a policy may ask for more than the 2048 bits that are the least.
func TestTheLeastModulusIsThePolicys(t *testing.T) {
	t.Parallel()
	token := must(jose.Sign(testKey(), "at+jwt", claims(nil)))
	for bits, good := range map[int]bool{0: true, 2048: true, 3072: false} {
		p := policy()
		p.MinRSABits = bits
		if _, err := jose.Verify(t.Context(), token, p, keys(t, testKey())); (err == nil) != good {
			t.Errorf("at least %d bits: %v", bits, err)
		}
	}
}

// S37: a key that is too weak or of the wrong type never verifies; private halves never leave.
func TestWeakKeysAreLeftOutOfASet(t *testing.T) {
	t.Parallel()
	if _, err := jose.StaticKeys(must(jose.PublicSet(must(jose.GenerateRSA(1024))))); err == nil {
		t.Error("a set of one 1024-bit key is accepted")
	}
	set := string(must(jose.PublicSet(testKey())))
	for _, private := range []string{`"d"`, `"p"`, `"q"`, `"dp"`} {
		if strings.Contains(set, private) {
			t.Errorf("the published set holds %s: %s", private, set)
		}
	}
}

func TestAPrivateKeyComesBackAsItWasStored(t *testing.T) {
	t.Parallel()
	der := must(testKey().MarshalPKCS8())
	back, err := jose.ParsePKCS8(testKey().ID, jose.RS256, der)
	if err != nil || back.ID != testKey().ID {
		t.Fatalf("key %q, error %v", back.ID, err)
	}
	if _, err := jose.ParsePKCS8("another", jose.RS256, der); err == nil {
		t.Error("a key under another's name is accepted")
	}
	if _, err := jose.ParsePKCS8(testKey().ID, jose.ES256, der); err == nil {
		t.Error("an RSA key is accepted for ES256")
	}
}

func wantRefused(t *testing.T, token, reason string) {
	t.Helper()
	p, err := jose.Verify(t.Context(), token, policy(), keys(t, testKey()))
	if err == nil {
		t.Fatalf("accepted as %+v", p)
	}
	f, ok := fault.As(err)
	if !ok || f.Code != fault.Unauthenticated || f.Reason != reason {
		t.Errorf("error %v, want %s", err, reason)
	}
	if p.Subject != "" {
		t.Error("a refused token still answered a subject")
	}
}

func FuzzVerify(f *testing.F) {
	token := must(jose.Sign(testKey(), "at+jwt", claims(nil)))
	f.Add(token)
	f.Add("a.b.c")
	f.Add(forge(`{"alg":"none"}`, []byte(`{"a":{"a":[{}]}}`), nil))
	source := must(jose.StaticKeys(must(jose.PublicSet(testKey()))))
	f.Fuzz(func(t *testing.T, s string) {
		p, err := jose.Verify(t.Context(), s, policy(), source)
		if err == nil && s != token {
			t.Errorf("accepted %q as %+v", s, p)
		}
		if f := (*fault.Error)(nil); err != nil && !errors.As(err, &f) {
			t.Errorf("%v is no fault", err)
		}
	})
}

func TestPolicyIsChecked(t *testing.T) {
	t.Parallel()
	if err := policy().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*jose.Policy){
		"issuer":     func(p *jose.Policy) { p.Issuer = "" },
		"audiences":  func(p *jose.Policy) { p.Audiences = nil },
		"algorithms": func(p *jose.Policy) { p.Algorithms = []string{"HS256"} },
		"types":      func(p *jose.Policy) { p.Types = nil },
		"skew":       func(p *jose.Policy) { p.Skew = 61 * time.Second },
		"empty type": func(p *jose.Policy) { p.Types = []string{"at+jwt", ""} },
		"RSA bits":   func(p *jose.Policy) { p.MinRSABits = 9000 },
		"path":       func(p *jose.Policy) { p.Claims.Roles = []jose.Path{"a..b"} },
		"separator":  func(p *jose.Policy) { p.Claims.Separator = ";" },
		"require":    func(p *jose.Policy) { p.Require = map[jose.Path]string{"": "x"} },
	} {
		p := policy()
		spoil(&p)
		if p.Validate() == nil {
			t.Errorf("a bad %s is accepted", name)
		}
	}
}
