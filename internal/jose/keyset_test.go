package jose_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
)

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// S37: points are validated, keys serve one purpose, and neither private nor symmetric keys verify anything.
func TestOnlyKeysForSignaturesEnterASet(t *testing.T) {
	t.Parallel()
	ec := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	point := must(ec.PublicKey.Bytes())
	x, y := b64(point[1:33]), b64(point[33:])
	off := append([]byte(nil), point[33:]...)
	off[31] ^= 1
	rsa := string(must(jose.PublicSet(testKey())))
	rsa = rsa[len(`{"keys":[`) : len(rsa)-2]
	with := func(key, more string) string { return strings.TrimSuffix(key, "}") + "," + more + "}" }
	good := `{"kty":"EC","crv":"P-256","kid":"good","x":"` + x + `","y":"` + y + `"}`
	for name, c := range map[string]struct {
		key string
		alg string
	}{
		"a point off the curve":           {`{"kty":"EC","crv":"P-256","kid":"k","x":"` + x + `","y":"` + b64(off) + `"}`, jose.ES256},
		"the point at nowhere":            {`{"kty":"EC","crv":"P-256","kid":"k","x":"","y":""}`, jose.ES256},
		"another curve":                   {`{"kty":"EC","crv":"P-384","kid":"k","x":"` + x + `","y":"` + y + `"}`, jose.ES256},
		"for encryption":                  {strings.Replace(good, `"kid":"good"`, `"kid":"k","use":"enc"`, 1), jose.ES256},
		"to sign, not to verify":          {strings.Replace(good, `"kid":"good"`, `"kid":"k","key_ops":["sign"]`, 1), jose.ES256},
		"a private key":                   {strings.Replace(good, `"kid":"good"`, `"kid":"k","d":"`+b64(must(ec.Bytes()))+`"`, 1), jose.ES256},
		"a symmetric key":                 {`{"kty":"oct","kid":"k","k":"AAAA","alg":"HS256"}`, jose.RS256},
		"an EC key that says RS256":       {strings.Replace(good, `"kid":"good"`, `"kid":"k","alg":"RS256"`, 1), jose.ES256},
		"an RSA key that says HS256":      {strings.Replace(rsa, `"alg":"RS256"`, `"alg":"HS256"`, 1), jose.RS256},
		"an RSA key that says none":       {strings.Replace(rsa, `"alg":"RS256"`, `"alg":"none"`, 1), jose.RS256},
		"RSA with exponent one":           {`{"kty":"RSA","kid":"k","n":"` + b64(append([]byte{0xc1}, make([]byte, 255)...)) + `","e":"AQ"}`, jose.RS256},
		"an RSA key that costs much time": {`{"kty":"RSA","kid":"k","n":"` + b64(append([]byte{0xc1}, make([]byte, 2048)...)) + `","e":"AQAB"}`, jose.RS256},
		"a short Ed25519 key":             {`{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}`, jose.EdDSA},
		"a kind from the future":          {`{"kty":"AKP","alg":"ML-DSA-44","kid":"k","pub":"AAAA"}`, jose.EdDSA},
		"no kid":                          {strings.Replace(good, `"kid":"good",`, ``, 1), jose.ES256},
		"an endless kid":                  {strings.Replace(good, `"good"`, `"`+strings.Repeat("k", 300)+`"`, 1), jose.ES256},
		"nonsense":                        {`7`, jose.ES256},
	} {
		s, err := jose.StaticKeys([]byte(`{"keys":[` + c.key + `,` + good + `]}`))
		if err != nil {
			t.Errorf("%s spoils the whole set: %v", name, err)
			continue
		}
		for _, kid := range []string{"k", "", testKey().ID, strings.Repeat("k", 300)} {
			if _, err := s.Key(t.Context(), kid, c.alg); err == nil {
				t.Errorf("%s verifies", name)
			}
		}
		if _, err := s.Key(t.Context(), "good", jose.ES256); err != nil {
			t.Errorf("the good key beside %s: %v", name, err)
		}
	}
	if s, err := jose.StaticKeys([]byte(`{"keys":[` + with(good, `"use":"sig","key_ops":["verify"]`) + `]}`)); err != nil || s == nil {
		t.Error(err)
	}
}

