package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// shell is the operator's.
type shell struct {
	env func(string) string
	t   *testing.T
}

func (s shell) run(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("%v: %v", args, err)
	}
	return out
}

func (s shell) try(args ...string) (string, error) {
	var out bytes.Buffer
	err := run(s.t.Context(), args, s.env, strings.NewReader("correct horse battery staple\n"), &out, io.Discard)
	return out.String(), err
}

// From an empty database to an admin who grants a role of which a decision point hears, and who is none any more. On both databases.
func TestAnAdminIsMadeAtTheCommandLineAndWorksOverHTTP(t *testing.T) {
	t.Parallel()
	for name, dsn := range map[string]func(*testing.T) string{
		"PostgreSQL": func(t *testing.T) string { return testenv.Postgres(t) },
		"SQLite":     func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "x.db") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const token = "0123456789abcdef0123456789abcdef"
			tokens := filepath.Join(t.TempDir(), "tokens")
			if err := os.WriteFile(tokens, []byte("pdp "+token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			public, admin := testenv.Spare(t), testenv.Spare(t)
			dir, err := os.MkdirTemp("", "gatehouse") //nolint:usetesting // a path of a socket has 107 bytes at most
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "feed.sock")
			overSocket := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}}}
			s := shell{environment(map[string]string{
				"AUTHSVC_DATABASE_URL": dsn(t), "AUTHSVC_REDIS_URL": testenv.Redis(t), "AUTHSVC_LISTEN": public, "AUTHSVC_ROLES": "auth,admin,worker",
				"AUTHSVC_ADMIN_LISTEN": admin, "AUTHSVC_DIRECTORY_LISTEN": "unix://" + socket, "AUTHSVC_DIRECTORY_TOKENS_FILE": tokens,
			}), t}
			s.run("migrate")
			s.run("user", "create", "--email", "boss@example.com", "--password-stdin")
			s.run("role", "grant", "--email", "Boss@example.com", "--role", "admin", "--for", "8h", "--reason", "set up")
			if out, err := s.try("role", "grant", "--email", "boss@example.com", "--role", "admin"); err == nil || !strings.Contains(err.Error(), "binding_exists") {
				t.Errorf("again: %q, %v", out, err)
			}
			s.run("role", "set", "--role", "reader", "--permission", "orders.read=order", "--permission", "orders.list=order=own,open")
			s.run("role", "set", "--role", "editor", "--inherits", "reader", "--description", "edits")
			want := regexp.MustCompile(`^ROLE +PROTECTED +INHERITS +PERMISSIONS\nadmin +yes +0\neditor +reader +0\nreader +2\n$`)
			if out := s.run("role", "list"); !want.MatchString(out) {
				t.Errorf("the roles are\n%s", out)
			}
			if out := s.run("role", "list", "--email", "boss@example.com"); !regexp.MustCompile(`\nadmin +admin +20\S+Z *\ncustomer +customer +yes\n$`).MatchString(out) {
				t.Errorf("the roles of the boss are\n%s", out)
			}

			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- run(ctx, []string{"serve", "-log-level", "error"}, s.env, nil, io.Discard, io.Discard) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}()
			if status := logIn(t, public, "boss@example.com", "correct horse battery staple"); status != http.StatusOK {
				t.Fatalf("logged in with %d", status)
			}
			var grant struct {
				AccessToken string `json:"access_token"`
			}
			body := `{"email":"boss@example.com","password":"correct horse battery staple"}`
			if err := json.Unmarshal([]byte(asked(t, http.MethodPost, "http://"+public+"/auth/login", "", body)), &grant); err != nil {
				t.Fatal(err)
			}
			answer := asked(t, http.MethodPost, "http://"+admin+"/admin/v1/bindings", grant.AccessToken, `{"subject":"ada","role":"editor"}`)
			if !strings.Contains(answer, `"granted_by"`) {
				t.Errorf("granted: %s", answer)
			}
			if answer := askedBy(t, overSocket, http.MethodGet, "http://authsvc/directory/v1/snapshot", token, ""); !strings.Contains(answer, `{"subject":{"id":"ada","bindings":[{"role":"editor"}]}}`) {
				t.Errorf("a decision point is told %s", answer)
			}
			s.run("role", "revoke", "--email", "boss@example.com", "--role", "admin", "--reason", "done")
			if answer := asked(t, http.MethodGet, "http://"+admin+"/admin/v1/roles", grant.AccessToken, ""); !strings.Contains(answer, "admin_required") {
				t.Errorf("afterwards: %s", answer)
			}
			s.run("directory", "new-epoch")
		})
	}
}

func asked(t *testing.T, method, url, token, body string) string {
	t.Helper()
	return askedBy(t, testhttp.Client, method, url, token, body)
}

func askedBy(t *testing.T, client *http.Client, method, url, token, body string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestACommandOfRolesSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	s := shell{environment(map[string]string{"AUTHSVC_DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "x.db")}), t}
	s.run("migrate")
	for _, c := range []struct {
		args string
		want string
	}{
		{"role", "usage: "},
		{"role crown", "usage: "},
		{"directory", "usage: "},
		{"role grant", "--role is needed"},
		{"role grant --role x", "--subject or --email"},
		{"role grant --role x --subject a --email b@x.test", "not both"},
		{"role grant --role x --email nobody@x.test", "user_not_found"},
		{"role grant --role x --subject a", "role_not_found"},
		{"role grant --role x --subject a --for -1h", "until: has passed"},
		{"role revoke --role x --subject a", "binding_not_found"},
		{"role revoke --subject a", "--role is needed"},
		{"role set --role X", "name: a lower-case letter"},
		{"role set --role x --permission y", "ACTION=RESOURCE"},
		{"role set --role x --inherits x", "role_cycle"},
		{"role list more", "takes flags only"},
	} {
		if out, err := s.try(strings.Fields(c.args)...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q, %v", c.args, out, err)
		}
	}
	if out := s.run("role", "list", "--subject", "a"); !strings.HasPrefix(out, "ROLE") || strings.Count(out, "\n") != 1 {
		t.Errorf("nothing is shown as %q", out)
	}
}

// S71: what tells who may do what is not served in the clear to others, nor to whoever asks.
func TestTheDirectoryIsNotServedInTheClear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	if err := os.WriteFile(tokens, []byte("pdp 0123456789abcdef0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct{ listen, tokens, want string }{
		"beyond this machine":  {"0.0.0.0:0", tokens, "AUTHSVC_DIRECTORY_LISTEN: can be reached from elsewhere"},
		"tokens not there":     {"127.0.0.1:0", filepath.Join(dir, "none"), "AUTHSVC_DIRECTORY_TOKENS_FILE: "},
		"no tokens":            {"127.0.0.1:0", "", "AUTHSVC_DIRECTORY_TOKENS_FILE: is needed"},
		"admins' address gone": {"", tokens, "AUTHSVC_ADMIN_LISTEN: "},
	} {
		admin := "127.0.0.1:0"
		if c.listen == "" {
			admin = "192.0.2.1:1"
		}
		err := run(t.Context(), []string{"serve", "-log-level", "error", "-listen", "127.0.0.1:0"}, environment(map[string]string{
			"AUTHSVC_DATABASE_URL": "sqlite:" + filepath.Join(t.TempDir(), "x.db"), "AUTHSVC_REDIS_URL": testenv.Redis(t), "AUTHSVC_ROLES": "auth,admin",
			"AUTHSVC_ADMIN_LISTEN": admin, "AUTHSVC_DIRECTORY_LISTEN": c.listen, "AUTHSVC_DIRECTORY_TOKENS_FILE": c.tokens,
		}), nil, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
