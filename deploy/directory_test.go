package deploy_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// S7, S71: whoever is given a secret has it declared, and each is a file of deploy/secrets that no image and no repository holds.
func TestSecretsAreFilesOfTheFolderThatSecretsMakes(t *testing.T) {
	t.Parallel()
	c, dir := compose(t), secrets(t)
	for name, s := range c.Services {
		for variable, value := range s.Environment {
			if file, ok := strings.CutPrefix(value, "/run/secrets/"); ok && !bytes.Contains([]byte(strings.Join(s.Secrets, " ")+" "), []byte(file+" ")) {
				t.Errorf("%s: %s names %s, which it is not given", name, variable, file)
			}
		}
		for _, secret := range s.Secrets {
			if c.Secrets[secret].File != "secrets/"+secret {
				t.Errorf("%s is given %s, which is %q", name, secret, c.Secrets[secret].File)
			}
		}
	}
	for name, s := range c.Secrets {
		if info, err := os.Stat(filepath.Join(dir, s.File)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(c.Secrets) < 5 {
		t.Errorf("there are %d secrets", len(c.Secrets))
	}
	if info, err := os.Stat(filepath.Join(dir, "secrets")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: %v, %v", info.Mode(), err)
	}
	made, err := filepath.Glob(filepath.Join(dir, "secrets*", "*"))
	if err != nil || len(made) != len(c.Secrets) {
		t.Errorf("there are also others: %q, %v", made, err)
	}
	if !strings.Contains(read(t, "../.gitignore"), "\n/deploy/secrets/\n") || !strings.Contains(read(t, "Dockerfile.dockerignore"), "\ndeploy/secrets\n") {
		t.Error("the secrets could come into an image or the repository")
	}
}

// secrets runs secrets.sh in a folder of its own, and answers that.
func secrets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"secrets.sh", ".env.example"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(read(t, name)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "sh", filepath.Join(dir, "secrets.sh")).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v: %s", err, out)
	}
	return dir
}