// S30: a poisoned set never replaces a good one, whatever it tries.
func TestAPoisonedSetChangesNothing(t *testing.T) {
	t.Parallel()
	one := string(must(jose.PublicSet(testKey())))
	one = one[len(`{"keys":[`) : len(one)-2]
	other := must(jose.GenerateRSA(2048))
	theirs := string(must(jose.PublicSet(other)))
	theirs = strings.ReplaceAll(theirs[len(`{"keys":[`):len(theirs)-2], other.ID, testKey().ID)
	for name, write := range map[string]func(http.ResponseWriter){
		"wrong alg": func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"keys":[%s]}`, strings.Replace(one, `"alg":"RS256"`, `"alg":"HS256"`, 1))
		},
		"10,000 keys": func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"keys":[%s%s]}`, strings.Repeat(`{"kty":"oct","k":"AA","kid":"k"},`, 10_000), one)
		},
		"100 MB": func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"keys":[`+one+`],"x":"`)
			for range 100 {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		},
		"the same kid twice": func(w http.ResponseWriter) { fmt.Fprintf(w, `{"keys":[%s,%s]}`, one, theirs) },
		"keys twice":         func(w http.ResponseWriter) { fmt.Fprintf(w, `{"keys":[%s],"keys":[%s]}`, one, theirs) },
		"emptied":            func(w http.ResponseWriter) { fmt.Fprint(w, `{"keys":[]}`) },
		"no keys at all":     func(w http.ResponseWriter) { fmt.Fprint(w, `{}`) },
		"an error":           func(w http.ResponseWriter) { w.WriteHeader(500) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var poisoned atomic.Bool
			c := &clock{}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if poisoned.Load() {
					write(w)
				} else {
					fmt.Fprintf(w, `{"keys":[%s]}`, one)
				}
			}))
			t.Cleanup(s.Close)
			r := must(jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: time.Hour, Now: c.now}))
			drop(t, r)
			before, err := r.Key(t.Context(), testKey().ID, jose.RS256)
			if err != nil {
				t.Fatal(err)
			}
			poisoned.Store(true)
			c.advance(time.Minute)
			if _, err := r.Key(t.Context(), "unknown", jose.RS256); fault.CodeOf(err) != fault.Unauthenticated {
				t.Error(err)
			}
			if r.Ready() == nil {
				t.Error("the poisoned set is not reported")
			}
			if after, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil || after != before || !r.Holds(before) {
				t.Errorf("the good key is gone: %v", err)
			}
		})
	}
}

// drop closes r's connections before its server is closed.
func drop(t *testing.T, r *jose.RemoteKeys) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Run(ctx)
	})
}

// S38: what a withdrawn or exchanged key has verified is no longer believed.
func TestAKeyIsHeldOnlyWhileItIsPublished(t *testing.T) {
	t.Parallel()
	r, i, c := remote(t)
	second := must(jose.GenerateRSA(2048))
	i.say(200, must(jose.PublicSet(testKey(), second)))
	key, err := r.Key(t.Context(), testKey().ID, jose.RS256)
	if err != nil {
		t.Fatal(err)
	}
	refetch := func() { c.advance(time.Minute); _, _ = r.Key(t.Context(), fmt.Sprint(c.now().Unix()), jose.RS256) }
	refetch()
	if !r.Holds(key) {
		t.Error("a key that is published again is another one")
	}
	i.say(200, []byte(strings.ReplaceAll(string(must(jose.PublicSet(second))), second.ID, testKey().ID)))
	refetch()
	if r.Holds(key) {
		t.Error("another key under the same kid passes for it")
	}
	i.say(200, must(jose.PublicSet(second)))
	refetch()
	if r.Holds(key) {
		t.Error("a withdrawn key is held")
	}
}

