package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	obundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// keys writes a new pair and answers the files.
func keys(t *testing.T) (private, public string) {
	t.Helper()
	secret, known := pki.KeyPair(t)
	dir := t.TempDir()
	private, public = filepath.Join(dir, "private.pem"), filepath.Join(dir, "public.pem")
	save(t, private, secret)
	save(t, public, known)
	return private, public
}

func save(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tool runs `gatehouse-pdp bundle …`.
func tool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := bundleCommand(t.Context(), args, &out, io.Discard)
	return out.String(), err
}

// pack builds a folder and answers the bundle.
func pack(t *testing.T, dir string, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "b.tar.gz")
	if text, err := tool(t, append(append([]string{"build", "-o", out}, args...), dir)...); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// depot serves bundles by path.
type depot struct {
	*httptest.Server
	mu   sync.Mutex
	have map[string][]byte
}

func newDepot(t *testing.T) *depot {
	t.Helper()
	d := &depot{have: map[string][]byte{}}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		b, ok := d.have[r.URL.Path]
		d.mu.Unlock()
		sum := sha256.Sum256(b)
		tag := `"` + hex.EncodeToString(sum[:8]) + `"`
		switch {
		case !ok:
			http.NotFound(w, r)
		case r.Header.Get("If-None-Match") == tag:
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("ETag", tag)
			_, _ = w.Write(b)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *depot) publish(path string, b []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b == nil {
		delete(d.have, path)
		return
	}
	d.have[path] = b
}

func (p *program) ready(t *testing.T, words ...string) bool {
	t.Helper()
	_, body := p.get(t, "/readyz")
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(body, w) })
}

func (p *program) allows(t *testing.T, kind string) bool {
	t.Helper()
	res, err := p.ask(t, kind, "17")
	return err == nil && res.Decision
}

// S56, S62: bundles decide once they have come, signed; a worse one keeps the old; the last good one survives a restart.
func TestASignedBundleDecides(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	sign := []string{"-key", private, "-key-id", "release", "-scope", "prod"}
	kept := filepath.Join(t.TempDir(), "kept")
	d := newDepot(t)
	file := filepath.Join(t.TempDir(), "bundles.yaml")
	config := func(poll string) {
		save(t, file, fmt.Sprintf(`
keys: {release: {algorithm: ES256, file: %s}}
keep: {dir: %s}
sources:
  authz: {url: %s/authz.tar.gz, scope: prod, roots: [gatehouse], poll: %s, timeout: 5s, max_staleness: 1h, when_stale: deny}
`, public, kept, d.URL, poll))
	}
	config("20ms")
	one, _ := folder(t, rules("order"))
	p := start(t, "-bundles", file)
	if status, body := p.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "Nothing yet from source authz") {
		t.Errorf("before anything came: %d %s", status, body)
	}
	if res, err := p.ask(t, "order", "17"); err == nil || res.Decision {
		t.Errorf("before anything came: %+v, %v", res, err)
	}
	d.publish("/authz.tar.gz", pack(t, one, append(sign, "-revision", "r1")...))
	await.That(t, "the bundle decides", func() bool { return p.allows(t, "order") })
	await.That(t, "it is ready", func() bool { return p.ready(t, `"status":"ok"`) })
	two, _ := folder(t, rules("invoice"))
	stranger, _ := keys(t)
	failing, _ := folder(t, rules("invoice"))
	save(t, filepath.Join(failing, "gatehouse", "authz_test.rego"), "package gatehouse.authz_test\n\ntest_no if false\n")
	for why, b := range map[string][]byte{
		"signature: not signed":                pack(t, two),
		"signature: by key release":            pack(t, two, "-key", stranger, "-key-id", "release", "-scope", "prod"),
		"scope mismatch":                       pack(t, two, "-key", private, "-key-id", "release"),
		"read: not a .tar.gz archive":          []byte("<html>"),
		"tests: these fail: authz:":            signedAnyway(t, failing, sign),
		`root \"system\" is outside the roots`: pack(t, two, append(sign, "-root", "gatehouse", "-root", "system")...),
		"compile: ":                            signedAnyway(t, func() string { dir, _ := folder(t, rules("invoice")+"\nx := http.send({})\n"); return dir }(), sign),
	} {
		d.publish("/authz.tar.gz", b)
		await.That(t, why+" is told", func() bool { return p.ready(t, `"degraded"`, "Source authz: ", why) })
		if !p.allows(t, "order") || p.allows(t, "invoice") {
			t.Errorf("%s: the old policy does not decide", why)
		}
	}
	p.stop(t)

	// Its source is away, and it decides by what it kept.
	d.publish("/authz.tar.gz", nil)
	p = start(t, "-bundles", file)
	await.That(t, "the kept bundle decides", func() bool { return p.allows(t, "order") })
	await.That(t, "the source is told to be away", func() bool { return p.ready(t, `"degraded"`, "Source authz: away: answered 404") })
	d.publish("/authz.tar.gz", pack(t, two, sign...))
	await.That(t, "the next bundle decides", func() bool { return p.allows(t, "invoice") && p.ready(t, `"status":"ok"`) })
	if p.allows(t, "order") {
		t.Error("the old one still decides")
	}
}

