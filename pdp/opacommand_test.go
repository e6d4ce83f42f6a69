package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
)

// opa runs the real program in a folder.
func opa(t *testing.T, program, dir, stdin string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("opa %v: %v: %s%s", args, err, out, stderr.String())
	}
	return string(out)
}

// archived is a folder as a .tar.gz.
func archived(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// granted is an input that the policies of this repository allow.
const granted = `{"subject":{"type":"user","id":"alice","roles":["customer"]},"action":{"name":"GET"},"resource":{"type":"order","id":"17","properties":{"owner":"alice"}},"context":{"ip":"192.0.2.7"}}`

// opaServer is an `opa run --server`, behind a Unix socket so that no port has to be guessed.
type opaServer struct {
	said   *testenv.Output
	client *http.Client
}

// runOPA starts one by a configuration, and ends it with the test.
func runOPA(t *testing.T, program, config string) opaServer {
	t.Helper()
	// A socket's path may have 107 bytes at most, which a test's own folder can exceed.
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "opa.yaml")
	save(t, file, config)
	s := opaServer{said: &testenv.Output{}}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program, "run", "--server", "--addr", "unix://"+socket, "--disable-telemetry", "-c", file)
	cmd.Stdout, cmd.Stderr = s.said, s.said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	s.client = &http.Client{Transport: transport, Timeout: patience}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	})
	await.That(t, "OPA listens", func() bool { status, _ := s.get(t, "/health"); return status == http.StatusOK })
	return s
}