// The last good set lives on while the issuer is away, and not for ever.
func TestAnOldSetDies(t *testing.T) {
	t.Parallel()
	r, i, c := remote(t) // two hours
	i.say(200, must(jose.PublicSet(testKey())))
	key, err := r.Key(t.Context(), testKey().ID, jose.RS256)
	if err != nil {
		t.Fatal(err)
	}
	i.say(503, nil)
	c.advance(2 * time.Hour)
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil || !r.Holds(key) {
		t.Errorf("at its greatest age: %v", err)
	}
	c.advance(time.Second)
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); fault.CodeOf(err) != fault.Unavailable || r.Holds(key) {
		t.Errorf("beyond it: %v", err)
	}
	if age, ok := r.Age(); !ok || age != 2*time.Hour+time.Second {
		t.Errorf("age %v", age)
	}
	i.say(200, must(jose.PublicSet(testKey())))
	c.advance(time.Second)
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
		t.Errorf("the issuer is back: %v", err)
	}
}

// A kid that the issuer was asked for in vain costs it nothing for a minute.
func TestAnAbsentKeyIsRemembered(t *testing.T) {
	t.Parallel()
	r, i, c := remote(t)
	i.say(200, must(jose.PublicSet(testKey())))
	ask := func(kid string) int64 {
		_, _ = r.Key(t.Context(), kid, jose.RS256)
		return i.asked.Load()
	}
	if ask("a") != 1 {
		t.Fatal("the issuer was not asked")
	}
	for range 5 {
		c.advance(11 * time.Second)
		if n := ask("a"); n != 1 {
			t.Fatalf("asked %d times for a kid that was not there", n)
		}
	}
	if n := ask("b"); n != 2 {
		t.Errorf("another kid: asked %d times, want 2", n)
	}
	c.advance(11 * time.Second)
	if n := ask("a"); n != 3 {
		t.Errorf("after a minute: asked %d times, want 3", n)
	}
}

// A token that names a new key waits for the fetch that may bring it; it is not refused because another asked first.
func TestANewKeyIsWaitedForByAll(t *testing.T) {
	t.Parallel()
	second := must(jose.GenerateRSA(2048))
	var n atomic.Int64
	arrived, release := make(chan struct{}), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			_, _ = w.Write(must(jose.PublicSet(testKey())))
			return
		}
		close(arrived)
		<-release
		_, _ = w.Write(must(jose.PublicSet(testKey(), second)))
	}))
	t.Cleanup(s.Close)
	c := &clock{}
	r := must(jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: time.Hour, Now: c.now}))
	drop(t, r)
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	answers := make(chan error, 10)
	ask := func() { _, err := r.Key(context.Background(), second.ID, jose.RS256); answers <- err }
	go ask()
	<-arrived
	for range 9 {
		go ask()
	}
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
		t.Errorf("a known key meanwhile: %v", err)
	}
	close(release)
	for range 10 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if got := n.Load(); got != 2 {
		t.Errorf("asked %d times, want twice", got)
	}
}

// metadata serves discovery for an issuer at its own address.
type metadata struct {
	*httptest.Server
	document atomic.Pointer[string]
	path     string
	asked    atomic.Int64
}

func publishMetadata(t *testing.T, path string) *metadata {
	t.Helper()
	m := &metadata{path: path}
	set := must(jose.PublicSet(testKey()))
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case m.path:
			m.asked.Add(1)
			fmt.Fprint(w, *m.document.Load())
		case "/keys":
			_, _ = w.Write(set)
		case "/moved":
			http.Redirect(w, r, "/keys", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *metadata) say(issuer, keys string) {
	s := string(must(json.Marshal(map[string]string{"issuer": issuer, "jwks_uri": keys})))
	m.document.Store(&s)
}

func TestKeysAreFoundByDiscovery(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ issuer, at, metadataURL string }{
		"OpenID Connect":             {"", "/.well-known/openid-configuration", ""},
		"with a slash, as Auth0's":   {"/", "/.well-known/openid-configuration", ""},
		"with a path, as Keycloak's": {"/realms/shop", "/realms/shop/.well-known/openid-configuration", ""},
		"RFC 8414":                   {"/tenant", "/.well-known/oauth-authorization-server/tenant", ""},
		"elsewhere":                  {"/tenant", "/internal/metadata", "/internal/metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := publishMetadata(t, c.at)
			m.say(m.URL+c.issuer, m.URL+"/keys")
			o := jose.RemoteOptions{Issuer: m.URL + c.issuer, Refresh: time.Hour, Now: (&clock{}).now}
			if c.metadataURL != "" {
				o.MetadataURL = m.URL + c.metadataURL
			}
			r := must(jose.NewRemoteKeys(o))
			drop(t, r)
			if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
				t.Error(err)
			}
		})
	}
}

