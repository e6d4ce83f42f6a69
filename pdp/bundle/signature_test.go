package bundle_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	obundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// pair is a private key and its public half, as PEM.
type pair struct{ private, public string }

func pairOf(t testing.TB, key crypto.Signer) pair {
	t.Helper()
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return pair{text("PRIVATE KEY", private), text("PUBLIC KEY", public)}
}

func p256(t testing.TB) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pairOf(t, key)
}

var rsa2048 = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

var ours = sync.OnceValue(func() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
})

// signing is the key of the tests, called release.
func signing(t testing.TB, scope string) bundle.SigningKey {
	t.Helper()
	return bundle.SigningKey{ID: "release", Algorithm: "ES256", PEM: pairOf(t, ours()).private, Scope: scope}
}

func verifier(t testing.TB, scope string) *bundle.Verifier {
	t.Helper()
	v, err := bundle.NewVerifier(scope, bundle.Key{ID: "release", Algorithm: "ES256", PEM: pairOf(t, ours()).public})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func two() []entry {
	return []entry{{name: "x.rego", body: rego}, {name: "data.json", body: `{"a":1}`}, {name: ".manifest", body: `{"revision":"7","roots":["gatehouse","a"]}`}}
}

func TestASignedBundleIsTaken(t *testing.T) {
	t.Parallel()
	for _, scope := range []string{"", "prod"} {
		signed, err := bundle.Sign(archive(t, two()...), bundle.Limits{}, signing(t, scope))
		if err != nil {
			t.Fatal(err)
		}
		b, err := bundle.Open(signed, bundle.Limits{}, verifier(t, scope))
		if err != nil || b.KeyID != "release" || b.Revision != "7" || len(b.Files) != 2 {
			t.Errorf("%+v, %v", b, err)
		}
		again, err := bundle.Sign(signed, bundle.Limits{}, signing(t, scope))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bundle.Open(again, bundle.Limits{}, verifier(t, scope)); err != nil {
			t.Errorf("signed twice: %v", err)
		}
		// OPA itself takes it.
		keys := map[string]*obundle.KeyConfig{"release": {Key: pairOf(t, ours()).public, Algorithm: "ES256"}}
		theirs, err := obundle.NewReader(bytes.NewReader(signed)).WithBundleVerificationConfig(obundle.NewVerificationConfig(keys, "release", scope, nil)).Read()
		if err != nil || theirs.Manifest.Revision != "7" {
			t.Errorf("OPA: %v", err)
		}
	}
}

func TestEachAlgorithmSignsAndVerifies(t *testing.T) {
	t.Parallel()
	curve := func(c elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, key := range map[string]crypto.Signer{
		"ES256": curve(elliptic.P256()), "ES384": curve(elliptic.P384()), "ES512": curve(elliptic.P521()), "EdDSA": ed,
		"RS256": rsa2048(), "RS512": rsa2048(), "PS256": rsa2048(), "PS384": rsa2048(),
	} {
		keys := pairOf(t, key)
		signed, err := bundle.Sign(archive(t, two()...), bundle.Limits{}, bundle.SigningKey{ID: "k", Algorithm: algorithm, PEM: keys.private})
		if err != nil {
			t.Errorf("%s: %v", algorithm, err)
			continue
		}
		v, err := bundle.NewVerifier("", bundle.Key{ID: "k", Algorithm: algorithm, PEM: keys.public})
		if err != nil {
			t.Errorf("%s: %v", algorithm, err)
			continue
		}
		if _, err := bundle.Open(signed, bundle.Limits{}, v); err != nil {
			t.Errorf("%s: %v", algorithm, err)
		}
	}
}

// opaBuild is `opa build --signing-key …`.
func opaBuild(t testing.TB, keyID string, optimise int) []byte {
	t.Helper()
	files := fstest.MapFS{
		"p/gatehouse/authz.rego":      {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.subject.id in data.gatehouse.admins\n")},
		"p/gatehouse/authz_test.rego": {Data: []byte("package gatehouse.authz_test\n\nimport data.gatehouse.authz\n\ntest_deny if not authz.decision.allow\n")},
		"p/gatehouse/data.yaml":       {Data: []byte("admins: [ann]\n")},
		"p/.manifest":                 {Data: []byte(`{"revision":"from opa","roots":["gatehouse"]}`)},
	}
	var out bytes.Buffer
	c := compile.New().WithFS(files).WithPaths("p").WithAsBundle(true).WithOutput(&out).WithOptimizationLevel(optimise)
	if optimise > 0 {
		c = c.WithEntrypoints("gatehouse/authz/decision")
	}
	if keyID != "" {
		c = c.WithBundleSigningConfig(obundle.NewSigningConfig(pairOf(t, ours()).private, "ES256", "")).WithBundleVerificationKeyID(keyID)
	}
	if err := c.Build(context.Background()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWhatOPABuildsAndSignsIsTaken(t *testing.T) {
	t.Parallel()
	for _, optimise := range []int{0, 1} {
		b, err := bundle.Open(opaBuild(t, "release", optimise), bundle.Limits{}, verifier(t, ""))
		if err != nil || b.KeyID != "release" || optimise == 0 && b.Revision != "from opa" || len(b.Files) < 2 {
			t.Errorf("-O=%d: %v", optimise, err)
		}
		if _, err := bundle.Open(opaBuild(t, "", optimise), bundle.Limits{}, nil); err != nil {
			t.Errorf("-O=%d, not signed: %v", optimise, err)
		}
	}
}

// claims are those of a signature that a test forges.
type claims map[string]any

// jws signs by the tests' key whatever a test wants to be signed.
func jws(t testing.TB, head, body claims) string {
	t.Helper()
	signed := part(t, head) + "." + part(t, body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, ours(), sum[:])
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, 64)
	r.FillBytes(raw[:32])
	s.FillBytes(raw[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(raw)
}

func part(t testing.TB, c claims) string {
	t.Helper()
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// listed is an entry of a signature's list.
func listed(name, algorithm string, hash func() []byte) map[string]string {
	return map[string]string{"name": name, "algorithm": algorithm, "hash": hex.EncodeToString(hash())}
}

func sumOf(text string) func() []byte {
	return func() []byte { s := sha256.Sum256([]byte(text)); return s[:] }
}

// hashed is how OPA hashes a text by the algorithm.
func hashed(t testing.TB, algorithm, text string) func() []byte {
	return func() []byte {
		h, err := obundle.NewSignatureHasher(obundle.HashingAlgorithm(algorithm))
		if err != nil {
			t.Fatal(err)
		}
		b, err := h.HashFile([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

// S62: the negative cases of GHSA-g2pf-6v5v-qcc8 and its kin. Each is signed by the right key, or looks as if it were.
func TestBundlesThatAreNotSignedAsTheyMustBeAreRefused(t *testing.T) {
	t.Parallel()
	head := claims{"alg": "ES256", "kid": "release"}
	with := func(c claims, name string, v any) claims {
		out := claims{name: v}
		for k, old := range c {
			if k != name {
				out[k] = old
			}
		}
		return out
	}
	x := listed("x.rego", "SHA-256", sumOf(rego))
	good := claims{"files": []any{x}, "scope": "prod"}
	signatures := func(tokens ...string) string {
		b, err := json.Marshal(map[string]any{"signatures": tokens})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	token := jws(t, head, good)
	pieces := strings.Split(token, ".")
	hs := hmac.New(sha256.New, []byte(pairOf(t, ours()).public))
	confused := part(t, with(head, "alg", "HS256")) + "." + part(t, good)
	hs.Write([]byte(confused))
	confused += "." + base64.RawURLEncoding.EncodeToString(hs.Sum(nil))
	file := entry{name: "x.rego", body: rego}
	sig := func(text string) entry { return entry{name: ".signatures.json", body: text} }

	// As opa sign makes them: with the key's id in the header, in the claims, or, where there is but one key, nowhere.
	for name, token := range map[string]string{"header": token, "claims": jws(t, claims{"alg": "ES256"}, with(good, "keyid", "release")), "nowhere": jws(t, claims{"alg": "ES256", "kid": ""}, good)} {
		if b, err := bundle.Open(archive(t, file, sig(signatures(token))), bundle.Limits{}, verifier(t, "prod")); err != nil || b.KeyID != "release" {
			t.Fatalf("key id in %s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		want    string
		entries []entry
	}{
		"no signature":                  {"not signed", []entry{file}},
		"a manifest that nobody signed": {"not signed", []entry{file, {name: ".manifest", body: "{{"}}}, // and nobody reads
		"signature elsewhere":           {"neither Rego", []entry{file, {name: "a/.signatures.json", body: signatures(token)}}},
		"delta bundle":                  {"delta bundle", []entry{{name: "patch.json", body: `{"data":[]}`}}},
		"delta beside a signature":      {"delta bundle", []entry{file, sig(signatures(token)), {name: "patch.json", body: `{"data":[]}`}}},
		"empty object":                  {"holds 0 signatures", []entry{file, sig(`{}`)}},
		"null":                          {"holds 0 signatures", []entry{file, sig(`{"signatures":null}`)}},
		"empty list":                    {"holds 0 signatures", []entry{file, sig(`{"signatures":[]}`)}},
		"two tokens":                    {"holds 2 signatures", []entry{file, sig(signatures(token, token))}},
		"a plugin":                      {"plugin", []entry{file, sig(`{"signatures":["` + token + `"],"plugin":"mine"}`)}},
		"more members":                  {"not what it must be", []entry{file, sig(`{"signatures":["` + token + `"],"x":1}`)}},
		"something after it":            {"follows", []entry{file, sig(signatures(token) + "{}")}},
		"two signature files":           {"twice", []entry{file, sig(signatures(token)), sig(signatures(token))}},
		"empty files list":              {"covers no files", []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{}))))}},
		"no files list":                 {"covers no files", []entry{file, sig(signatures(jws(t, head, claims{"scope": "prod"})))}},
		"a file that is not listed":     {`"y.rego" is not covered`, []entry{file, {name: "y.rego", body: rego}, sig(signatures(token))}},
		"data that is not listed":       {`"data.json" is not covered`, []entry{file, {name: "data.json", body: `{"a":1}`}, sig(signatures(token))}},
		"a manifest that is not listed": {`".manifest" is not covered`, []entry{file, {name: ".manifest", body: `{"roots":["x"]}`}, sig(signatures(token))}},
		"a listed file is missing":      {`missing: ["y.rego"]`, []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{x, listed("y.rego", "SHA-256", sumOf(rego))}))))}},
		"a file listed twice":           {"lists a file twice", []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{listed("x.rego", "SHA-256", sumOf("else")), x}))))}},
		"another content":               {"not what was signed", []entry{{name: "x.rego", body: rego + "y := 2\n"}, sig(signatures(token))}},
		"another name":                  {`"z.rego" is not covered`, []entry{{name: "z.rego", body: rego}, sig(signatures(token))}},
		"hash by MD5":                   {`by the hash "MD5"`, []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{listed("x.rego", "MD5", hashed(t, "MD5", rego))}))))}},
		"hash by SHA-1":                 {`by the hash "SHA-1"`, []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{listed("x.rego", "SHA-1", hashed(t, "SHA-1", rego))}))))}},
		"hash by nothing":               {`by the hash ""`, []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{listed("x.rego", "", sumOf(rego))}))))}},
		"an empty hash":                 {"not what was signed", []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{map[string]string{"name": "x.rego", "algorithm": "SHA-256"}}))))}},
		"half a hash":                   {"not what was signed", []entry{file, sig(signatures(jws(t, head, with(good, "files", []any{listed("x.rego", "SHA-256", func() []byte { return sumOf(rego)()[:16] })}))))}},
		"no scope":                      {"scope mismatch", []entry{file, sig(signatures(jws(t, head, claims{"files": []any{x}})))}},
		"another scope":                 {"scope mismatch", []entry{file, sig(signatures(jws(t, head, with(good, "scope", "test"))))}},
		"another key id":                {`by the key "other"`, []entry{file, sig(signatures(jws(t, with(head, "kid", "other"), good)))}},
		"another key id, older way":     {`by the key "other"`, []entry{file, sig(signatures(jws(t, claims{"alg": "ES256"}, with(good, "keyid", "other"))))}},
		"two key ids":                   {"names two keys", []entry{file, sig(signatures(jws(t, head, with(good, "keyid", "other"))))}},
		"algorithm none":                {`signed by "none"`, []entry{file, sig(signatures(part(t, with(head, "alg", "none")) + "." + part(t, good) + "."))}},
		"no algorithm":                  {`signed by ""`, []entry{file, sig(signatures(jws(t, claims{"kid": "release"}, good)))}},
		"public key as a secret":        {`signed by "HS256"`, []entry{file, sig(signatures(confused))}},
		"another algorithm's name":      {`signed by "ES384"`, []entry{file, sig(signatures(jws(t, with(head, "alg", "ES384"), good)))}},
		"an extension":                  {"extension", []entry{file, sig(signatures(jws(t, with(head, "crit", []string{"b64"}), good)))}},
		"payload not encoded":           {"extension", []entry{file, sig(signatures(jws(t, with(head, "b64", false), good)))}},
		"another payload":               {"by key release", []entry{file, sig(signatures(pieces[0] + "." + part(t, with(good, "iss", "x")) + "." + pieces[2]))}},
		"no signature bytes":            {"by key release", []entry{file, sig(signatures(pieces[0] + "." + pieces[1] + "."))}},
		"not three parts":               {"compact JWS", []entry{file, sig(signatures(pieces[0] + "." + pieces[1]))}},
		"not base64":                    {"compact JWS", []entry{file, sig(signatures("!." + pieces[1] + "." + pieces[2]))}},
	} {
		if b, err := bundle.Open(archive(t, c.entries...), bundle.Limits{}, verifier(t, "prod")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: read %v, %v", name, b != nil, err)
		}
	}
	// A scope in the signature that nobody asked for is a mismatch too.
	if _, err := bundle.Open(archive(t, file, sig(signatures(token))), bundle.Limits{}, verifier(t, "")); err == nil {
		t.Error("another scope than none is taken")
	}
}

