package command_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const policies = "../../../policies"

// on runs a command line.
func on(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code, known := command.Run(t.Context(), args, command.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs})
	if !known {
		t.Fatalf("%q is not known", args)
	}
	return code, out.String(), errs.String()
}

// document reads what --json wrote.
func document(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// broken is the policies with something in authz.rego, or another file, replaced.
func broken(t *testing.T, file, old, new string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(policies)); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, file)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		t.Fatalf("%q is not in %s", old, file)
	}
	if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// lean takes the matrices away, so that there are fewer requests to decide.
func lean(t *testing.T, dir string) string {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(dir, "cases", "*.matrix.yaml"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("%v, %v", tables, err)
	}
	for _, table := range tables {
		if err := os.Remove(table); err != nil {
			t.Fatal(err)
		}
	}
	edit(t, filepath.Join(dir, "gatehouse", "roles.yaml"), func(s string) string {
		orders, _, _ := strings.Cut(s, "\n  # With the modules")
		return orders
	})
	return dir
}

// small is a policy of one rule, tested by one case.
func small(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"authz.rego": "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if {\n" +
			"\tinput.subject.id == \"alice\"\n\tinput.action.name == \"GET\"\n}\n",
		"cases/c.yaml": "alice may:\n  who: {id: alice}\n  asks: GET /orders/17\n  decision: allow\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestUnknownCommandsAreLeftToOthers(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"serve"}, {"-h"}} {
		if _, known := command.Run(t.Context(), args, command.Streams{}); known {
			t.Errorf("%q is known", args)
		}
	}
}

func TestMisuseIsAFailure(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"test", "a", "b"}, {"test", "-nonsense"}, {"test", "nowhere"}, {"test", "command.go"}, {"test", t.TempDir()},
		{"test", policies, "--run", "("}, {"test", policies, "--run", "x", "--mutate"},
	} {
		code, out, errs := on(t, "", args...)
		if code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %q, %q", args, code, out, errs)
		}
	}
	if code, out, errs := on(t, "", "test", "-h"); code != command.OK || !strings.Contains(out, "-min-coverage") || errs != "" {
		t.Errorf("help: %d, %s%s", code, out, errs)
	}
	if _, _, errs := on(t, "", "bench", "-nonsense"); errs != "flag provided but not defined: -nonsense\nusage: gatehouse-pdp bench [flags] [DIR]… (-h lists the flags)\n" {
		t.Errorf("a wrong flag: %s", errs)
	}
}

func TestTestPasses(t *testing.T) {
	t.Parallel()
	code, out, errs := on(t, "", "test", policies, "--coverage", "-v")
	if code != command.OK || errs != "" || !strings.Contains(out, "PASS: ") || !strings.Contains(out, "coverage 100.0 %") ||
		!strings.Contains(out, "a customer lists orders: pass") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
}

func TestTestFindsWhatABrokenPolicyDecides(t *testing.T) {
	t.Parallel()
	dir := broken(t, "gatehouse/roles.yaml", "clerk: [department]", "clerk: []")
	code, out, _ := on(t, "", "test", "--mutate", dir)
	want := "cases/orders.yaml:60: support does not read the orders of another department: decided allow granted_to_clerk, want deny not_in_department not_owner\n"
	if code != command.Findings || !strings.Contains(out, filepath.Join(dir, want)) || !strings.Contains(out, "FAIL: ") ||
		!strings.Contains(out, "no mutations") {
		t.Errorf("%d, %s", code, out)
	}
	code, out, _ = on(t, "", "test", dir, "--json")
	if failed := strings.Count(out, `"outcome": "fail"`); code != command.Findings || failed < 3 || document(t, out)["results"] == nil {
		t.Errorf("%d, %s", code, out)
	}
}

func TestTestFailsBelowItsThresholds(t *testing.T) {
	t.Parallel()
	dir := broken(t, "gatehouse/authz.rego", `misses contains "other_tenant" if`, "never if input.never\n\nmisses contains \"other_tenant\" if")
	code, out, _ := on(t, "", "test", dir, "--min-coverage", "100")
	if code != command.Findings || !strings.Contains(out, "gatehouse.authz.never: no test evaluates line") || !strings.Contains(out, "less than 100 %") {
		t.Errorf("%d, %s", code, out)
	}
	code, out, _ = on(t, "", "test", small(t), "--min-mutation", "100", "--json")
	m, _ := document(t, out)["mutation"].(map[string]any)
	if code != command.Findings || len(m["survived"].([]any)) == 0 {
		t.Errorf("%d, %s", code, out)
	}
}

