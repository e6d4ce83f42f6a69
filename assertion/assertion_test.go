package assertion_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/assertion"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

var ada = assertion.Identity{
	Subject: "u1", SubjectIssuer: "https://issuer.test", Tenant: "t1", ClientID: "c1", Session: "s1", ACR: "aal2",
	Roles: []string{"clerk", "a,admin"}, Scope: []string{"read", "write"}, Decision: "d1",
}

var get = assertion.Request{Method: "GET", Path: "/orders/o 1", Audience: "orders"}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// edge serves a signer's keys.
func edge(t *testing.T, s *assertion.Signer) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(s.KeySet()) }))
	t.Cleanup(server.Close)
	return server.URL
}

func checker(t *testing.T, at func() time.Time, keySets ...string) *assertion.Checker {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	return must(assertion.New(ctx, assertion.Config{Audience: "orders", KeySets: keySets, Now: at}))
}

func request(t *testing.T, method, target string, tokens ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	for _, token := range tokens {
		r.Header.Add(assertion.Header, token)
	}
	return r
}

func TestAnUpstreamLearnsWhoAsks(t *testing.T) {
	t.Parallel()
	s := must(assertion.NewSigner(clock))
	c := checker(t, clock, edge(t, s))
	got, err := c.Check(request(t, "GET", "/orders/o%201?any=query", must(s.Sign(ada, get))))
	if err != nil {
		t.Fatal(err)
	}
	want := must(json.Marshal(ada))
	if is := must(json.Marshal(got)); string(is) != string(want) {
		t.Errorf("identity %s, want %s", is, want)
	}
	got, err = c.Check(request(t, "GET", "/orders/o%201", must(s.Sign(assertion.Identity{}, get))))
	if err != nil || !got.Anonymous() {
		t.Errorf("without a token: %+v, %v", got, err)
	}
	named := must(s.Sign(assertion.Identity{Subject: "anonymous"}, get))
	if got, err = c.Check(request(t, "GET", "/orders/o%201", named)); err != nil || got.Anonymous() {
		t.Errorf("a user by that name: %+v, %v", got, err)
	}
}

// S54: an assertion is good for its request alone, and for a minute.
func TestAnAssertionIsOfNoUseForAnotherRequest(t *testing.T) {
	t.Parallel()
	s := must(assertion.NewSigner(clock))
	token := must(s.Sign(ada, get))
	url := edge(t, s)
	for name, r := range map[string]*http.Request{
		"another path":             request(t, "GET", "/orders/o2", token),
		"a path below":             request(t, "GET", "/orders/o%201/items", token),
		"a slash more":             request(t, "GET", "/orders/o%201/", token),
		"another method":           request(t, "DELETE", "/orders/o%201", token),
		"HEAD":                     request(t, "HEAD", "/orders/o%201", token),
		"another audience":         request(t, "GET", "/orders/o%201", must(s.Sign(ada, assertion.Request{Method: "GET", Path: "/orders/o 1", Audience: "invoices"}))),
		"another edge's key":       request(t, "GET", "/orders/o%201", must(must(assertion.NewSigner(clock)).Sign(ada, get))),
		"none":                     request(t, "GET", "/orders/o%201"),
		"an empty one":             request(t, "GET", "/orders/o%201", ""),
		"two":                      request(t, "GET", "/orders/o%201", token, token),
		"one that is cut short":    request(t, "GET", "/orders/o%201", token[:len(token)-2]),
		"the same with a new name": request(t, "GET", "/orders/o%201", replacePayload(token, `"sub":"u1"`, `"sub":"u2"`)),
	} {
		if i, err := checker(t, clock, url).Check(r); err == nil {
			t.Errorf("%s: accepted as %+v", name, i)
		}
	}
	for name, c := range map[string]struct {
		after time.Duration
		good  bool
	}{"within its minute": {64 * time.Second, true}, "after it": {65 * time.Second, false}, "before it was made": {-6 * time.Second, false}} {
		_, err := checker(t, func() time.Time { return now.Add(c.after) }, url).Check(request(t, "GET", "/orders/o%201", token))
		if (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func replacePayload(token, old, new string) string {
	parts := strings.Split(token, ".")
	payload := must(base64.RawURLEncoding.DecodeString(parts[1]))
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(payload), old, new, 1)))
	return strings.Join(parts, ".")
}