// signedAnyway packs what build would not.
func signedAnyway(t *testing.T, dir string, sign []string) []byte {
	t.Helper()
	return pack(t, dir, append([]string{"-unchecked"}, sign...)...)
}

func TestSeveralSourcesDecideTogetherWithinTheirRoots(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	file := filepath.Join(t.TempDir(), "bundles.yaml")
	save(t, file, fmt.Sprintf("sources:\n  rules: {url: %[1]s/rules, poll: 20ms}\n  data: {url: %[1]s/data, poll: 20ms}\nfolder: {roots: [local]}\n", d.URL))
	local := t.TempDir()
	save(t, filepath.Join(local, "local", "x.rego"), "package local\n\nkind := data.kinds.allowed[_]\n")
	dir, _ := folder(t, "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.resource.type == data.local.kind\n")
	data := func(kind string) []byte {
		dir := t.TempDir()
		save(t, filepath.Join(dir, "kinds", "data.yaml"), "allowed: ["+kind+"]\n")
		return pack(t, dir)
	}
	d.publish("/rules", pack(t, dir))
	d.publish("/data", data("order"))
	p := start(t, "-bundles", file, "-policies", local)
	await.That(t, "they decide together", func() bool { return p.allows(t, "order") && p.ready(t, `"status":"ok"`) })
	d.publish("/data", pack(t, dir))
	await.That(t, "the conflict is told", func() bool {
		return p.ready(t, `"degraded"`, "Source data: roots:", `root \"gatehouse\" of source data overlaps root \"gatehouse\" of source rules`)
	})
	if !p.allows(t, "order") {
		t.Error("the old policies do not decide")
	}
	d.publish("/data", data("invoice"))
	await.That(t, "the next data decide", func() bool { return p.allows(t, "invoice") && p.ready(t, `"status":"ok"`) })
}

