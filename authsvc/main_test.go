package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

const rootKey = "5f0c2a9be1d34477a8903b6cfe12d85e9a41c7703be5f2168d04b95ae3c7f61a"

func environment(more map[string]string) func(string) string {
	return func(name string) string {
		if v, ok := more[name]; ok {
			return v
		}
		return map[string]string{
			"AUTHSVC_ROOT_KEY": rootKey, "AUTHSVC_ISSUER": "http://issuer.test",
			"AUTHSVC_SMTP_URL": "smtp://127.0.0.1:1?tls=off", "AUTHSVC_MAIL_FROM": "Gatehouse <noreply@example.org>",
		}[name]
	}
}

// The operator's first hour: migrate, make an admin, serve, log in. On both databases.
func TestTheFirstAdminLogsIn(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(*testing.T) string{
		"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t) },
		"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "x.db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := testenv.Spare(t)
			env := environment(map[string]string{
				"AUTHSVC_DATABASE_URL": dsn(t), "AUTHSVC_REDIS_URL": testenv.Redis(t), "AUTHSVC_LISTEN": address,
			})
			command := func(stdin string, args ...string) (string, error) {
				var out bytes.Buffer
				err := run(t.Context(), args, env, strings.NewReader(stdin), &out, io.Discard)
				return out.String(), err
			}
			for range 2 { // a second time changes nothing
				if _, err := command("", "migrate"); err != nil {
					t.Fatal(err)
				}
			}
			printed, err := command("", "user", "create", "--email", "admin@example.com", "--role", "admin", "--attribute", "department=it")
			if err != nil {
				t.Fatal(err)
			}
			password := regexp.MustCompile(`(?m)^password: (\S{26})$`).FindStringSubmatch(printed)
			if password == nil {
				t.Fatalf("printed %q", printed)
			}
			if printed, err := command("correct horse battery\n", "user", "create", "--email", "ann@example.com", "--password-stdin"); err != nil || strings.Contains(printed, "horse") {
				t.Errorf("printed %q, error %v", printed, err)
			}
			if _, err := command("", "user", "create", "--email", "Admin@example.com"); err == nil || !strings.Contains(err.Error(), "email_taken") {
				t.Errorf("a second account of one address: %v", err)
			}
			if _, err := command("short\n", "user", "create", "--email", "bob@example.com", "--password-stdin"); err == nil || !strings.Contains(err.Error(), "password_too_short") {
				t.Errorf("a short password: %v", err)
			}

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- run(ctx, []string{"serve", "-log-level", "error"}, env, nil, io.Discard, io.Discard) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			for email, secret := range map[string]string{"admin@example.com": password[1], "ann@example.com": "correct horse battery"} {
				if status := logIn(t, address, email, secret); status != http.StatusOK {
					t.Errorf("%s: %d", email, status)
				}
			}
			if status := logIn(t, address, "admin@example.com", "certainly not that one"); status != http.StatusUnauthorized {
				t.Errorf("a wrong password: %d", status)
			}
		})
	}
}

// logIn waits until somebody listens.
func logIn(t *testing.T, address, email, password string) int {
	t.Helper()
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		res, err := testhttp.Client.Post("http://"+address+"/auth/login", "application/json", bytes.NewReader(body))
		if err == nil {
			res.Body.Close()
			return res.StatusCode
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(err)
		}
	}
}

// S7, S69: a bad configuration is refused whole, by name, and no value of it is shown.
func TestABadConfigurationIsRefusedByName(t *testing.T) {
	t.Parallel()
	const canary = "canary-77aa"
	err := run(t.Context(), []string{"serve"}, environment(map[string]string{
		"AUTHSVC_ROOT_KEY": canary, "AUTHSVC_ISSUER": "ftp://" + canary, "AUTHSVC_ROLES": "auth,king", "AUTHSVC_ACCESS_TTL": "24h",
		"AUTHSVC_MAIL_FROM": canary, "AUTHSVC_AUDIENCE": "",
	}), nil, io.Discard, io.Discard)
	if err == nil {
		t.Fatal("it serves")
	}
	for _, want := range []string{"AUTHSVC_ROOT_KEY: ", "AUTHSVC_ISSUER: ", "AUTHSVC_ROLES: ", "AUTHSVC_ACCESS_TTL: ", "AUTHSVC_DATABASE_URL: ", "AUTHSVC_REDIS_URL: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("a value is shown: %v", err)
	}
	if err := run(t.Context(), nil, none, nil, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "usage: ") {
		t.Errorf("without a command: %v", err)
	}
}

// S67: nor is one that shows only when it is used.
func TestWhatShowsWhenItIsUsedIsNamedToo(t *testing.T) {
	t.Parallel()
	const canary = "canary-77aa"
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	database := "sqlite:" + filepath.Join(t.TempDir(), "x.db")
	for name, c := range map[string]struct {
		command []string
		change  map[string]string
	}{
		"AUTHSVC_DATABASE_URL":   {[]string{"serve"}, map[string]string{"AUTHSVC_DATABASE_URL": "postgres://u:" + canary + "@127.0.0.1:port/x"}},
		"AUTHSVC_DATABASE_URL ":  {[]string{"migrate"}, map[string]string{"AUTHSVC_DATABASE_URL": "postgres://u:" + canary + "@%zz/x"}},
		"AUTHSVC_DATABASE_URL  ": {[]string{"user", "create", "--email", "a@x.test"}, map[string]string{"AUTHSVC_DATABASE_URL": "sqlite://u:" + canary + "@h/x"}},
		"AUTHSVC_SMTP_URL":       {[]string{"serve"}, map[string]string{"AUTHSVC_SMTP_URL": ""}},
		"AUTHSVC_LISTEN":         {[]string{"serve"}, map[string]string{"AUTHSVC_LISTEN": taken.Addr().String()}},
	} {
		env := map[string]string{"AUTHSVC_DATABASE_URL": database, "AUTHSVC_REDIS_URL": "redis://127.0.0.1:1"}
		for variable, value := range c.change {
			env[variable] = value
		}
		err := run(t.Context(), c.command, environment(env), nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(name)+": ") || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func none(string) string { return "" }
