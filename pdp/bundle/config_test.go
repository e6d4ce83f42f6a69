package bundle_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
)

// config writes a file; KEY in it is the tests' public key.
func config(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	key, file := filepath.Join(dir, "key.pem"), filepath.Join(dir, "bundles.yaml")
	if err := os.WriteFile(key, []byte(pairOf(t, ours()).public), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "KEY", key)), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestTheConfigurationIsReadWhole(t *testing.T) {
	t.Parallel()
	c, err := bundle.ReadConfig(config(t, `
keys:
  release: {algorithm: ES256, file: KEY}
folder: {roots: [local]}
keep: {dir: /var/lib/gatehouse-pdp, max_age: 2h}
sources:
  authz:
    url: https://bundles.example.test/authz.tar.gz
    token_file: /run/secrets/token
    scope: prod
    roots: [gatehouse]
    long_poll: 1m
    max_staleness: 10m
    when_stale: deny
    limits: {compressed: 1000, uncompressed: 2000, file: 300, files: 4}
  near:
    url: http://localhost:8888/b.tar.gz
    unsigned: true
    poll: 5s
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Sources) != 2 || len(c.Folder) != 1 {
		t.Fatalf("%+v", c)
	}
	a, n := c.Sources[0], c.Sources[1]
	if a.Name != "authz" || a.Verifier == nil || a.LongPoll != time.Minute || a.MaxStaleness != 10*time.Minute || !a.DenyWhenStale || a.MaxAge != 2*time.Hour || a.Limits.Files != 4 || a.Roots[0] != "gatehouse" {
		t.Errorf("%+v", a)
	}
	if n.Verifier != nil || n.Poll != 5*time.Second || n.DenyWhenStale || n.Dir != "/var/lib/gatehouse-pdp" {
		t.Errorf("%+v", n)
	}
}

// S62: beyond this machine, bundles are signed unless somebody says in so many words that they are not.
func TestBundlesAreSignedBeyondThisMachine(t *testing.T) {
	t.Parallel()
	for text, ok := range map[string]bool{
		"{url: 'http://localhost/b'}": true, "{url: 'http://127.0.0.2/b'}": true, "{url: 'http://[::1]/b'}": true,
		"{url: 'https://example.test/b', unsigned: true}": true,
		"{url: 'https://example.test/b'}":                 false, "{url: 'http://127.0.0.1.example.test/b'}": false, "{url: 'https://localhost.example.test/b'}": false,
		"{url: 'http://10.0.0.1/b'}": false, "{url: 'http://localhost/b', scope: prod}": false, "{url: 'https://example.test/b', keys: []}": false,
	} {
		_, err := bundle.ReadConfig(config(t, "sources: {a: "+text+"}"))
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "needs keys") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAWrongConfigurationSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const good = "keys: {k: {algorithm: ES256, file: KEY}}\n"
	for want, text := range map[string]string{
		"there is none":             good,
		"field sorces not found":    "sorces: {}",
		"field urll not found":      "sources: {a: {urll: x}}",
		"more than one document":    "sources: {}\n---\nsources: {}",
		"sources.a: url must be":    good + "sources: {a: {url: 'ftp://x'}}",
		"sources.B: its name":       good + "sources: {B: {url: 'https://x'}}",
		`there is no key "other"`:   good + "sources: {a: {url: 'https://x', keys: [other]}}",
		"keys.k: open":              "keys: {k: {algorithm: ES256, file: /nowhere}}\nsources: {a: {url: 'https://x'}}",
		`"RS256" is not one`:        "keys: {k: {algorithm: RS256, file: KEY}}\nsources: {a: {url: 'https://x'}}",
		`"HS256" is not one`:        "keys: {k: {algorithm: HS256, file: KEY}}\nsources: {a: {url: 'https://x'}}",
		"unsigned goes with":        good + "sources: {a: {url: 'https://x', unsigned: true, keys: [k]}}",
		"when_stale must be":        good + "sources: {a: {url: 'https://x', max_staleness: 5m, when_stale: open}}",
		"when_stale needs":          good + "sources: {a: {url: 'https://x', when_stale: deny}}",
		"max_staleness must be":     good + "sources: {a: {url: 'https://x', max_staleness: 1m}}",
		"cannot unmarshal":          good + "sources: {a: {url: 'https://x', poll: soon}}",
		`roots "a" and "a/b"`:       good + "folder: {roots: [a, a/b]}\nsources: {a: {url: 'https://x'}}",
		"max_age needs dir":         good + "keep: {max_age: 1h}\nsources: {a: {url: 'https://x'}}",
		"candidates.b: there is no": good + "sources: {a: {url: 'https://x'}}\ncandidates: {b: {url: 'https://x'}}",
		"candidates.a: url must be": good + "sources: {a: {url: 'https://x'}}\ncandidates: {a: {poll: 1s}}",
		"field keys not found":      good + "sources: {a: {url: 'https://x'}}\ncandidates: {a: {url: 'https://x', keys: [k]}}",
		"candidates.a: needs keys":  "sources: {a: {url: 'http://localhost/a'}}\ncandidates: {a: {url: 'https://x'}}",
		"sources.b: url must be ht": good + "sources: {a: {url: 'ftp://x'}, b: {}}",
	} {
		if _, err := bundle.ReadConfig(config(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := bundle.ReadConfig("/nowhere"); err == nil {
		t.Error("no file is taken")
	}
}