// S46, S64: metadata of another issuer is not believed, and metadata cannot send us where we would not go.
func TestMetadataIsNotBelievedBlindly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ issuer, keys string }{
		"another issuer":       {"https://evil.test", "/keys"},
		"with a slash more":    {"=/", "/keys"},
		"no key set":           {"=", ""},
		"a redirected key set": {"=", "/moved"},
		"another scheme":       {"=", "file:///etc/passwd"},
		"cloud metadata":       {"=", "http://169.254.169.254/latest/meta-data"},
		"a private address":    {"=", "https://10.0.0.1/keys"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := publishMetadata(t, "/.well-known/openid-configuration")
			keys := c.keys
			if strings.HasPrefix(keys, "/") {
				keys = m.URL + keys
			}
			m.say(strings.Replace(c.issuer, "=", m.URL, 1), keys)
			r := must(jose.NewRemoteKeys(jose.RemoteOptions{Issuer: m.URL, Refresh: time.Hour, Now: (&clock{}).now}))
			drop(t, r)
			if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); fault.CodeOf(err) != fault.Unavailable {
				t.Errorf("error %v", err)
			}
		})
	}
}

// The metadata is asked for again when the keys are no longer where it said.
func TestMovedKeysAreFoundAgain(t *testing.T) {
	t.Parallel()
	c := &clock{}
	m := publishMetadata(t, "/.well-known/openid-configuration")
	m.say(m.URL, m.URL+"/keys")
	r := must(jose.NewRemoteKeys(jose.RemoteOptions{Issuer: m.URL, Refresh: time.Hour, Now: c.now}))
	drop(t, r)
	if _, err := r.Key(t.Context(), testKey().ID, jose.RS256); err != nil {
		t.Fatal(err)
	}
	m.say(m.URL, m.URL+"/gone")
	c.advance(metadataLife)
	for range 2 {
		c.advance(time.Minute)
		_, _ = r.Key(t.Context(), fmt.Sprint(c.now().Unix()), jose.RS256)
	}
	if r.Ready() == nil {
		t.Fatal("the keys are not gone")
	}
	m.say(m.URL, m.URL+"/keys")
	c.advance(time.Minute)
	_, _ = r.Key(t.Context(), "another", jose.RS256)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
}

const metadataLife = time.Hour

// The set is fetched again before it ages, and an issuer that is away is tried again; neither needs a token.
func TestASetIsKeptFreshInTheBackground(t *testing.T) {
	t.Parallel()
	i := &issuer{}
	i.say(503, nil)
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	r := must(jose.NewRemoteKeys(jose.RemoteOptions{URL: s.URL, Refresh: 10 * time.Millisecond, MaxAge: time.Hour, Now: time.Now}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatal("in vain: " + what)
			}
		}
	}
	until("a second try", func() bool { return i.asked.Load() >= 2 })
	i.say(200, must(jose.PublicSet(testKey())))
	until("the set", func() bool { return r.Ready() == nil })
	n := i.asked.Load()
	until("a refresh", func() bool { return i.asked.Load() >= n+2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://issuer.test","jwks_uri":"https://issuer.test/keys"}`))
	f.Add([]byte(`{"issuer":"https://issuer.test","Issuer":"https://evil.test","jwks_uri":"x"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := jose.ReadMetadata(data, "https://issuer.test")
		var m map[string]any
		if err == nil && (json.Unmarshal(data, &m) != nil || m["issuer"] != "https://issuer.test" || keys == "") {
			t.Errorf("%q gives %q", data, keys)
		}
	})
}

func FuzzKeySet(f *testing.F) {
	f.Add(must(jose.PublicSet(testKey())))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := jose.StaticKeys(data); err == nil {
			for _, alg := range []string{"none", "HS256", "RS384", ""} {
				if _, err := s.Key(context.Background(), testKey().ID, alg); err == nil {
					t.Errorf("%q verifies %q", data, alg)
				}
			}
		}
	})
}
