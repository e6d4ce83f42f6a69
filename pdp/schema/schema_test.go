package schema_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/schema"
)

const head = "package gatehouse.authz\n\n"

// check compiles rules and answers what is wrong with their references, one a line.
func check(t *testing.T, s *schema.Schema, rules string) string {
	t.Helper()
	m, err := ast.ParseModuleWithOpts("a.rego", head+rules, ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		t.Fatal(err)
	}
	c := ast.NewCompiler()
	if c.Compile(map[string]*ast.Module{"a.rego": m}); c.Failed() {
		t.Fatal(c.Errors)
	}
	data := map[string]any{"gatehouse": map[string]any{"grants": map[string]any{"order": map[string]any{}}, "networks": []any{"10.0.0.0/8"}}}
	var lines []string
	for _, p := range s.Check(c, ast.MustParseRef("data.gatehouse.authz.decision"), data, []string{"a.rego"}) {
		line := p.String()
		if !p.Sure {
			line = "? " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func over(t *testing.T, text string) *schema.Schema {
	t.Helper()
	s, err := schema.Over("schema.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAReferenceToWhatIsNotThereIsFound(t *testing.T) {
	t.Parallel()
	closed := over(t, `{"properties": {
		"subject": {"properties": {"attributes": {"additionalProperties": false}}},
		"resource": {"properties": {"type": {"enum": ["order", "invoice"]}, "params": {"properties": {"id": {}}, "additionalProperties": false}}}}}`)
	for _, c := range []struct{ rule, want string }{
		{`input.subject.id == "a"`, ""},
		{`input.subject.departement == "a"`, `a.rego:4: input.subject.departement: input.subject has no "departement"; did you mean input.subject.attributes.department?`},
		{`input.subject.department == "a"`, `a.rego:4: input.subject.department: input.subject has no "department"; did you mean input.subject.attributes.department?`},
		{`input.subjct.id == "a"`, `a.rego:4: input.subjct: input has no "subjct"; did you mean input.subject?`},
		{`input.nonsense == "a"`, `a.rego:4: input.nonsense: input has no "nonsense"; it has action, context, resource, subject`},
		{"s := input.subject\n\ts.roels[_] == \"a\"", `a.rego:5: input.subject.roels: input.subject has no "roels"; did you mean input.subject.roles?`},
		{`some role in input.subject.roels; role == "a"`, `a.rego:4: input.subject.roels: input.subject has no "roels"; did you mean input.subject.roles?`},
		{`every role in input.subject.roels { role == "a" }`, `a.rego:4: input.subject.roels: input.subject has no "roels"; did you mean input.subject.roles?`},
		{`count([r | some r in input.subject.roels]) > 0`, `a.rego:4: input.subject.roels: input.subject has no "roels"; did you mean input.subject.roles?`},
		{`object.get(input.subject, "tennant", "") == "a"`, `a.rego:4: input.subject.tennant: input.subject has no "tennant"; did you mean input.subject.tenant?`},
		{`object.get(input, ["subject", "tennant"], "") == "a"`, `a.rego:4: input.subject.tennant: input.subject has no "tennant"; did you mean input.subject.tenant?`},
		// What a variable stands for is told of once, and what is wrong below it where that is read.
		{"s := input.subjetc\n\ts.id == \"a\"\n\tt := s.attributes\n\tt.x.y == 1", `a.rego:4: input.subjetc: input has no "subjetc"; did you mean input.subject?`},
		{"s := input.subject\n\ts.id == \"a\"\n\ts.tennant == \"a\"", `a.rego:6: input.subject.tennant: input.subject has no "tennant"; did you mean input.subject.tenant?`},
		{"s := input.subject.attributes.departement\n\ts.x == 1\n\ts.y == 1", `? a.rego:4: input.subject.attributes.departement: "departement" is not known of input.subject.attributes, which is open; did you mean input.subject.attributes.department?`},
		{"s := input.subject.id\n\ts.x == 1\n\tcount([1 | s.x == 2]) == 0", "a.rego:5: input.subject.id.x: input.subject.id is string\na.rego:6: input.subject.id.x: input.subject.id is string"},
		{"d := data.rbac.bindings\n\td.a == 1\n\tsome b in d.list\n\tb == 1", `a.rego:4: data.rbac: there is neither such data nor such a rule`},
		{"d := data.gatehouse.grants\n\td.ordr.a == 1", `a.rego:5: data.gatehouse.grants.ordr: there is neither such data nor such a rule; did you mean data.gatehouse.grants.order?`},
		{`input.subject.roles.admin`, `a.rego:4: input.subject.roles.admin: input.subject.roles is array`},
		{`input.subject.id.x`, `a.rego:4: input.subject.id.x: input.subject.id is string`},
		{`input.subject.roles[0] == "x"`, ""},
		{`input.subject[input.action.name] == "x"`, ""},
		{`input.subject.attributes.clearance > 3`, ""}, // open until somebody lists them
		{`input.subject.attributes.departement == "a"`, `? a.rego:4: input.subject.attributes.departement: "departement" is not known of input.subject.attributes, which is open; did you mean input.subject.attributes.department?`},
		{`data.gatehouse.grants[input.resource.type]`, ""},
		{`data.gatehouse.grants.order`, ""},
		{`data.gatehouse.grnats[input.resource.type]`, `a.rego:4: data.gatehouse.grnats: there is neither such data nor such a rule; did you mean data.gatehouse.grants?`},
		{`data.gatehouse.authz.hlper`, `a.rego:4: data.gatehouse.authz.hlper: there is neither such data nor such a rule; did you mean data.gatehouse.authz.helper?`},
		{`data.gatehouse.authz.helper`, ""},
		{`data.rbac.bindings[input.subject.id]`, `a.rego:4: data.rbac: there is neither such data nor such a rule`},
		{`data.gatehouse.networks.x`, `a.rego:4: data.gatehouse.networks.x: data.gatehouse.networks has no members`},
		{`data.directory.subjects[input.subject.id]`, ""}, // the decision point's own
	} {
		if got := check(t, schema.Base(), "decision if { # line 3\n\t"+c.rule+"\n}\n\nhelper if input.action.name == \"GET\"\n"); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.rule, got, c.want)
		}
	}
	for _, c := range []struct{ rule, want string }{
		{`input.subject.attributes.departement == "a"`, `a.rego:4: input.subject.attributes.departement: input.subject.attributes has no "departement"; did you mean input.subject.attributes.department?`},
		{`input.resource.type == "ordr"`, `a.rego:4: input.resource.type is never "ordr"; did you mean order?`},
		{`input.resource.type != "user"`, `a.rego:4: input.resource.type is never "user"; there are order, invoice`},
		{`input.resource.type == "invoice"`, ""},
		{`input.resource.params.idd == "1"`, `a.rego:4: input.resource.params.idd: input.resource.params has no "idd"; did you mean input.resource.params.id?`},
	} {
		if got := check(t, closed, "decision if { # line 3\n\t"+c.rule+"\n}\n"); got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.rule, got, c.want)
		}
	}
}