// S71: the built programs are run with the environment that compose.yml gives them and the secrets that secrets.sh makes, in containers'
// stead as processes: the decision point hears of the directory, and does not believe another server or get anything by another token.
func TestTheDecisionPointKnowsTheDirectory(t *testing.T) {
	t.Parallel()
	c, dir, bin := compose(t), secrets(t), t.TempDir()
	for _, program := range []string{"authsvc", "pdp"} {
		if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(bin, program), "../"+program).CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v: %s", program, err, out)
		}
	}
	served := spare(t)
	// environment is a service's, with what this machine has in the place of what its containers have.
	environment := func(service, secrets string, more ...string) []string {
		all := []string{"PATH=" + os.Getenv("PATH")}
		kept := filepath.Join(secrets, "kept") // a volume of each one's own
		for variable, value := range c.Services[service].Environment {
			value = strings.NewReplacer(
				"/run/secrets/", filepath.Join(secrets, "secrets")+"/", "/var/lib/gatehouse-pdp", kept, "authsvc-admin:8084", "localhost:"+served, `:8084`, "localhost:"+served,
				"${GATEHOUSE_ISSUER:-http://127.0.0.1:8000}", "http://127.0.0.1:8000", "${GATEHOUSE_ROOT_KEY:?run sh deploy/secrets.sh}", rootKey(t, dir),
			).Replace(value)
			all = append(all, variable+"="+value)
		}
		return append(all, more...)
	}
	database := "AUTHSVC_DATABASE_URL=sqlite:" + filepath.Join(bin, "x.db")
	redis := "AUTHSVC_REDIS_URL=redis://127.0.0.1:1" // which only those wait for who revoke
	admin := environment("authsvc-admin", dir, database, redis, "AUTHSVC_LISTEN=127.0.0.1:0", "AUTHSVC_ADMIN_LISTEN=127.0.0.1:0")
	migrate := exec.CommandContext(t.Context(), filepath.Join(bin, "authsvc"), "migrate")
	migrate.Env = admin
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("migrate: %v: %s", err, out)
	}
	_, leave := started(t, filepath.Join(bin, "authsvc"), admin, "serving decision points")

	policies, err := filepath.Abs("../policies")
	if err != nil {
		t.Fatal(err)
	}
	point := func(secrets string, more ...string) (log *testenv.Output, status string, stop func()) {
		status = spare(t)
		more = append([]string{"PDP_LISTEN=127.0.0.1:0", "PDP_STATUS=127.0.0.1:" + status, "PDP_POLICIES=" + policies}, more...)
		log, stop = started(t, filepath.Join(bin, "pdp"), environment("pdp", secrets, more...), "deciding")
		return log, status, stop
	}
	log, status, stop := point(dir)
	within(t, log, "the directory is known", func() bool { return strings.Contains(health(status), `"directory":"ok"`) })
	within(t, log, "it is kept", func() bool {
		notes, err := filepath.Glob(filepath.Join(dir, "kept", "directory-*.ndjson.json"))
		return err == nil && len(notes) == 1
	})
	stop()

	stranger := secrets(t)
	log, status, _ = point(stranger) // who has another authority believes nobody
	within(t, log, "another server is not believed", func() bool {
		return strings.Contains(log.String(), "certificate signed by unknown authority") && !strings.Contains(health(status), `"directory":"ok"`)
	})
	ca, err := os.ReadFile(filepath.Join(dir, "secrets", "directory-ca"))
	if err == nil {
		err = os.Remove(filepath.Join(stranger, "secrets", "directory-ca"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(stranger, "secrets", "directory-ca"), ca, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	log, status, _ = point(stranger) // and who has another token is told nothing
	within(t, log, "another token opens nothing", func() bool {
		return strings.Contains(log.String(), "answered 401") && !strings.Contains(health(status), `"directory":"ok"`)
	})

	leave() // and while authsvc is away, who knew the directory goes on by what was kept of it, and nobody else
	log, status, _ = point(dir)
	within(t, log, "what was kept decides", func() bool {
		return strings.Contains(health(status), `"status":"degraded"`) && strings.Contains(log.String(), "connection refused")
	})
	log, status, _ = point(dir, "PDP_DIRECTORY_KEEP=")
	within(t, log, "without it nothing decides", func() bool { return strings.Contains(health(status), `"directory":"Nothing is known of subjects yet.`) })
}

// A volume that is new has the owner of what the image has in its place, and its user must be able to write.
func TestWhatIsKeptIsInAVolumeOfTheUser(t *testing.T) {
	t.Parallel()
	c, all := compose(t), stages(t)
	kept := c.Services["pdp"].Environment["PDP_DIRECTORY_KEEP"]
	if kept == "" || !slices.Contains(c.Services["pdp"].Volumes, "pdp:"+kept) {
		t.Errorf("%q is no volume: %q", kept, c.Services["pdp"].Volumes)
	}
	if _, named := c.Volumes["pdp"]; !named {
		t.Error("the volume is not declared")
	}
	if user := "65532:65532"; !strings.Contains(all["base"].body, "\nUSER "+user+"\n") || !strings.Contains(all["pdp"].body, "--chown="+user+" /out/kept "+kept+"\n") {
		t.Errorf("in the image %s is not the user's", kept)
	}
}

func rootKey(t *testing.T, dir string) string {
	t.Helper()
	for line := range strings.Lines(read(t, filepath.Join(dir, ".env"))) {
		if key, ok := strings.CutPrefix(line, "GATEHOUSE_ROOT_KEY="); ok {
			return strings.TrimSpace(key)
		}
	}
	t.Fatal("there is no root key")
	return ""
}

func spare(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// started runs `serve` until it is stopped or the test ends, and waits for a line of its log.
func started(t *testing.T, program string, environment []string, message string) (log *testenv.Output, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "serve")
	log = &testenv.Output{}
	cmd.Env, cmd.Stderr = environment, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		_ = cmd.Wait() // it was killed
	})
	t.Cleanup(stop)
	within(t, log, message, func() bool { return strings.Contains(log.String(), `"msg":"`+message+`"`) })
	return log, stop
}

func health(port string) string {
	res, err := testhttp.Client.Get("http://127.0.0.1:" + port + "/readyz")
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	var body bytes.Buffer
	_, _ = body.ReadFrom(res.Body) // half of it says nothing
	return body.String()
}

func within(t *testing.T, log *testenv.Output, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("never came true: %s\n%s", what, log)
		}
	}
}