// get answers 0 where nobody does.
func (s opaServer) get(t *testing.T, path string) (int, string) {
	t.Helper()
	res, err := s.client.Get("http://opa" + path)
	if err != nil {
		return 0, ""
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// The program opa itself, of the version in go.mod: the same policies decide the same there and here, what it builds and signs is
// taken here, what is built and signed here is verified and decided by there, and both ship the same record.
func TestTheProgramOPAAndThisOneTakeEachOthersWork(t *testing.T) {
	t.Parallel()
	program := testenv.OPA(t)
	private, public := keys(t)
	stranger, unknown := keys(t)

	t.Run("opa eval decides as this program does, by the same text", func(t *testing.T) {
		t.Parallel()
		p := start(t, "-services", "orders=http://127.0.0.1:1", "-data-paths", "gatehouse/authz")
		for _, input := range []string{
			granted,
			`{"subject":{"type":"user","id":"mallory","roles":["customer"]},"action":{"name":"GET"},"resource":{"type":"order","id":"17","properties":{"owner":"alice"}},"context":{"ip":"192.0.2.7"}}`,
			`{"subject":{"type":"user","id":"alice","roles":["customer"]},"action":{"name":"PURGE"},"resource":{"type":"order","id":"17"}}`,
			`{"subject":{"type":"anonymous","id":"anonymous","roles":[]},"action":{"name":"GET"},"resource":{"type":"nowhere","id":"1"}}`,
			`{}`,
		} {
			var theirs, ours any
			if err := json.Unmarshal([]byte(opa(t, program, "../policies", input, "eval", "--strict-builtin-errors", "-d", ".", "-I", "-f", "raw", "data.gatehouse.authz.decision")), &theirs); err != nil {
				t.Fatal(err)
			}
			var answer struct{ Result any }
			if a := p.question(t, "/v1/data/gatehouse/authz/decision", `{"input":`+input+`}`, ""); json.Unmarshal(a.body, &answer) != nil || a.status != http.StatusOK {
				t.Fatalf("%d %s", a.status, a.body)
			}
			if ours = answer.Result; ours == nil || cmp.Diff(theirs, ours) != "" {
				t.Errorf("%s: OPA says %v, this program %v", input, theirs, ours)
			}
		}
	})

	t.Run("what opa build and opa sign make decides, by its key alone", func(t *testing.T) {
		t.Parallel()
		dir, _ := folder(t, rules("nothing")+"\ndecision := {\"allow\": true} if input.resource.type == data.kinds.allowed\n")
		save(t, filepath.Join(dir, "kinds", "data.json"), `{"allowed": "order"}`)
		built := filepath.Join(t.TempDir(), "b.tar.gz")
		opa(t, program, dir, "", "build", "-b", dir, "-o", built, "-r", "v1", "--signing-key", private, "--signing-alg", "ES256", "--verification-key-id", "release")
		claims := filepath.Join(t.TempDir(), "claims.json")
		save(t, claims, `{"keyid": "release", "scope": "prod"}`)
		opa(t, program, dir, "", "sign", "-b", ".", "--signing-key", private, "--signing-alg", "ES256", "--claims-file", claims)
		d := newDepot(t)
		d.publish("/built", read(t, built))
		d.publish("/signed", archived(t, dir))
		for _, c := range []struct{ path, scope, key, refused string }{
			{"/built", "", public, ""},
			{"/signed", "prod", public, ""},
			{"/built", "", unknown, "signature: by key release"},
			{"/signed", "prod", unknown, "signature: by key release"},
			{"/signed", "test", public, "scope mismatch"},
		} {
			file := filepath.Join(t.TempDir(), "bundles.yaml")
			save(t, file, fmt.Sprintf("keys: {release: {algorithm: ES256, file: %s}}\nsources: {opa: {url: %s%s, scope: %q, poll: 20ms}}\n", c.key, d.URL, c.path, c.scope))
			p := start(t, "-bundles", file)
			if c.refused != "" {
				await.That(t, c.path+" is refused", func() bool { return p.ready(t, "Source opa: ", c.refused) })
				if _, err := p.ask(t, "order", "17"); err == nil {
					t.Errorf("%s decides by another key or scope", c.path)
				}
				continue
			}
			await.That(t, c.path+" decides", func() bool { return p.allows(t, "order") })
			if p.allows(t, "invoice") {
				t.Errorf("%s allows what its rules do not", c.path)
			}
		}
	})

	t.Run("a record is OPA's own event", func(t *testing.T) {
		t.Parallel()
		recordsAreOPAs(t, program)
	})

	t.Run("opa run verifies what is built and signed here, and decides by it", func(t *testing.T) {
		t.Parallel()
		d := newDepot(t)
		d.publish("/ours", pack(t, "../policies", "-key", private, "-key-id", "release", "-scope", "prod", "-revision", "r7"))
		theirs := filepath.Join(t.TempDir(), "b.tar.gz")
		dir, _ := folder(t, rules("order"))
		opa(t, program, dir, "", "build", "-b", dir, "-o", theirs)
		if text, err := tool(t, "sign", "-key", private, "-key-id", "release", "-scope", "prod", theirs); err != nil {
			t.Fatalf("%s, %v", text, err)
		}
		d.publish("/theirs", read(t, theirs))
		d.publish("/forged", pack(t, "../policies", "-key", stranger, "-key-id", "release", "-scope", "prod"))
		d.publish("/unsigned", pack(t, "../policies"))
		d.publish("/elsewhere", pack(t, "../policies", "-key", private, "-key-id", "release", "-scope", "test"))
		for path, refused := range map[string]string{
			"/ours": "", "/theirs": "", "/forged": "failed to verify", "/unsigned": "bundle missing .signatures.json file", "/elsewhere": "scope mismatch",
		} {
			t.Run(strings.Trim(path, "/"), func(t *testing.T) {
				t.Parallel()
				consumer := runOPA(t, program, fmt.Sprintf(`
services: {depot: {url: %s}}
bundles: {authz: {service: depot, resource: %s, signing: {keyid: release, scope: prod}, polling: {min_delay_seconds: 1, max_delay_seconds: 1}}}
keys: {release: {algorithm: ES256, key: %q}}
`, d.URL, path, read(t, public)))
				if refused != "" {
					await.That(t, "OPA refuses it", func() bool { return strings.Contains(consumer.said.String(), refused) })
					if status, _ := consumer.get(t, "/health?bundles"); status == http.StatusOK {
						t.Error("OPA decides by it")
					}
					return
				}
				await.That(t, "OPA has loaded it", func() bool { status, _ := consumer.get(t, "/health?bundles"); return status == http.StatusOK })
				status, body := consumer.get(t, "/v1/data/gatehouse/authz/decision?provenance&input="+url.QueryEscape(granted))
				if status != http.StatusOK || !strings.Contains(body, `"allow":true`) || path == "/ours" && !strings.Contains(body, `"revision":"r7"`) {
					t.Errorf("OPA answers %d %s", status, body)
				}
			})
		}
	})
}