// Rules for OPA's Data API are asked with whatever their callers send.
func TestRulesThatDoNotDecideSeeAnyInput(t *testing.T) {
	t.Parallel()
	got := check(t, schema.Base(), "decision if helper\n\nhelper if input.usr == 1\n\nother if input.anything == data.nothing\n")
	want := "a.rego:5: input.usr: input has no \"usr\"; it has action, context, resource, subject\n" +
		"a.rego:7: data.nothing: there is neither such data nor such a rule"
	if got != want {
		t.Errorf("got %s", got)
	}
}

// Where documents are asked for, a package may be written for what their callers send.
func TestAPackageForAnotherInputIsLeftAlone(t *testing.T) {
	t.Parallel()
	either := schema.Base()
	either.OtherInputs = true
	for rules, want := range map[string]string{
		"decision if input.method == \"GET\"\n\nhelper if input.resource.owner == input.user.id\n": "",
		"decision if input.subject.departement == \"a\"\n":                                         "a.rego:3: input.subject.departement: input.subject has no \"departement\"; did you mean input.subject.attributes.department?",
		"decision if input.subjct.id == \"a\"\n":                                                   "a.rego:3: input.subjct: input has no \"subjct\"; did you mean input.subject?",
		"decision if input.method == data.nothing\n":                                               "a.rego:3: data.nothing: there is neither such data nor such a rule",
	} {
		if got := check(t, either, rules); got != want {
			t.Errorf("%s\n got %s\nwant %s", rules, got, want)
		}
	}
	if got := check(t, schema.Base(), "decision if input.method == \"GET\"\n"); got == "" {
		t.Error("decisions have no such member")
	}
}