// S30, S35: neither another algorithm nor another kind of token passes for an assertion, though signed by the edge's own key.
func TestNoOtherAlgorithmOrTypePasses(t *testing.T) {
	t.Parallel()
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	file := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(private))})
	s := must(assertion.ReadSigner(file, clock))
	good := must(s.Sign(ada, get))
	var set struct {
		Keys []struct {
			ID string `json:"kid"`
			X  string `json:"x"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(s.KeySet(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatal(err)
	}
	c := checker(t, clock, edge(t, s))
	payload := strings.Split(good, ".")[1]
	forge := func(header string, sign func(input string) []byte) string {
		input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + payload
		return input + "." + base64.RawURLEncoding.EncodeToString(sign(input))
	}
	kid := `"kid":"` + set.Keys[0].ID + `"`
	es256 := func(input string) []byte {
		sum := sha256.Sum256([]byte(input))
		r, v := [32]byte{}, [32]byte{}
		a, b, err := ecdsa.Sign(rand.Reader, private, sum[:])
		if err != nil {
			t.Fatal(err)
		}
		return slices.Concat(a.FillBytes(r[:]), b.FillBytes(v[:]))
	}
	if _, err := c.Check(request(t, "GET", "/orders/o%201", forge(`{"alg":"ES256","typ":"gatehouse-assertion+jwt",`+kid+`}`, es256))); err != nil {
		t.Fatalf("a token of the right kind is refused: %v", err)
	}
	for name, token := range map[string]string{
		"none":                      forge(`{"alg":"none","typ":"gatehouse-assertion+jwt",`+kid+`}`, func(string) []byte { return []byte{0} }),
		"HS256 with the public key": forge(`{"alg":"HS256","typ":"gatehouse-assertion+jwt",`+kid+`}`, func(in string) []byte { return mac(private.Public(), in) }),
		"HS256 with the key set":    forge(`{"alg":"HS256","typ":"gatehouse-assertion+jwt",`+kid+`}`, func(in string) []byte { return hash(s.KeySet(), in) }),
		"ES384":                     forge(`{"alg":"ES384","typ":"gatehouse-assertion+jwt",`+kid+`}`, es256),
		"an access token":           forge(`{"alg":"ES256","typ":"at+jwt",`+kid+`}`, es256),
		"no type":                   forge(`{"alg":"ES256",`+kid+`}`, es256),
		"its own key":               forge(`{"alg":"ES256","typ":"gatehouse-assertion+jwt","kid":"x","jku":"https://evil.test"}`, es256),
	} {
		if i, err := c.Check(request(t, "GET", "/orders/o%201", token)); err == nil {
			t.Errorf("%s: accepted as %+v", name, i)
		}
	}
}

func mac(public crypto.PublicKey, input string) []byte {
	return hash(must(x509.MarshalPKIXPublicKey(public)), input)
}

func hash(key []byte, input string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(input))
	return m.Sum(nil)
}

// S54: behind the handler no header of identity is the network's word, whatever its case and its underscores.
func TestBehindTheHandlerIdentityIsTheEdgesWord(t *testing.T) {
	t.Parallel()
	s := must(assertion.NewSigner(clock))
	var saw *http.Request
	h := checker(t, clock, edge(t, s)).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { saw = r }))
	r := request(t, "GET", "/orders/o%201", must(s.Sign(ada, get)))
	r.Header["X-Gatehouse-Subject"] = []string{"admin", "root"}
	r.Header["X_gatehouse_subject"] = []string{"admin"}
	r.Header["x-gatehouse-roles"] = []string{"admin"}
	r.Header.Set("X-Gatehouse-Anything", "admin")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if saw == nil {
		t.Fatal("refused")
	}
	if i, ok := assertion.From(saw.Context()); !ok || i.Subject != "u1" || saw.Header.Get("X-Gatehouse-Subject") != "u1" || saw.Header.Get("X-Gatehouse-Roles") != "clerk" {
		t.Errorf("identity %+v, headers %v", i, saw.Header)
	}
	for name, values := range saw.Header {
		if slices.Contains(values, "admin") {
			t.Errorf("%s = %q", name, values)
		}
	}
	saw = nil
	w := httptest.NewRecorder()
	bare := request(t, "GET", "/orders/o%201")
	bare.Header.Set("X-Gatehouse-Subject", "admin")
	h.ServeHTTP(w, bare)
	if saw != nil || w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "assertion_invalid") {
		t.Errorf("without an assertion: %d %s", w.Code, w.Body)
	}
}

// S56: an edge whose keys cannot be had is no reason to believe, nor to call the caller a liar.
func TestWithoutKeysNothingIsBelieved(t *testing.T) {
	t.Parallel()
	s := must(assertion.NewSigner(clock))
	gone := httptest.NewServer(nil)
	gone.Close()
	h := checker(t, clock, gone.URL).Handler(http.NotFoundHandler())
	w := httptest.NewRecorder()
	h.ServeHTTP(w, request(t, "GET", "/orders/o%201", must(s.Sign(ada, get))))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

func TestEachOfSeveralEdgesIsBelieved(t *testing.T) {
	t.Parallel()
	a, b := must(assertion.NewSigner(clock)), must(assertion.NewSigner(clock))
	gone := httptest.NewServer(nil)
	gone.Close()
	c := checker(t, clock, gone.URL, edge(t, a), edge(t, b))
	for _, s := range []*assertion.Signer{a, b} {
		if _, err := c.Check(request(t, "GET", "/orders/o%201", must(s.Sign(ada, get)))); err != nil {
			t.Error(err)
		}
	}
}

func TestKeysAreReadFromAFileTheFirstSigns(t *testing.T) {
	t.Parallel()
	var file []byte
	for range 2 {
		k := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		file = append(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(k))})...)
	}
	s := must(assertion.ReadSigner(file, clock))
	if n := strings.Count(string(s.KeySet()), `"kid"`); n != 2 || strings.Contains(string(s.KeySet()), `"d"`) {
		t.Errorf("%d keys published: %s", n, s.KeySet())
	}
	if _, err := checker(t, clock, edge(t, s)).Check(request(t, "GET", "/orders/o%201", must(s.Sign(ada, get)))); err != nil {
		t.Error(err)
	}
	wrong := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	for name, text := range map[string][]byte{
		"nothing": nil, "no PEM": []byte("canary"), "another curve": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(wrong))}),
		"no key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("canary")}),
	} {
		if _, err := assertion.ReadSigner(text, clock); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnAssertionForNothingIsNotSigned(t *testing.T) {
	t.Parallel()
	s := must(assertion.NewSigner(clock))
	for _, r := range []assertion.Request{{}, {Method: "GET", Path: "/"}, {Path: "/", Audience: "a"}, {Method: "GET", Path: "x", Audience: "a"}} {
		if _, err := s.Sign(ada, r); err == nil {
			t.Errorf("signed for %+v", r)
		}
	}
	if _, err := s.Sign(assertion.Identity{Subject: "u", Roles: []string{strings.Repeat("x", 9000)}}, get); err == nil {
		t.Error("longer than any checker takes, and signed")
	}
}

func FuzzCheck(f *testing.F) {
	s := must(assertion.NewSigner(clock))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(s.KeySet()) }))
	f.Cleanup(server.Close)
	ctx, stop := context.WithCancel(context.Background())
	f.Cleanup(stop)
	c := must(assertion.New(ctx, assertion.Config{Audience: "orders", KeySets: []string{server.URL}, Now: clock}))
	good := must(s.Sign(ada, get))
	f.Add(good)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, token string) {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/orders/o%201", nil)
		r.Header.Set(assertion.Header, token)
		if i, err := c.Check(r); err == nil && token != good {
			t.Errorf("%q is accepted as %+v", token, i)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := must(assertion.NewSigner(clock))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Sign(ada, get); err != nil {
			b.Fatal(err)
		}
	}
}
