package app_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	canary  = "canary-5e12"
	rootKey = "5f0c2a9be1d34477a8903b6cfe12d85e9a41c7703be5f2168d04b95ae3c7f61a"
)

// good is an environment in which everything is right.
func good() map[string]string {
	return map[string]string{
		"AUTHSVC_DATABASE_URL": "postgres://u:p@db.test/authsvc", "AUTHSVC_REDIS_URL": "redis://:p@redis.test:6379/0", "AUTHSVC_ROOT_KEY": rootKey,
		"AUTHSVC_ISSUER": "https://api.example.org", "AUTHSVC_SMTP_URL": "smtps://u:p@mail.test:465", "AUTHSVC_MAIL_FROM": "Gatehouse <noreply@example.org>",
	}
}

// load reads an environment that is good but for what is changed, and checks it.
func load(change map[string]string) (app.Config, error) {
	env := good()
	for name, value := range change {
		env[name] = value
	}
	c, err := app.Load(func(name string) string { return env[name] })
	if err != nil {
		return c, err
	}
	return c, c.Validate()
}

func TestWhatIsNotSaidHasADefault(t *testing.T) {
	t.Parallel()
	c, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	want := app.Config{
		Roles: []app.Role{app.Auth, app.Profile, app.Worker}, Listen: ":8081", DatabaseURL: "postgres://u:p@db.test/authsvc",
		RedisURL: "redis://:p@redis.test:6379/0", RootKey: rootKey, Issuer: "https://api.example.org", Audience: "gatehouse-api",
		AccessTTL: 5 * time.Minute, SMTPURL: "smtps://u:p@mail.test:465", MailFrom: "Gatehouse <noreply@example.org>",
		AdminListen: "127.0.0.1:8083",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestGoodValuesAreTaken(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]string{
		"AUTHSVC_ROLES":        {"auth", "worker , auth", " profile", "auth,profile,worker", "auth,profile,admin,worker", "admin"},
		"AUTHSVC_LISTEN":       {":0", "127.0.0.1:8081", "[::1]:8081", "localhost:80"},
		"AUTHSVC_DATABASE_URL": {"sqlite:x.db", "sqlite:/var/lib/x.db", "postgresql://db.test/x", "postgres:///x?host=/run/postgresql"},
		"AUTHSVC_REDIS_URL":    {"rediss://redis.test", "unix:///run/redis.sock", "redis+sentinel://a:26379,b/0?master=m", "redis+cluster://a,b"},
		"AUTHSVC_ROOT_KEY":     {strings.ToUpper(rootKey)},
		"AUTHSVC_ISSUER":       {"http://127.0.0.1:8000", "https://api.example.org/", "https://api.example.org/auth", "https://[::1]:8443"},
		"AUTHSVC_AUDIENCE":     {"orders", "https://orders.example.org/"},
		"AUTHSVC_ACCESS_TTL":   {"1m", "60s", "1h", "15m30s"},
		"AUTHSVC_SMTP_URL":     {"smtp://mail.test", "smtp://127.0.0.1:1025?tls=off", "smtp://u:p@mail.test:587", "smtp://mail.test:25?tls=opportunistic"},
		"AUTHSVC_MAIL_FROM":    {"noreply@example.org", "<noreply@example.org>"},
		"AUTHSVC_HASH_AT_ONCE": {"0", "1", "64"},
	} {
		for _, value := range values {
			if _, err := load(map[string]string{name: value}); err != nil {
				t.Errorf("%s=%s: %v", name, value, err)
			}
		}
	}
}

// S7, S67: a value that cannot be meant is refused before anything starts, by the variable's name and with a reason, and
// neither it nor another is shown: an operator sends such an error to others.
func TestEachBadValueIsRefusedByName(t *testing.T) {
	t.Parallel()
	const c = canary
	for name, values := range map[string][]string{
		"AUTHSVC_ROLES":        {"king", "auth,", ",", "auth,auth", "AUTH", "auth;profile", "auth profile", c},
		"AUTHSVC_LISTEN":       {"8081", c, "127.0.0.1", "a:b:c", "::1:8081", ":no-such-port-" + c, ":65536", ":-1"},
		"AUTHSVC_DATABASE_URL": {c, "mysql://u:" + c + "@db.test/x", "POSTGRES://u:" + c + "@db.test/x", "db.test/" + c, "user=u password=" + c, "file:" + c},
		"AUTHSVC_REDIS_URL":    {c, "http://u:" + c + "@redis.test", "redis://u:" + c + "@redis.test:port", "redis+sentinel://u:" + c + "@a", "redis://redis.test/" + c, "redis://u:" + c + "@a?patience=x"},
		"AUTHSVC_ROOT_KEY": {
			c, "secret", rootKey[:62], rootKey + "00", rootKey[:63] + "g", rootKey[:32] + " " + rootKey[32:], strings.Repeat("0", 64), strings.Repeat("f", 64), strings.Repeat("ab", 32),
			strings.Repeat("deadbeef", 8), strings.Repeat("0123456789abcdef", 4), "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
			"1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100", strings.Repeat("0001050d0005010d05000d01", 3)[:64],
		},
		"AUTHSVC_ISSUER": {
			c, "/" + c, "api.example.org", "//api.example.org/" + c, "ftp://" + c, "https:" + c, "https://", "https:///" + c, "https://:8443", "https://api.example.org?" + c, "https://api.example.org?",
			"https://api.example.org/#" + c, "https://api.example.org#", "https://u:" + c + "@api.example.org", "https://api.example.org:port", "https://api.example.org/a b", "HTTPS://api.example.org",
			" https://api.example.org", "https://api.example.org\n", "https://api.example.org/%zz" + c,
		},
		"AUTHSVC_ACCESS_TTL":   {c, "5", "-5m", "0", "0s", "59s", "61m", "1h1ns", "24h", "1e9s", "5 m", "9999999h"},
		"AUTHSVC_SMTP_URL":     {c, "mail.test:25", "http://u:" + c + "@mail.test", "smtp://u:" + c + "@mail.test?tls=off", "smtp://mail.test:" + c, "smtp://mail.test?tls=" + c, "smtp://", "smtps://u:" + c + "@mail.test/" + c, "smtp://u:" + c + "%zz@mail.test", "smtp://mail.test:0"},
		"AUTHSVC_MAIL_FROM":    {c, "Gatehouse", "@example.org", "a@b, " + c + "@d", "Gatehouse <" + c, "a@b\r\nBcc: " + c + "@d"},
		"AUTHSVC_HASH_AT_ONCE": {c, "-1", "1.5", "one", "99999999999999999999", "0x10", " 1"},
	} {
		for _, value := range values {
			_, err := load(map[string]string{name: value})
			if err == nil {
				t.Errorf("%s=%q is taken", name, value)
				continue
			}
			wantNamed(t, err, value, name)
		}
	}
}

// wantNamed fails unless err names these variables, in any order, each in a line of its own with a reason, and no value.
func wantNamed(t *testing.T, err error, what string, names ...string) {
	t.Helper()
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(names) {
		t.Errorf("%q: %d lines: %v", what, len(lines), err)
	}
	for _, name := range names {
		found := false
		for _, line := range lines {
			if reason, ok := strings.CutPrefix(line, name+": "); ok && len(reason) >= len("is empty") {
				found = true
			}
		}
		if !found {
			t.Errorf("%q: %s is not named: %v", what, name, err)
		}
	}
	for _, secret := range []string{canary, rootKey[:16], "u:p@", ":p@"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the error tells %q: %v", what, secret, err)
		}
	}
}