func TestWhatOPABuildsAndSignsDecides(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	key, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err = compile.New().WithFS(fstest.MapFS{
		"p/gatehouse/authz.rego":      {Data: []byte(rules("order"))},
		"p/gatehouse/authz_test.rego": {Data: []byte("package gatehouse.authz_test\n\nimport data.gatehouse.authz\n\ntest_deny if not authz.decision.allow with input as {}\n")},
	}).WithPaths("p").WithAsBundle(true).WithOutput(&b).
		WithBundleSigningConfig(obundle.NewSigningConfig(string(key), "ES256", "")).WithBundleVerificationKeyID("default").Build(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	d := newDepot(t)
	d.publish("/b", b.Bytes())
	file := filepath.Join(t.TempDir(), "bundles.yaml")
	save(t, file, fmt.Sprintf("keys: {default: {algorithm: ES256, file: %s}}\nsources: {opa: {url: %s/b, poll: 20ms}}\n", public, d.URL))
	p := start(t, "-bundles", file)
	await.That(t, "it decides", func() bool { return p.allows(t, "order") && !p.allows(t, "invoice") })
}

func TestTheToolsSayWhatTheyDid(t *testing.T) {
	t.Parallel()
	private, public := keys(t)
	out := filepath.Join(t.TempDir(), "b.tar.gz")
	text, err := tool(t, "build", "-o", out, "-revision", "r7", "../policies")
	if err != nil || !strings.Contains(text, "revision  r7") || !strings.Contains(text, "roots     gatehouse") || !strings.Contains(text, "denies by default") || !strings.Contains(text, "signed    no") {
		t.Fatalf("%s, %v", text, err)
	}
	verify := []string{"verify", "-key", public, "-key-id", "k", out}
	if _, err := tool(t, verify...); err == nil || !strings.Contains(err.Error(), "refused: not signed") {
		t.Errorf("not signed: %v", err)
	}
	if text, err := tool(t, "sign", "-key", private, "-key-id", "k", out); err != nil || !strings.Contains(text, "by k") {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := tool(t, verify...); err != nil || !strings.Contains(text, "signed    by k") {
		t.Errorf("%s, %v", text, err)
	}
	text, err = tool(t, "verify", "-json", "-key", public, "-key-id", "k", out)
	var got struct {
		Revision, Signed string
		Files            []string
	}
	if err != nil || json.Unmarshal([]byte(text), &got) != nil || got.Revision != "r7" || got.Signed != "by k" || !slices.Equal(got.Files, []string{
		"cases/admin.matrix.yaml", "cases/boundaries.yaml", "cases/clearance.matrix.yaml", "cases/orders.matrix.yaml", "cases/orders.yaml",
		"cases/profile.matrix.yaml", "cases/risk.matrix.yaml", "data.json", "gatehouse/admin.rego", "gatehouse/admin_test.rego",
		"gatehouse/authz.rego", "gatehouse/authz_test.rego", "gatehouse/clearance.rego", "gatehouse/clearance_test.rego",
		"gatehouse/holding.rego", "gatehouse/holding_test.rego", "gatehouse/profile.rego", "gatehouse/profile_test.rego",
		"gatehouse/risk.rego", "gatehouse/risk_test.rego", "gatehouse/search.rego", "gatehouse/search_test.rego",
	}) {
		t.Errorf("%s, %v", text, err)
	}
	// What is built of the shipped policies decides as they do: look-ups and all are inside.
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := bundle.Open(b, bundle.Limits{}, nil); err != nil || !strings.Contains(string(o.Files["data.json"]), `"lookups"`) {
		t.Errorf("%v", err)
	}
	open, _ := folder(t, "package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n")
	broken, _ := folder(t, "package gatehouse.authz\n\ndecision := {")
	for want, args := range map[string][]string{
		"needs a command":      {},
		"is no command":        {"publish"},
		"takes one folder":     {"build"},
		"no policies":          {"build", t.TempDir()},
		"probe: ":              {"build", "-o", out, open},
		"parse: ":              {"build", "-o", out, broken},
		"is outside the roots": {"build", "-o", out, "-root", "other", "../policies"},
		"overlap":              {"build", "-o", out, "-root", "a", "-root", "a/b", "../policies"},
		"signed with -key":     {"sign", "-key", private, out},
		"no such file":         {"sign", "-key", "/nowhere", "-key-id", "k", out},
		"verified by -key":     {"verify", out},
		"is not a public key":  {"verify", "-key", private, "-key-id", "k", out},
		"key cannot be read":   {"sign", "-key", public, "-key-id", "k", out},
		"for this key":         {"verify", "-key", public, "-key-id", "k", "-algorithm", "RS256", out},
	} {
		if _, err := tool(t, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", args, err)
		}
	}
	if after, err := os.ReadFile(out); err != nil || !bytes.Equal(after, b) {
		t.Error("a failed command changed the bundle")
	}
	if err := run(t.Context(), []string{"serve", "-bundles", "/nowhere"}, func(string) string { return "" }, io.Discard); err == nil {
		t.Error("it serves without its file of sources")
	}
}

// S56: what nobody has confirmed for too long denies, if its operator says so, until its source is back.
func TestAPolicyThatIsTooOldDenies(t *testing.T) {
	t.Parallel()
	d := newDepot(t)
	dir, _ := folder(t, rules("order"))
	b := pack(t, dir)
	d.publish("/b", b)
	file := filepath.Join(t.TempDir(), "bundles.yaml")
	save(t, file, fmt.Sprintf("sources: {authz: {url: %s/b, poll: 50ms, timeout: 1s, max_staleness: 1100ms, when_stale: deny}}\n", d.URL))
	p := start(t, "-bundles", file)
	await.That(t, "it decides", func() bool { return p.allows(t, "order") })
	d.publish("/b", nil)
	await.That(t, "it denies", func() bool {
		res, err := p.ask(t, "order", "17")
		return err == nil && !res.Decision && slices.Equal(res.Context.Reasons, []string{"policies_stale"})
	})
	if status, body := p.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "too old and deny everything: nothing heard from authz") {
		t.Errorf("%d %s", status, body)
	}
	d.publish("/b", b)
	await.That(t, "it decides again", func() bool { return p.allows(t, "order") && p.ready(t, `"status":"ok"`) })
}