func TestDataFromElsewhereIsDeclared(t *testing.T) {
	t.Parallel()
	s := over(t, `{"x-gatehouse-data": ["rbac/bindings"]}`)
	if got := check(t, s, "decision if { # line 3\n\tdata.rbac.bindings.x[input.subject.id]\n}\n"); got != "" {
		t.Errorf("got %s", got)
	}
	if got := check(t, s, "decision if { # line 3\n\tdata.rbac.binding[input.subject.id]\n}\n"); got != "a.rego:4: data.rbac.binding: there is neither such data nor such a rule" {
		t.Errorf("got %s", got)
	}
}

func TestASchemaThatIsNotUnderstoodIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{`:                          "s.json:1: ",
		`{} {}`:                      "more than one",
		"{\n\"type\": \"strnig\"}":   "no type of JSON",
		`{"$ref": "#/x"}`:            "$ref is not understood",
		`{"properties": {"a": 1}}`:   "a schema is an object",
		`{"$id": "urn:other"}`:       "urn:gatehouse:policy-input:1 is known here",
		`{"x-gatehouse-data": "a"}`:  "s.json:1: ",
		`{"items": {"anyOf": [{}]}}`: "anyOf is not understood",
	} {
		if _, err := schema.Over("s.json", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func TestAWrittenSchemaIsReadAsItWas(t *testing.T) {
	t.Parallel()
	var f schema.Sources
	kong, err := os.ReadFile("../../kong.yml")
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string]string{
		"kong.yml":    string(kong),
		"claims.yaml": "attributes: {clearance: integer, teams: [string], office: string}\nclaims: [azp]\n",
		"api.json":    `{"openapi": "3.1.0", "paths": {"/shops/{shop}/orders/{order}": {"get": {}}}}`,
	} {
		if err := f.Add(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	f.Lookups(map[string]any{"order": map[string]any{"properties": map[string]any{"owner": "/owner"}}})
	first, err := f.Schema().Text()
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.Over("s.json", first)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ rule, want string }{
		{`input.subject.attributes.clearence > 3`, "attributes.clearance?"},
		{`input.subject.attributes.teams[_] == "x"`, ""},
		{`input.subject.claims.azp == "x"`, ""},
		{`input.subject.claims.sub == "x"`, `has no "sub"`},
		{`input.resource.params.shop == "x"`, ""},
		{`input.resource.params.shopp == "x"`, "params.shop?"},
		{`input.resource.properties.owner == "x"`, ""},
		{`input.resource.properties.ownr == "x"`, "properties.owner?"},
		{`input.resource.type == "oder"`, "did you mean order?"},
		{`input.resource.route == "orders"`, ""},
		{`input.subject.owne == "x"`, "input.resource.properties.owner?"},
		{`input.subject.offic == "x"`, "input.subject.attributes.office?"},
		{`input.context.ipp == "x"`, "input.context.ip?"},
		{`input.resource.service == "x"`, `has no "service"`},
	} {
		got := check(t, s, "decision if {\n\t"+c.rule+"\n}\n")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
	var document map[string]any
	if err := json.Unmarshal(first, &document); err != nil || document["$id"] != schema.ID {
		t.Errorf("%v: %s", err, first)
	}
}

func TestSourcesThatSayNothingAreRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: [": "s.yaml", "a: 1": "neither a kong.yml", "attributes: 7": "s.yaml:1: expected", "attributes: {a: strnig}": "s.yaml:1: a: expected",
		"attributes: {}\nother: 1": "other", "openapi: 3.0.0": "there are no paths", "_format_version: \"2.0\"": "s.yaml: ",
		"_format_version: \"3.0\"\nservices:\n  - {url: \"http://a\"}": "services[0].name: required",
	} {
		var f schema.Sources
		if err := f.Add("s.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzOver(f *testing.F) {
	f.Add([]byte(`{"properties": {"subject": {"properties": {"attributes": {"additionalProperties": false}}}}}`))
	f.Add([]byte(`{"properties": {"a": null, "b": false}, "additionalProperties": true}`))
	m, err := ast.ParseModuleWithOpts("a.rego", head+"decision if { input.subject.attributes[input.action.name].x.y == data.a.b; input.a.b.c != \"x\" }", ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil {
		f.Fatal(err)
	}
	c := ast.NewCompiler()
	if c.Compile(map[string]*ast.Module{"a.rego": m}); c.Failed() {
		f.Fatal(c.Errors)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := schema.Over("s.json", text)
		if err != nil {
			return
		}
		s.Check(c, ast.MustParseRef("data.gatehouse.authz.decision"), nil, []string{"a.rego"})
		again, err := s.Text()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := schema.Over("s.json", again); err != nil {
			t.Errorf("%v: %s", err, again)
		}
	})
}
