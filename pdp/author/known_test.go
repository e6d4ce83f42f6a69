package author_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

// approvals reads the directory in the ways of docs/directory.md.
const approvals = `# METADATA
# title: Approvals
package gatehouse.authz

# METADATA
# title: What no rule covers
default decision := {"allow": false, "reasons": ["no_rule"]}

# METADATA
# title: Who holds a role that may, in the directory
decision := {"allow": true} if {
	some role in data.directory.subjects[input.subject.id].roles
	some permission in data.directory.roles[role].permissions
	permission.action == input.action.name
}
`

func approvalsOf(more string) fstest.MapFS {
	return fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte(approvals + more)},
		"gatehouse/authz_test.rego": {Data: []byte(`package gatehouse.authz_test

import data.gatehouse.authz

test_ann if authz.decision.allow with input as {"subject": {"id": "ann"}, "action": {"name": "GET"}}
`)},
		"directory/data.json": {Data: []byte(`{"subjects": {"ann": {"roles": ["clerk"]}, "temp": {"bindings": [{"role": "clerk", "until": "2026-03-03T12:00:00Z"}]}}, "roles": {"clerk": {"permissions": [{"action": "GET", "resource": "order"}]}}}`)},
		"cases/c.yaml": {Data: []byte(`ann may:
  who: {id: ann}
  asks: GET /orders/17
  decision: allow
bob may not:
  who: {id: bob, roles: [clerk]}
  asks: GET /orders/17
  decision: deny
temp may until noon:
  who: {id: temp}
  asks: GET /orders/17
  decision: allow
temp may not after noon:
  who: {id: temp}
  asks: GET /orders/17
  at: 2026-03-03T12:00:00Z
  decision: deny
`)},
	}
}

func policyOf(t *testing.T, files fstest.MapFS) *author.Policy {
	t.Helper()
	p, err := author.Read(files, "p")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func failures(t *testing.T, p *author.Policy) string {
	t.Helper()
	r, err := p.Test(t.Context(), nil, false)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range r.Failed() {
		names = append(names, f.Name)
	}
	return strings.Join(names, ", ")
}

// A policy that reads the directory is tested by what its own data says there, or by a file that is named.
func TestPoliciesThatReadADirectoryAreTestedByOne(t *testing.T) {
	t.Parallel()
	p := policyOf(t, approvalsOf(""))
	if got := failures(t, p); got != "" {
		t.Errorf("by its own data: %s", got)
	}
	file := filepath.Join(t.TempDir(), "directory.json")
	if err := os.WriteFile(file, []byte(`{"subjects": {"bob": {"roles": ["clerk"]}}, "roles": {"clerk": {"permissions": [{"action": "GET", "resource": "order"}]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := author.ReadDirectory(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Know(v); err != nil {
		t.Fatal(err)
	}
	if got, want := failures(t, p), "data.gatehouse.authz_test.test_ann, ann may, bob may not, temp may until noon"; got != want {
		t.Errorf("by a file: %s, want %s", got, want)
	}
	if _, err := author.ReadDirectory(filepath.Join(t.TempDir(), "none.json")); err == nil || !strings.Contains(err.Error(), "none.json") {
		t.Errorf("no file: %v", err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"d.json":   {"{\"subjects\": {\n  \"ann\": {},\n  \"bob\": {\"roles\": \"clerk\"}}}", "d.json:3: roles is not of the right type"},
		"d.ndjson": {"{\"id\":\"x\"}\n", `d.ndjson:1: json: unknown field "id"`},
	} {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := author.ReadDirectory(file); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	// Whom a request is about has what the directory says of him, and the explanation goes by it.
	q, err := p.ParseQuestion("q.json", []byte(`{"subject":{"type":"user","id":"bob","properties":{"roles":["chief"]}},"action":{"name":"GET"},"resource":{"type":"order","id":"17"}}`), time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := p.Explain(t.Context(), q); err != nil || !e.Allow || !strings.Contains(e.Asked, "bob (clerk)") {
		t.Errorf("%+v, %v", e, err)
	}
}

// Mutants of the directory's own data are noticed as those of other data are.
func TestMistakesInADirectorysDataAreNoticed(t *testing.T) {
	t.Parallel()
	m, err := policyOf(t, approvalsOf("")).Mutate(t.Context(), author.DefaultDeadline)
	if err != nil || m.Noticed == 0 || m.Invalid > m.Noticed {
		t.Errorf("%+v, %v", m, err)
	}
}

// What a decision point with a directory refuses is refused here, with the place and what to write.
func TestAWalkThroughTheDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	const walk = "\n# METADATA\n# title: Whoever has a colleague\ndecision := {\"allow\": true} if {\n\tsome id, subject in data.directory.subjects\n\tid != input.subject.id\n\t\"clerk\" in subject.roles\n}\n"
	files := approvalsOf(walk)
	want := "p/gatehouse/authz.rego:20: data.directory.subjects is read whole, or gone through: the directory may have any number of subjects. Read it by a key that is known, as data.directory.subjects[input.subject.id]"
	if _, err := policyOf(t, files).Test(t.Context(), regexp.MustCompile("x"), false); err == nil || err.Error() != want {
		t.Errorf("test: %v", err)
	}
	found, err := author.LintFS(files, "p")
	if err != nil || len(found) != 1 || found[0].File+":20: "+found[0].Message != want || found[0].Line != 20 {
		t.Errorf("lint: %+v, %v", found, err)
	}
	if found, err = author.LintFS(approvalsOf(""), "p"); err != nil || len(found) != 0 {
		t.Errorf("lint: %+v, %v", found, err)
	}
	files["directory/data.json"] = &fstest.MapFile{Data: []byte(`{"subjects": {"ann": {"rolls": ["clerk"]}}, "roles": {}}`)}
	if _, err := policyOf(t, files).Test(t.Context(), nil, false); err == nil || !strings.Contains(err.Error(), "data.directory is not written as a directory is") {
		t.Errorf("a misspelt member: %v", err)
	}
}
