package author_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const rules = `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

# METADATA
# title: Owners may
# custom:
#   id: owners
decision := {"allow": true, "reasons": ["owner"]} if {
	input.resource.properties.owner == input.subject.id
	input.subject.attributes.level >= data.gatehouse.least
}
`

const cases = `the owner may:
  who: {id: alice, attributes: {level: 3}}
  asks: GET /orders/17
  known: {owner: alice}
  decision: allow
  reasons: [owner]

another may not:
  who: {id: bob, attributes: {level: 3}}
  asks: GET /orders/17
  known: {owner: alice}
  decision: deny
`

func folder(more ...string) fstest.MapFS {
	files := fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte(rules)},
		"gatehouse/least.yaml": {Data: []byte("least: 3\n")},
		"cases/orders.yaml":    {Data: []byte(cases)},
	}
	for i := 0; i < len(more); i += 2 {
		files[more[i]] = &fstest.MapFile{Data: []byte(more[i+1])}
	}
	return files
}

func read(t *testing.T, files fstest.MapFS) *author.Policy {
	t.Helper()
	p, err := author.Read(files, "p")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t *testing.T, p *author.Policy) author.Report {
	t.Helper()
	r, err := p.Test(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCasesAndRegoTestsRunTogether(t *testing.T) {
	t.Parallel()
	r := run(t, read(t, folder("gatehouse/authz_test.rego", "package gatehouse.authz_test\n\nimport data.gatehouse.authz\n\n"+
		"test_denied if not authz.decision.allow with input as {}\n\ntest_wrong if authz.decision.allow with input as {}\n")))
	failed := r.Failed()
	if len(r.Results) != 4 || len(failed) != 1 {
		t.Fatalf("results %+v", r.Results)
	}
	if f := failed[0]; f.File != "p/gatehouse/authz_test.rego" || f.Line != 7 || !strings.HasSuffix(f.Name, ".test_wrong") {
		t.Errorf("failed %+v", f)
	}
}

func TestACaseThatIsNotMetSaysWhatWasDecided(t *testing.T) {
	t.Parallel()
	r := run(t, read(t, folder("cases/more.yaml", "\nnobody may:\n  who: {id: alice, attributes: {level: 3}}\n  asks: GET /orders/17\n"+
		"  known: {owner: alice}\n  decision: deny\n  reasons: [never]\n")))
	failed := r.Failed()
	if len(failed) != 1 || failed[0].File != "p/cases/more.yaml" || failed[0].Line != 2 || failed[0].Why != "decided allow owner, want deny never" {
		t.Errorf("failed %+v", failed)
	}
}

func TestOneTestCanBeRun(t *testing.T) {
	t.Parallel()
	r, err := read(t, folder()).Test(t.Context(), regexp.MustCompile("another"), false)
	if err != nil || len(r.Results) != 1 || r.Results[0].Name != "another may not" {
		t.Errorf("ran %+v, %v", r.Results, err)
	}
}

func TestLinesThatNoTestEvaluatesAreMissing(t *testing.T) {
	t.Parallel()
	p := read(t, folder("gatehouse/more.rego", "package gatehouse.more\n\nx if {\n\tinput.a\n\tinput.b\n}\n"))
	c := run(t, p).Coverage
	if c.Percent >= 100 || len(c.Rules) != 3 {
		t.Fatalf("coverage %+v", c)
	}
	owners, unused := c.Rules[1], c.Rules[2]
	if owners.ID != "owners" || owners.Covered != 3 || len(owners.Missing) != 0 {
		t.Errorf("covered %+v", owners)
	}
	if unused.ID != "gatehouse.more.x" || unused.File != "p/gatehouse/more.rego" || !slices.Equal(unused.Missing, []int{3, 4, 5}) {
		t.Errorf("missing %+v", unused)
	}
}

func mutate(t *testing.T, p *author.Policy) author.Mutation {
	t.Helper()
	m, err := p.Mutate(t.Context(), author.DefaultDeadline)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMistakesThatNoTestNoticesAreListed(t *testing.T) {
	t.Parallel()
	m := mutate(t, read(t, folder()))
	var got []string
	for _, s := range m.Survived {
		if s.File != "p/gatehouse/authz.rego" && s.File != "p/gatehouse/least.yaml" {
			t.Errorf("survived in %s", s.File)
		}
		got = append(got, s.Rule+": "+s.Kind+": "+s.Before)
	}
	// No case has a level that is too low, and none looks at the reasons of a denial.
	want := []string{
		`gatehouse.authz.decision#default: constant changed: "no_rule"`,
		`owners: condition dropped: input.subject.attributes.level >= data.gatehouse.least`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("survived %q", got)
	}
	if m.Score <= 50 || m.Score >= 100 || m.Noticed < 10 {
		t.Errorf("score %+v", m)
	}
}

func TestOneMoreCaseNoticesThem(t *testing.T) {
	t.Parallel()
	m := mutate(t, read(t, folder("cases/low.yaml", "too low:\n  who: {id: alice, attributes: {level: 2}}\n  asks: GET /orders/17\n"+
		"  known: {owner: alice}\n  decision: deny\n  reasons: [no_rule]\n")))
	if m.Score != 100 || len(m.Survived) != 0 {
		t.Errorf("score %+v", m)
	}
}

// A mistake that makes the tests run on and on is one that its author would notice.
func TestAMutantThatTakesTooLongIsNoticed(t *testing.T) {
	t.Parallel()
	p := read(t, folder("gatehouse/authz_test.rego", "package gatehouse.authz_test\n\nimport data.gatehouse.authz\n\n"+
		"test_slow if {\n\tnot authz.decision.allow with input as {}\n\tcount([1 | some a in numbers.range(1, 3000); some b in numbers.range(1, 3000); a + b < 0]) == 0\n}\n"))
	m, err := p.Mutate(t.Context(), 1)
	if err != nil || m.TimedOut == 0 || m.Noticed != m.TimedOut {
		t.Errorf("got %+v, %v", m, err)
	}
}

const table = `who reads:
  who:
    alice: {id: alice, roles: [customer], attributes: {level: 3}}
    nobody: {id: nobody}
  when:
    own: {known: {owner: "{who.id}"}}
    another's: {known: {owner: carol}}
  decisions:
    GET /orders/17:
      alice:  [allow owner, deny no_rule]
      nobody: [deny, "-"]
`

func TestAMatrixIsACasePerCell(t *testing.T) {
	t.Parallel()
	p := read(t, folder("cases/reads.matrix.yaml", table))
	r := run(t, p)
	if len(r.Failed()) != 0 || len(r.Results) != 5 {
		t.Fatalf("results %+v", r.Results)
	}
	cell := r.Results[3]
	if cell.Kind != author.KindMatrix || cell.Name != "who reads, alice, GET /orders/17, another's" || cell.Line != 10 {
		t.Errorf("cell %+v", cell)
	}
}

// Rows and cells that are alike may be written once.
func TestAMatrixMayUseAliases(t *testing.T) {
	t.Parallel()
	text := strings.Replace(table, `nobody: [deny, "-"]`, `nobody: [&no deny no_rule, *no]`, 1) + "    GET /orders/18: &same\n      alice: [allow, deny]\n      nobody: &denied [deny, deny]\n" +
		"    GET /orders/19:\n      alice: [allow, deny]\n      nobody: *denied\n    GET /orders/20: *same\n"
	all, err := author.ParseCases("m.matrix.yaml", []byte(text))
	if err != nil || len(all) != 16 {
		t.Errorf("%d cells, %v", len(all), err)
	}
}

func TestMistakesInCasesHaveTheirPlace(t *testing.T) {
	t.Parallel()
	swap := func(old, new string) string { return strings.Replace(table, old, new, 1) }
	for name, c := range map[string]struct{ file, text, want string }{
		"no YAML":            {"c.yaml", "a:\n  - [", "c.yaml:2: did not find expected node content"},
		"unknown field":      {"c.yaml", "a:\n  asks: GET /x\n  decission: deny\n", "c.yaml:3: field decission not found"},
		"no decision":        {"c.yaml", "\na:\n  asks: GET /x\n", `c.yaml:2: a: decision: "" is neither allow nor deny`},
		"no path":            {"c.yaml", "a:\n  asks: GET\n  decision: deny\n", `c.yaml:1: a: asks: "GET" is not METHOD /path`},
		"unknown person":     {"m.matrix.yaml", swap("      alice:", "      bob:"), "m.matrix.yaml:10: who reads: bob is not among who"},
		"a row is missing":   {"m.matrix.yaml", swap("      nobody: [deny, \"-\"]\n", ""), "m.matrix.yaml:9: who reads: GET /orders/17 says nothing of nobody"},
		"a cell is missing":  {"m.matrix.yaml", swap(`, "-"`, ""), "m.matrix.yaml:11: who reads: 1 decisions for the 2 conditions of when"},
		"a cell is misspelt": {"m.matrix.yaml", swap("[deny,", "[dny,"), `m.matrix.yaml:11: who reads: decision: "dny" is neither allow nor deny`},
		"no table":           {"m.matrix.yaml", "x: {}\n", "m.matrix.yaml:1: x: a matrix needs who, when and decisions"},
	} {
		_, err := author.ParseCases(c.file, []byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMistakesInPoliciesHaveTheirPlace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ file, text, want string }{
		"syntax":   {"gatehouse/x.rego", "package x\n\na if {", "p/gatehouse/x.rego:3: "},
		"data":     {"gatehouse/x.yaml", "a: 1\nb: [", "p/gatehouse/x.yaml:2: "},
		"cases":    {"cases/x.yaml", "a: {decision: deny, asks: GET /}\na: {}", "p/cases/x.yaml:2: "},
		"a title":  {"cases/x.yaml", "another may not: {decision: deny, asks: GET /}", `p/cases/x.yaml:1: a second case "another may not"`},
		"no cases": {"cases/more/x.yml", "a: {decision: deny, asks: GET /}", "p/cases/more/x.yml: is no file of cases"},
		"metadata": {"gatehouse/x.rego", "package x\n\n# METADATA\n# titel: x\n# scope: nowhere\na := 1\n", "p/gatehouse/x.rego:"},
	} {
		_, err := author.Read(folder(c.file, c.text), "p")
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := read(t, folder("gatehouse/x.rego", "package x\n\na := b"))
	if _, err := p.Test(t.Context(), nil, false); err == nil || !strings.HasPrefix(err.Error(), "p/gatehouse/x.rego:3: ") {
		t.Errorf("unsafe variable: %v", err)
	}
}