// What is wrong is said all at once.
func TestEveryBadValueIsSaidAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(map[string]string{
		"AUTHSVC_DATABASE_URL": "", "AUTHSVC_REDIS_URL": "", "AUTHSVC_ROOT_KEY": "", "AUTHSVC_ISSUER": "", "AUTHSVC_ROLES": "king,worker", "AUTHSVC_ACCESS_TTL": "1s",
		"AUTHSVC_MAIL_FROM": canary, "AUTHSVC_LISTEN": canary, "AUTHSVC_SMTP_URL": canary,
	})
	if err == nil {
		t.Fatal("it is taken")
	}
	wantNamed(t, err, "all", "AUTHSVC_DATABASE_URL", "AUTHSVC_REDIS_URL", "AUTHSVC_ROOT_KEY", "AUTHSVC_ISSUER", "AUTHSVC_ROLES", "AUTHSVC_ACCESS_TTL", "AUTHSVC_MAIL_FROM", "AUTHSVC_LISTEN", "AUTHSVC_SMTP_URL")
	_, err = load(map[string]string{"AUTHSVC_ACCESS_TTL": canary, "AUTHSVC_HASH_AT_ONCE": canary})
	if err == nil {
		t.Fatal("it is taken")
	}
	wantNamed(t, err, "unreadable", "AUTHSVC_ACCESS_TTL", "AUTHSVC_HASH_AT_ONCE")
	var none app.Config
	if err := none.Validate(); err == nil || !strings.Contains(err.Error(), "AUTHSVC_AUDIENCE: is empty") || !strings.Contains(err.Error(), "AUTHSVC_ROLES: ") {
		t.Errorf("nothing at all: %v", err)
	}
}