// S62: a signature by one key never counts for another's name.
func TestKeysAreNotConfused(t *testing.T) {
	t.Parallel()
	other := p256(t)
	v, err := bundle.NewVerifier("", bundle.Key{ID: "release", Algorithm: "ES256", PEM: other.public}, bundle.Key{ID: "rsa", Algorithm: "RS256", PEM: pairOf(t, rsa2048()).public})
	if err != nil {
		t.Fatal(err)
	}
	x := claims{"files": []any{listed("x.rego", "SHA-256", sumOf(rego))}}
	for want, head := range map[string]claims{
		"by key release":      {"alg": "ES256", "kid": "release"},
		`signed by "ES256"`:   {"alg": "ES256", "kid": "rsa"},
		"names no key":        {"alg": "ES256"},
		`by the key "../rsa"`: {"alg": "RS256", "kid": "../rsa"},
	} {
		text, err := json.Marshal(map[string]any{"signatures": []string{jws(t, head, x)}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = bundle.Open(archive(t, entry{name: "x.rego", body: rego}, entry{name: ".signatures.json", body: string(text)}), bundle.Limits{}, v)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", head, err)
		}
	}
}

func TestKeysThatCannotPinAnythingAreRefused(t *testing.T) {
	t.Parallel()
	ec, r := pairOf(t, ours()), pairOf(t, rsa2048())
	small := "-----BEGIN RSA PUBLIC KEY-----\n" + base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PublicKey(&rsa.PublicKey{N: rsa2048().Primes[0], E: 65537})) + "\n-----END RSA PUBLIC KEY-----\n"
	for name, key := range map[string]bundle.Key{
		"no id":            {Algorithm: "ES256", PEM: ec.public},
		"no key":           {ID: "k", Algorithm: "ES256"},
		"private":          {ID: "k", Algorithm: "ES256", PEM: ec.private},
		"secret":           {ID: "k", Algorithm: "HS256", PEM: "secret"},
		"public as secret": {ID: "k", Algorithm: "HS256", PEM: ec.public},
		"no algorithm":     {ID: "k", PEM: ec.public},
		"none":             {ID: "k", Algorithm: "none", PEM: ec.public},
		"another curve":    {ID: "k", Algorithm: "ES384", PEM: ec.public},
		"another kind":     {ID: "k", Algorithm: "RS256", PEM: ec.public},
		"another kind 2":   {ID: "k", Algorithm: "ES256", PEM: r.public},
		"two keys":         {ID: "k", Algorithm: "ES256", PEM: ec.public + r.public},
		"weak":             {ID: "k", Algorithm: "RS256", PEM: small},
		"damaged":          {ID: "k", Algorithm: "ES256", PEM: "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"},
	} {
		if _, err := bundle.NewVerifier("", key); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if _, err := bundle.NewVerifier(""); err == nil {
		t.Error("no keys are taken")
	}
	good := bundle.Key{ID: "k", Algorithm: "ES256", PEM: ec.public}
	if _, err := bundle.NewVerifier("", good, good); err == nil {
		t.Error("one id for two keys is taken")
	}
	for name, key := range map[string]bundle.SigningKey{
		"no id": {Algorithm: "ES256", PEM: ec.private}, "public": {ID: "k", Algorithm: "ES256", PEM: ec.public}, "secret": {ID: "k", Algorithm: "HS256", PEM: "secret"},
		"another kind": {ID: "k", Algorithm: "RS256", PEM: ec.private}, "a path": {ID: "k", Algorithm: "ES256", PEM: "/etc/passwd"},
	} {
		if _, err := bundle.Sign(archive(t, two()...), bundle.Limits{}, key); err == nil {
			t.Errorf("%s signs", name)
		} else if strings.Contains(err.Error(), ec.private) {
			t.Errorf("%s: the key is in the error", name)
		}
	}
}