func TestExplainSaysWhy(t *testing.T) {
	t.Parallel()
	cases := filepath.Join(policies, "cases", "orders.yaml")
	code, out, errs := on(t, "", "explain", "--policies", policies, cases, "--case", "support does not read the orders of another")
	for _, want := range []string{
		"denied: GET order 17 by sam (support)  [not_in_department, not_owner]",
		`holding["department"]`, "failed on input.resource.properties.department == input.subject.attributes.department",
		`subject.attributes.department were "sales", as resource.properties.department is, not "support"  [granted_to_clerk]`,
	} {
		if code != command.OK || !strings.Contains(out, want) {
			t.Errorf("%q is not in %d, %s%s", want, code, out, errs)
		}
	}
	request := `{"subject": {"type": "user", "id": "alice", "properties": {"roles": ["customer"]}}, "action": {"name": "GET"},
		"resource": {"type": "order", "id": "/orders"}}`
	code, out, errs = on(t, request, "explain", "--policies", policies, "-", "--json")
	if code != command.OK || !strings.Contains(out, `"allow": true`) {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	log := `{"decision_id": "1", "msg": "denied"}` + "\n" + `{"decision_id": "2", "input": ` + strings.Join(strings.Fields(request), " ") + "}\n"
	if code, out, errs = on(t, log, "explain", "--policies", policies, "-", "--id", "2"); code != command.OK || !strings.Contains(out, "allowed: GET order /orders by alice") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	for _, id := range []string{"1", "3"} { // one that holds no request, and one that is not there
		if code, out, errs = on(t, log, "explain", "--policies", policies, "-", "--id", id); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%d, %s%s", code, out, errs)
		}
	}
	for _, args := range [][]string{{"explain"}, {"explain", cases, "--id", "2"}, {"explain", "-"}, {"explain", cases, "--case", "nothing like it"}, {"explain", "-", "--case", "x"}, {"explain", "no.json"}} {
		if code, out, errs := on(t, "{", args...); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
}

func TestDiffFailsOnWideningIfAsked(t *testing.T) {
	t.Parallel()
	policies := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,"))
	wider := lean(t, broken(t, "gatehouse/roles.yaml", "clerk: [department]", "clerk: []"))
	code, out, errs := on(t, "", "diff", policies, wider)
	if code != command.OK || !strings.Contains(out, "gains  clerk") || !strings.Contains(out, "deny not_in_department not_owner  →  allow granted_to_clerk") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, _, _ = on(t, "", "diff", policies, wider, "--fail-on-widening"); code != command.Findings {
		t.Errorf("wider: %d", code)
	}
	if code, out, _ = on(t, "", "diff", wider, policies, "--fail-on-widening", "--markdown"); code != command.OK || !strings.Contains(out, "| 🔻 loses | clerk | GET order |") {
		t.Errorf("narrower: %d, %s", code, out)
	}
	if code, out, _ = on(t, "", "diff", policies, wider, "--json"); code != command.OK || len(document(t, out)["changes"].([]any)) == 0 {
		t.Errorf("JSON: %d, %s", code, out)
	}
	if code, out, _ = on(t, "", "diff", policies, policies, "--markdown"); code != command.OK || !strings.HasPrefix(out, "Nobody gains or loses access") {
		t.Errorf("the same: %d, %s", code, out)
	}
	for _, args := range [][]string{{"diff", policies}, {"diff", policies, "nowhere"}, {"diff", "nowhere", policies}, {"diff", policies, policies, "--log", "none"}} {
		if code, _, errs := on(t, "", args...); code != command.Failure || errs == "" {
			t.Errorf("%q: %d", args, code)
		}
	}
}

func TestDiffReplaysALog(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "decisions.jsonl")
	line := `{"decision_id": "1", "input": {"subject": {"type": "user", "id": "x", "properties": {"roles": ["clerk"]}}, "action": {"name": "GET"},` +
		` "resource": {"type": "order", "id": "4711", "properties": {"owner": "mallory", "department": "mars"}}}}`
	if err := os.WriteFile(log, []byte(line+"\n{\"msg\": \"started\"}\n\n"+line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	policies := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,"))
	code, out, errs := on(t, "", "diff", policies, lean(t, broken(t, "gatehouse/roles.yaml", "clerk: [department]", "clerk: []")), "--log", log)
	if code != command.OK || !strings.Contains(out, "(2 times in the log)") || !strings.Contains(errs, log+":2: ") || !strings.Contains(errs, "left out: 1 no decision") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
}

func TestLintAndFmt(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"lint", policies}, {"lint", policies, "--json"}, {"fmt", "--check", policies}} {
		if code, out, errs := on(t, "", args...); code != command.OK || errs != "" {
			t.Errorf("%q: %d, %s%s", args, code, out, errs)
		}
	}
	dir := small(t)
	code, out, _ := on(t, "", "lint", dir)
	if code != command.Findings || !strings.Contains(out, dir+"/authz.rego:5: metadata: gatehouse.authz.decision has no METADATA") {
		t.Errorf("%d, %s", code, out)
	}
	name := filepath.Join(dir, "authz.rego")
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(text, "\n\n\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, _ = on(t, "", "fmt", dir, "--check"); code != command.Findings || !strings.HasPrefix(out, name+":") {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, _ = on(t, "", "fmt", dir); code != command.OK || out != name+"\n" {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, _ = on(t, "", "fmt", dir, "--check"); code != command.OK || out != "" {
		t.Errorf("%d, %s", code, out)
	}
	for _, args := range [][]string{{"lint", "nowhere"}, {"lint", name}, {"fmt", "nowhere"}, {"lint", "a", "b"}} {
		if code, _, errs := on(t, "", args...); code != command.Failure || errs == "" {
			t.Errorf("%q: %d", args, code)
		}
	}
}

