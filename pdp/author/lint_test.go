package author_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/policies"
)

func TestNothingIsFoundInTheShippedPolicies(t *testing.T) {
	t.Parallel()
	found, err := author.LintFS(policies.FS, "policies")
	if err != nil || len(found) != 0 {
		t.Errorf("found %+v, %v", found, err)
	}
	if all, err := author.Format("../../policies"); err != nil || len(all) != 0 {
		t.Errorf("unformatted %+v, %v", all, err)
	}
}

// S62 asks for default-deny and nondeterministic.
func TestWhatShouldNotBeInAPolicyIsFound(t *testing.T) {
	t.Parallel()
	const head = "package gatehouse.authz\n\n# METADATA\n# title: x\n# scope: document\ndefault decision := {\"allow\": false}\n\n"
	rule := func(body string) string { return head + "decision := {\"allow\": true} if {\n\t" + body + "\n}\n" }
	said := func(rules ...string) string {
		return head + "# METADATA\n# title: x\ndecision := {\"allow\": false, \"reasons\": sort(denies)} if count(denies) > 0\n\n# METADATA\n# title: x\n" + strings.Join(rules, "\n\n# METADATA\n# title: x\n")
	}
	big := `{"big": {"a": 1` + strings.Repeat(`, "%d": 1`, 200) + `}}`
	numbers := make([]any, 200)
	for i := range numbers {
		numbers[i] = i
	}
	big = fmt.Sprintf(big, numbers...)
	for name, c := range map[string]struct{ text, want string }{
		"syntax":                  {"package gatehouse.authz\n\nx if {", "p/gatehouse/authz.rego:3: parse"},
		"unused variable":         {rule("y := input.context.x"), "p/gatehouse/authz.rego:9: strict"},
		"unknown function":        {rule("nothing(1)"), "p/gatehouse/authz.rego:9: strict"},
		"no default":              {"package gatehouse.authz\n\n# METADATA\n# title: x\ndecision := {\"allow\": true} if input.context.x", "p/gatehouse/authz.rego:5: default-deny"},
		"no decision":             {"package gatehouse.authz\n\n# METADATA\n# title: x\ny := 1", "p:0: default-deny"},
		"allowed by default":      {strings.Replace(head, "false", "true", 1), "p/gatehouse/authz.rego:6: default-deny"},
		"a default of words":      {strings.Replace(head, `{"allow": false}`, `"no"`, 1), "p/gatehouse/authz.rego:6: default-deny"},
		"no metadata":             {rule("input.context.x") + "\ny := 1\n", "p/gatehouse/authz.rego:12: metadata"},
		"metadata without title":  {rule("input.context.x") + "\n# METADATA\n# custom: {id: y}\ny := 1\n", "p/gatehouse/authz.rego:14: metadata"},
		"the clock":               {rule("time.now_ns() > 0"), "p/gatehouse/authz.rego:9: nondeterministic"},
		"the network":             {rule(`http.send({"url": "http://x", "method": "get"}).status_code == 200`), "p/gatehouse/authz.rego:9: nondeterministic"},
		"chance":                  {rule(`rand.intn("x", 2) == 1`), "p/gatehouse/authz.rego:9: nondeterministic"},
		"iteration":               {rule("some b in data.elsewhere.bindings\n\tb == input.context.x"), "p/gatehouse/authz.rego:9: scan"},
		"iteration within":        {rule("count({u | data.elsewhere[u] == 1}) > 1"), "p/gatehouse/authz.rego:9: scan"},
		"membership in much":      {rule("input.context.x in data.big"), "p/gatehouse/authz.rego:9: scan"},
		"every of much":           {rule("every k, _ in data.big { k != input.context.x }"), "p/gatehouse/authz.rego:9: scan"},
		"a key of what is read":   {rule("data.elsewhere[input.subject.id].ok"), ""},
		"one value of elsewhere":  {rule("data.elsewhere.limit > input.context.x"), ""},
		"iteration over little":   {rule("some b in data.small\n\tb == input.context.x"), ""},
		"iteration over a rule":   {head + "# METADATA\n# title: x\ndecision := {\"allow\": true} if {\n\tsome x in mine\n\tinput.context.x == x\n}\n\n# METADATA\n# title: x\nmine contains input.context.y\n", ""},
		"unknown input":           {rule("input.subject.departement"), "p/gatehouse/authz.rego:9: schema"},
		"nearly known input":      {rule("input.subject.attributes.departement"), "p/gatehouse/authz.rego:9: schema"},
		"unknown data":            {rule("data.nowhere.x == 1"), "p/gatehouse/authz.rego:9: schema"},
		"a reason of two rules":   {said(`denies contains "a" if input.context.x`, `denies contains reason if { some reason in ["a", "b"]; input.context.y }`), "p/gatehouse/authz.rego:18: rules"},
		"two rules of one name":   {said(`denies contains "a" if input.context.x`, `denies contains "a" if input.context.y`), "p/gatehouse/authz.rego:14: rules"},
		"each reason of one rule": {said(`denies contains "a" if input.context.x`, `denies contains "b" if input.context.y`), ""},
		"iteration over the user": {rule("some r in input.subject.roles\n\tdata.elsewhere[r]"), ""},
	} {
		files := fstest.MapFS{
			"gatehouse/authz.rego": {Data: []byte(c.text)},
			"data.json":            {Data: []byte(big)},
			"more.yaml":            {Data: []byte("small: [1, 2]")},
			"schema.json":          {Data: []byte(`{"x-gatehouse-data": ["elsewhere"]}`)},
		}
		found, err := author.LintFS(files, "p")
		got := ""
		if len(found) > 0 {
			got = fmt.Sprintf("%s:%d: %s", found[0].File, found[0].Line, found[0].Rule)
		}
		if err != nil || got != c.want || len(found) > 1 {
			t.Errorf("%s: found %+v, %v", name, found, err)
		}
	}
}

func TestMistakesInCasesAreFindings(t *testing.T) {
	t.Parallel()
	found, err := author.LintFS(folder("cases/x.yaml", "x: {decision: perhaps, asks: GET /}", "gatehouse/y.yaml", "a: ["), "p")
	if err != nil || len(found) != 2 || found[0].File != "p/cases/x.yaml" || found[1].File != "p/gatehouse/y.yaml" {
		t.Errorf("found %+v, %v", found, err)
	}
}

func TestFormatWritesWhatItFinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	name := filepath.Join(dir, "x.rego")
	if err := os.WriteFile(name, []byte("package x\n\na := 1\nb   := 2\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	all, err := author.Format(dir)
	if err != nil || len(all) != 1 || all[0].File != name || all[0].Line != 4 {
		t.Fatalf("unformatted %+v, %v", all, err)
	}
	if err := all[0].Write(); err != nil {
		t.Fatal(err)
	}
	if all, err = author.Format(dir); err != nil || len(all) != 0 {
		t.Errorf("unformatted %+v, %v", all, err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(name, []byte("package x\n\na if {"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := author.Format(dir); err == nil || !strings.HasPrefix(err.Error(), name+":3: ") {
		t.Errorf("syntax error: %v", err)
	}
}