// Only the worker sends mail.
func TestWithoutTheWorkerNoMailServerIsNeeded(t *testing.T) {
	t.Parallel()
	if _, err := load(map[string]string{"AUTHSVC_ROLES": "auth,profile", "AUTHSVC_SMTP_URL": "", "AUTHSVC_MAIL_FROM": ""}); err != nil {
		t.Error(err)
	}
	c, err := load(map[string]string{"AUTHSVC_SMTP_URL": "", "AUTHSVC_MAIL_FROM": ""})
	if err != nil {
		t.Fatal(err)
	}
	if c.Has(app.Role("king")) || !c.Has(app.Worker) {
		t.Error("it has roles that it was not given")
	}
}

// S67: a secret may come from a file, and is told no more than one of the environment; nor is the file's name, in whose
// place the secret itself may stand by mistake.
func TestASecretMayComeFromAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, []byte(rootKey+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := load(map[string]string{"AUTHSVC_ROOT_KEY": "", "AUTHSVC_ROOT_KEY_FILE": file})
	if err != nil || c.RootKey.Reveal() != rootKey {
		t.Errorf("from the file: %v", err)
	}
	for _, name := range []string{"AUTHSVC_DATABASE_URL", "AUTHSVC_REDIS_URL", "AUTHSVC_ROOT_KEY", "AUTHSVC_SMTP_URL"} {
		for what, path := range map[string]string{
			"no such file": filepath.Join(dir, canary), "a folder": dir, "the secret itself": rootKey, "a URL": "postgres://u:" + canary + "@db.test/x",
			"a name that is too long": strings.Repeat(canary, 1000), "a NUL": canary + "\x00",
		} {
			_, err := load(map[string]string{name: "", name + "_FILE": path})
			if err == nil {
				t.Errorf("%s: %s is taken", name, what)
				continue
			}
			wantNamed(t, err, what, name+"_FILE")
		}
		_, err := load(map[string]string{name + "_FILE": file})
		if err == nil {
			t.Errorf("%s is taken twice", name)
			continue
		}
		wantNamed(t, err, "twice", name)
	}
}

// S67: however a configuration is printed, its secrets are not.
func TestAConfigurationPrintsNoSecret(t *testing.T) {
	t.Parallel()
	c, err := load(nil)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	telemetry.Logger(&log, slog.LevelInfo).Info("configuration", "c", c)
	encoded, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for how, printed := range map[string]string{
		"%v": fmt.Sprint(c), "%+v": fmt.Sprintf("%+v", c), "%#v": fmt.Sprintf("%#v", c), "log": log.String(), "JSON": string(encoded),
	} {
		for _, secret := range []string{rootKey, "u:p@", ":p@"} {
			if strings.Contains(printed, secret) {
				t.Errorf("%s: %s", how, printed)
			}
		}
	}
}

// FuzzConfig: whatever stands in the environment, an error names variables and shows nothing of what is secret.
func FuzzConfig(f *testing.F) {
	f.Add("postgres://u:s3cr3t@h/d", "redis://u:s3cr3t@h", "s3cr3t", "https://u:s3cr3t@h", "smtp://u:s3cr3t@h?tls=x")
	f.Add("sqlite:x", "redis+sentinel://u:s3cr3t@h,h/0?master=m&sentinel_password=s3cr3t&x=y", rootKey, "https://h/%s3cr3t", "smtps://s3cr3t%zz@h")
	f.Fuzz(func(t *testing.T, database, redis, root, issuer, smtp string) {
		_, err := load(map[string]string{
			"AUTHSVC_DATABASE_URL": database, "AUTHSVC_REDIS_URL": redis, "AUTHSVC_ROOT_KEY": root, "AUTHSVC_ISSUER": issuer, "AUTHSVC_SMTP_URL": smtp,
		})
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if !strings.HasPrefix(line, "AUTHSVC_") {
				t.Errorf("a line without a name: %v", err)
			}
		}
		if strings.Contains(err.Error(), "s3cr3t") {
			t.Errorf("it tells a secret: %v", err)
		}
	})
}
