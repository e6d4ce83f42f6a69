package command_test

import (
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

const staff = `{"directory": {"subjects": {
	"ann": {"roles": ["customer"]}, "bea": {"roles": ["customer"]}, "erin": {"bindings": [{"role": "admin", "until": "2999-01-01T00:00:00Z"}]}, "zed": {"roles": []}, "past": {"bindings": [{"role": "admin", "until": "2026-01-01T00:00:00Z"}]}},
	"roles": {}}}`

func written(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// With a directory people are named, and those of whom the rules say the same stand together.
func TestWhoCanNamesPeople(t *testing.T) {
	t.Parallel()
	dir, file := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,")), written(t, "directory.json", staff)
	code, out, errs := on(t, "", "who-can", "GET", "/orders", "--policies", dir, "--directory", file)
	if code != command.OK || !strings.HasPrefix(out, "ann, bea, erin  GET /orders  always\nof 5 subjects") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, errs = on(t, "", "who-can", "DELETE", "order", "--policies", dir, "--directory", file)
	if code != command.OK || !strings.Contains(out, "ann, bea  DELETE order  when owner {who.id}") || !strings.Contains(out, "erin      DELETE order  unless department sales, owner bob, at 2026-03-03T20:00:00Z") || strings.Contains(out, "zed") || strings.Contains(out, "past") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, errs = on(t, "", "what-can", "ann", "--policies", dir, "--directory", file)
	if code != command.OK || !strings.Contains(out, "ann  DELETE order  when owner {who.id}") || strings.Contains(out, "bea") || !strings.Contains(out, "of 1 subjects") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", "what-can", "zed", "--policies", dir, "--directory", file); code != command.OK || !strings.HasPrefix(out, "nobody, and nothing\n") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, _ = on(t, "", "who-can", "GET", "/orders", "--policies", dir, "--directory", file, "--json")
	if may, _ := document(t, out)["may"].([]any); code != command.OK || len(may) != 1 {
		t.Errorf("%d, %s", code, out)
	}
	for _, args := range [][]string{
		{"what-can", "nobody", "--policies", dir, "--directory", file}, {"who-can", "GET", "order", "--policies", dir, "--directory", "nowhere.json"},
		{"who-can", "GET", "order", "--directory", file, "--pdp", "http://localhost"}, {"what-can", "ann", "--directory", file, "--pdp", "http://localhost"},
		{"who-can", "GET", "order", "--pdp", "http://localhost"}, {"what-can", "ann", "--pdp", "http://localhost"}, {"who-can", "GET", "order:17", "--pdp", "ftp://localhost"},
		{"who-can", "GET", "order:17", "--pdp", "unix:///nowhere.sock"}, {"who-can", "GET", "order:17", "--pdp", "http://localhost", "--token-file", "nowhere"},
	} {
		if code, out, errs := on(t, "", args...); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %s%s", args, code, out, errs)
		}
	}
}

// Where roles come from tokens alone, a subject's id says nothing: the answer is not given as if it were all.
func TestWhatCanOfADecisionPointWithoutADirectory(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{
		Log: quiet, Deadline: 5 * time.Second,
		Policies: fstest.MapFS{"authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if {\n\t\"clerk\" in input.subject.roles\n\tinput.action.name == \"GET\"\n}\n")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pdp := httptest.NewServer(server.New(server.Options{Engine: e, Search: e, SearchCallers: []string{"*"}, DecisionLog: decisionlog.New(quiet), Log: quiet, BatchTime: 20 * time.Second}))
	t.Cleanup(func() {
		pdp.Close()
		e.Close()
	})
	code, out, errs := on(t, "", "what-can", "ann", "order:17", "--pdp", pdp.URL)
	if code != command.OK || !strings.HasPrefix(out, "these 0 actions of somebody without roles") || strings.Contains(out, "no others") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", "what-can", "ann", "order:17", "--roles", "reader,clerk", "--pdp", pdp.URL); code != command.OK || !strings.HasPrefix(out, "GET\nthese 1 actions, and no others") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
}

// A running decision point is asked by AuthZEN's searches, page by page.
func TestWhoCanAsksADecisionPoint(t *testing.T) {
	t.Parallel()
	var subjects []string
	for i := range 250 {
		subjects = append(subjects, fmt.Sprintf(`"u%03d": {"roles": [%q], "bindings": [{"role": "chief", "tenant": "t2"}]}`, i, []string{"clerk", "reader"}[i%2]))
	}
	view, err := directory.ReadData(strings.NewReader(`{"subjects": {`+strings.Join(subjects, ",")+`}}`), directory.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{
		Log: quiet, Deadline: 5 * time.Second, Directory: directory.Fixed(view, directory.Options{ForgetUnknown: true}),
		Policies: fstest.MapFS{"authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if {\n\t\"clerk\" in input.subject.roles\n\tinput.action.name in {\"GET\", \"PUT\"}\n}\n\ndecision := {\"allow\": true} if {\n\t\"chief\" in input.subject.roles\n\tinput.action.name == \"DELETE\"\n}\n")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Repeat("t", 32)
	tokens, err := caller.OpenTokens(written(t, "tokens", "auditor "+token+"\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	pdp := httptest.NewServer(server.New(server.Options{
		Engine: e, Search: e, SearchCallers: []string{"auditor"}, Callers: caller.Check{Tokens: tokens}, DecisionLog: decisionlog.New(quiet), Log: quiet, BatchTime: 20 * time.Second,
	}))
	t.Cleanup(func() {
		pdp.Close()
		e.Close()
	})
	asks := []string{"--pdp", pdp.URL, "--token-file", written(t, "token", token)}
	code, out, errs := on(t, "", append([]string{"who-can", "GET", "order:17"}, append(asks, "--tenant", "t1")...)...)
	if lines := strings.Split(out, "\n"); code != command.OK || len(lines) != 127 || lines[0] != "u000" || lines[124] != "u248" || lines[125] != "these 125 subjects, and no others, by revision "+e.Revision() {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", append([]string{"who-can", "BURN", "order:17"}, asks...)...); code != command.OK || !strings.HasSuffix(out, "there may be others: depends_on_token\n") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", append([]string{"what-can", "u000", "order:17"}, append(asks, "--tenant", "t2")...)...); code != command.OK || !strings.HasPrefix(out, "DELETE\nGET\nPUT\nthese 3 actions, and no others") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, _ = on(t, "", append([]string{"what-can", "u001", "order:17", "--json"}, asks...)...)
	if results, ok := document(t, out)["results"].([]any); code != command.OK || !ok || len(results) != 0 {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, errs = on(t, "", "who-can", "GET", "order:17", "--pdp", pdp.URL); code != command.Failure || out != "" || !strings.Contains(errs, "401 (caller_unknown)") {
		t.Errorf("without a token: %d, %s%s", code, out, errs)
	}
}

// Commands that decide take a directory.
func TestCommandsTakeADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"authz.rego":          "# METADATA\n# title: Clerks\npackage gatehouse.authz\n\n# METADATA\n# title: None\ndefault decision := {\"allow\": false}\n\n# METADATA\n# title: Clerks may\ndecision := {\"allow\": true} if \"clerk\" in data.directory.subjects[input.subject.id].roles\n",
		"cases/c.yaml":        "ann may:\n  who: {id: ann}\n  asks: GET /orders/17\n  decision: allow\n",
		"directory/data.json": `{"subjects": {"ann": {"roles": ["clerk"]}}}`,
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	others := written(t, "d.json", `{"subjects": {"bob": {"roles": ["clerk"]}}}`)
	question := `{"subject":{"type":"user","id":"bob"},"action":{"name":"GET"},"resource":{"type":"order","id":"17"}}`
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"test", dir}, command.OK, "PASS: 0 Rego tests, 1 cases"},
		{[]string{"test", dir, "--directory", others}, command.Findings, "ann may: decided deny, want allow"},
		{[]string{"explain", "-", "--policies", dir}, command.OK, "denied: GET order 17 by bob\n"},
		{[]string{"explain", "-", "--policies", dir, "--directory", others}, command.OK, "allowed: GET order 17 by bob (clerk)\n"},
		{[]string{"price", dir, "--time", "1ms", "--directory", others}, command.OK, "1 different requests"},
		{[]string{"bench", dir, "--time", "1ms", "--directory", others}, command.OK, dir},
		{[]string{"diff", dir, dir, "--directory", others}, command.OK, "0 gained, 0 lost"},
		{[]string{"lint", dir}, command.OK, "nothing found"},
	} {
		code, out, errs := on(t, question, c.args...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%q: %d, %s%s", c.args, code, out, errs)
		}
		if len(c.args) > 2 && c.args[len(c.args)-1] == others {
			c.args[len(c.args)-1] = "nowhere.json"
			if code, out, errs := on(t, question, c.args...); code != command.Failure || out != "" || !strings.Contains(errs, "nowhere.json") {
				t.Errorf("%q: %d, %s%s", c.args, code, out, errs)
			}
		}
	}
}