func TestPrice(t *testing.T) {
	t.Parallel()
	dir := small(t)
	code, out, errs := on(t, "", "price", dir, "--time", "1ms")
	if code != command.OK || !strings.Contains(out, "a decision") || !strings.Contains(out, "gatehouse.authz.decision") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, _ = on(t, "", "price", dir, "--time", "1ms", "--max-p99", "0.001"); code != command.Findings || !strings.Contains(out, "dearer than 0.001 µs") {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, _ = on(t, "", "price", dir, "--time", "1ms", "--json"); code != command.OK || document(t, out)["decision"] == nil {
		t.Errorf("%d, %s", code, out)
	}
	if code, _, errs = on(t, "", "price", "nowhere"); code != command.Failure || errs == "" {
		t.Errorf("%d, %s", code, errs)
	}
}

func TestInit(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new")
	code, out, errs := on(t, "", "init", "../../../kong.yml", dir)
	if code != command.OK || !strings.Contains(out, "schema.json") || !strings.Contains(out, "7 operations") || !strings.Contains(out, "no policy is asked about route auth-login") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", "test", dir); code != command.OK {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	api := "openapi: 3.0.0\nsecurity: [{a: []}]\npaths:\n  /orders/{n}: {get: {}}\n"
	if code, out, errs = on(t, api, "init", "-", filepath.Join(t.TempDir(), "new")); code != command.OK || !strings.Contains(out, "schema.json") || !strings.Contains(out, `{pattern: "/orders/{id}", type: order}`) {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	for _, args := range [][]string{{"init"}, {"init", "nowhere", "x"}, {"init", "../../../kong.yml", dir}, {"init", "command.go", "x"}} {
		if code, out, errs := on(t, "", args...); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
}

func TestCoverage(t *testing.T) {
	t.Parallel()
	open := `_format_version: "3.0"
services: [{name: s, url: http://s, routes: [{name: r, paths: [/orders], methods: [GET, PUT], plugins: [{name: gatehouse, config: {resources: [{pattern: /orders, type: order}]}}]},
  {name: o, paths: [/o], plugins: [{name: gatehouse, config: {authorize: false}}]}]}]
`
	for _, c := range []struct {
		args string
		code int
		out  string
	}{
		{"../../../kong.yml", command.OK, "100.0 % protected: 6 of 6 operations; 10 more are open"},
		{"../../../kong.yml --fail-on-open", command.Findings, "6 of 16 operations, less than 100 %"},
		{"-", command.Findings, "-:2: PUT /orders: unprotected: no rule"},
		{"- --fail-under 50", command.OK, "50.0 % protected: 1 of 2 operations; 1 more are open"},
		{"- --fail-under 50.1 -v", command.Findings, "GET /orders: protected: by a rule"},
		{"- --json", command.Findings, `"state": "unprotected"`},
		{"-", command.Findings, "-:3: any /o: open: authorize is false, and whoever has a token may"},
	} {
		args := append([]string{"coverage", "--policies", policies}, strings.Fields(c.args)...)
		if code, out, errs := on(t, open, args...); code != c.code || !strings.Contains(out, c.out) || errs != "" {
			t.Errorf("coverage %s: %d, %s%s", c.args, code, out, errs)
		}
	}
	_, out, _ := on(t, open, "coverage", "--policies", policies, "-", "--json")
	if v := document(t, out); v["protected"] != 1.0 || v["unprotected"] != 1.0 || v["open"] != 1.0 || v["percent"] != 50.0 {
		t.Errorf("%v", v)
	}
	for args, c := range map[string]struct{ in, want string }{
		"":                        {"", "coverage takes"},
		"a b":                     {"", "coverage takes"},
		"nowhere":                 {"", "nowhere: no such file"},
		"-":                       {"_format_version: '3.0'\nservices:\n  - {url: http://s}\n", "services[0].name: required"},
		"- ":                      {"swagger: '2.0'", "-: neither a kong.yml"},
		"-  ":                     {"a: [", "-:1: "},
		"-   ":                    {"openapi: 3.0.0\n", "-: there is no operation"},
		"-    ":                   {"openapi: 3.0.0\npaths: [1]\n", "-:2: a list stands where a mapping is wanted"},
		"- --fail-under 101":      {open, "no percentage"},
		"- --fail-under NaN":      {open, "no percentage"},
		"- --policies nowhere":    {open, "nowhere: no such file"},
		"- --directory nowhere":   {open, "nowhere"},
		"- --fail-under plenty":   {open, "usage: gatehouse-pdp coverage"},
		"- --policies command.go": {open, "command.go is not a folder"},
	} {
		args := append([]string{"coverage", "--policies", policies}, strings.Fields(args)...)
		if code, out, errs := on(t, c.in, args...); code != command.Failure || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %d, %s%s", args, code, out, errs)
		}
	}
}

func TestWhoCanAndWhatCan(t *testing.T) {
	t.Parallel()
	dir := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,"))
	code, out, errs := on(t, "", "who-can", "GET", "/orders", "--policies", dir)
	if code != command.OK || !strings.Contains(out, "customer  GET /orders  always\n") || strings.Contains(out, "POST") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	code, out, errs = on(t, "", "what-can", "customer", "--policies", dir)
	if code != command.OK || !strings.Contains(out, "DELETE order  when owner {who.id}") || strings.Contains(out, "admin") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", "what-can", "anonymous", "--policies", dir); code != command.OK || !strings.HasPrefix(out, "nobody, and nothing\n") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, errs = on(t, "", "what-can", "customer", "--policies", dir, "--json"); code != command.OK || document(t, out)["changes"] == nil {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	for _, args := range [][]string{{"who-can", "GET"}, {"what-can"}, {"what-can", "x", "--policies", "nowhere"}} {
		if code, out, errs := on(t, "", args...); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
}

// "Nobody" about a word that was misspelt would be believed: what no case and no table speaks of is a failure that names what they
// speak of.
func TestWhoCanAndWhatCanSayNothingOfWhatWasNotTried(t *testing.T) {
	t.Parallel()
	dir, file := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,")), written(t, "directory.json", staff)
	for _, c := range []struct {
		want string
		args []string
	}{
		{"speaks of GETT order, but of DELETE order, GET /orders, GET invoice, GET order, ", []string{"who-can", "GETT", "order"}},
		{"speaks of GET order:17, but of", []string{"who-can", "GET", "order:17"}},
		{"speaks of POST order, but of", []string{"who-can", "POST", "order"}},
		{"speaks of GET orders, but of", []string{"who-can", "GET", "orders", "--directory", file}},
		{"speaks of the role custommer, but of admin, anonymous, clerk, customer", []string{"what-can", "custommer"}},
		{"people are named by --directory or --pdp", []string{"what-can", "alice"}},
	} {
		code, out, errs := on(t, "", append(c.args, "--policies", dir)...)
		if code != command.Failure || out != "" || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %d, %s%s", c.args, code, out, errs)
		}
	}
}

func TestLintFindsWhatIsNotInTheInput(t *testing.T) {
	t.Parallel()
	dir := broken(t, "gatehouse/authz.rego", "== input.subject.attributes.department", "== input.subject.departement")
	code, out, errs := on(t, "", "lint", dir)
	if code != command.Findings || errs != "" ||
		!strings.Contains(out, `authz.rego:84: schema: input.subject.departement: input.subject has no "departement"; did you mean input.subject.attributes.department?`) {
		t.Errorf("%d, %s, %s", code, out, errs)
	}
	if code, out, _ := on(t, "", "lint", broken(t, "gatehouse/authz.rego", "data.gatehouse.actions[shape]", "data.gatehouse.action[shape]")); code != command.Findings ||
		!strings.Contains(out, "data.gatehouse.action: there is neither such data nor such a rule; did you mean data.gatehouse.actions?") {
		t.Errorf("%d, %s", code, out)
	}
}

func TestSchemaClosesWhatGatewayAndTokensAreKnownToSay(t *testing.T) {
	t.Parallel()
	dir := broken(t, "gatehouse/authz.rego", "== input.subject.attributes.department", "== input.subject.attributes.departement")
	code, out, errs := on(t, "attributes: {department: string}\n", "schema", "../../../kong.yml", "-", "--policies", dir, "-o", filepath.Join(dir, "schema.json"), "--json")
	if code != command.OK || errs != "" || document(t, out)["changed"] != true {
		t.Fatalf("%d, %s, %s", code, out, errs)
	}
	if code, out, _ := on(t, "", "lint", dir); code != command.Findings || !strings.Contains(out, `attributes has no "departement"; did you mean input.subject.attributes.department?`) {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, _ := on(t, "", "schema"); code != command.OK || document(t, out)["$id"] != "urn:gatehouse:policy-input:1" {
		t.Errorf("%d, %s", code, out)
	}
	if code, _, errs := on(t, "a: b\n", "schema", "-"); code != command.Failure || !strings.Contains(errs, "neither a kong.yml") {
		t.Errorf("%d, %s", code, errs)
	}
}

func TestPriceKeepsTheBudget(t *testing.T) {
	t.Parallel()
	dir := small(t)
	for text, want := range map[string]int{"p99: {GET order: 100000}\n": command.OK, "p99: {GET order: 0.01}\n": command.Findings, "p99: {PUT order: 1}\n": command.Failure} {
		if err := os.WriteFile(filepath.Join(dir, "budget.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if code, out, errs := on(t, "", "price", dir, "--time", "1ms"); code != want || want != command.Failure && !strings.Contains(out, "GET order: ") ||
			want == command.Failure && !strings.Contains(errs, "budget.yaml: p99: PUT order: no case") {
			t.Errorf("%s: %d, %s%s", text, code, out, errs)
		}
	}
}

func TestBenchMeasures(t *testing.T) {
	t.Parallel()
	dir := small(t)
	code, out, errs := on(t, "", "bench", dir, policies, "--time", "1ms")
	if code != command.OK || errs != "" || !strings.Contains(out, "allocations") || strings.Count(out, "\n") != 3 {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, _ := on(t, "", "bench", dir, "--time", "1ms", "--max-allocs", "1"); code != command.Findings || !strings.Contains(out, "more than 1 times") {
		t.Errorf("%d, %s", code, out)
	}
	if code, out, _ := on(t, "", "bench", dir, "--time", "1ms", "--json"); code != command.OK || !strings.Contains(out, `"allocs": `) {
		t.Errorf("%d, %s", code, out)
	}
	if err := os.RemoveAll(filepath.Join(dir, "cases")); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := on(t, "", "bench", dir); code != command.Failure || !strings.Contains(errs, "nothing to decide") {
		t.Errorf("%d, %s", code, errs)
	}
}
