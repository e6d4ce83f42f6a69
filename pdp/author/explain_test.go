package author_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/policies"
)

var noon = time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)

func shipped(t *testing.T) *author.Policy {
	t.Helper()
	p, err := author.Read(policies.FS, "policies")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func explain(t *testing.T, p *author.Policy, text string) author.Explanation {
	t.Helper()
	q, err := author.ParseQuestion("q.json", []byte(text), noon)
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Explain(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// as the edge asks, with what a look-up would find
func asking(id, roles, method, properties string) string {
	return fmt.Sprintf(`{"subject": {"type": "user", "id": %q, "properties": {"roles": [%s], "attributes": {"department": "support"}}},
		"action": {"name": %q}, "resource": {"type": "order", "id": "17", "properties": {%s}}, "context": {"ip": "10.1.2.3"}}`, id, roles, method, properties)
}

func TestANearMissIsExplained(t *testing.T) {
	t.Parallel()
	e := explain(t, shipped(t), asking("sam", `"clerk"`, "GET", `"owner": "bob", "department": "sales"`))
	if e.Allow || !slices.Equal(e.Reasons, []string{"not_in_department", "not_owner"}) || e.Asked != "GET order 17 by sam (clerk)" {
		t.Fatalf("explained %+v", e)
	}
	i := slices.IndexFunc(e.Failed, func(h author.Held) bool { return h.ID == `gatehouse.authz.holding["department"]` })
	if i < 0 || !e.Failed[i].Near || e.Failed[i].Failed != "input.resource.properties.department == input.subject.attributes.department" ||
		!slices.Equal(e.Failed[i].With, []string{`input.resource.properties.department = "sales"`, `input.subject.attributes.department = "support"`}) {
		t.Errorf("failed %+v", e.Failed)
	}
	if len(e.Near) == 0 || !strings.Contains(e.Near[0].Changes[0], "resource.properties.department") {
		t.Errorf("near %+v", e.Near)
	}
	for _, who := range []string{`somebody whose attributes.department is "sales"`, `somebody whose id is "bob"`} {
		if !slices.Contains(e.Could, who) {
			t.Errorf("%q is not among %q", who, e.Could)
		}
	}
}

func TestARoleThatWouldDoIsNamed(t *testing.T) {
	t.Parallel()
	e := explain(t, shipped(t), asking("sam", `"clerk"`, "DELETE", `"owner": "bob"`))
	if !slices.Contains(e.Could, `somebody with "admin" among roles`) {
		t.Errorf("open to %q", e.Could)
	}
}

func TestTwoChangesAreFoundWhereOneIsNotEnough(t *testing.T) {
	t.Parallel()
	e := explain(t, read(t, folder()), `{"subject": {"type": "user", "id": "eve", "attributes": {"level": 1}}, "action": {"name": "GET"},
		"resource": {"type": "order", "id": "17", "properties": {"owner": "bob"}}}`)
	if e.Allow || len(e.Near) == 0 || len(e.Near[0].Changes) != 2 {
		t.Fatalf("near %+v", e.Near)
	}
}

func TestAnAllowanceIsExplained(t *testing.T) {
	t.Parallel()
	e := explain(t, shipped(t), asking("alice", `"customer"`, "GET", `"owner": "alice"`))
	held := func(id string) bool {
		return slices.ContainsFunc(e.Held, func(h author.Held) bool { return h.ID == id })
	}
	if !e.Allow || !held(`gatehouse.authz.holding["owner"]`) || held(`gatehouse.authz.holding["department"]`) || len(e.Near) == 0 || e.Could != nil {
		t.Errorf("explained %+v", e)
	}
}

// A rule's own id stays when rules are moved about.
func TestARuleIsCalledByItsOwnID(t *testing.T) {
	t.Parallel()
	p := read(t, folder())
	q, err := author.AsQuestion(p.Cases[0])
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Explain(t.Context(), q)
	if err != nil || len(e.Held) != 1 || e.Held[0].ID != "owners" || e.Held[0].Title != "Owners may" {
		t.Errorf("held %+v, %v", e.Held, err)
	}
}

func TestAQuestionIsReadInAnyOfItsForms(t *testing.T) {
	t.Parallel()
	request := asking("alice", `"customer"`, "GET", `"owner": "alice"`)
	input := `{"subject": {"type": "user", "id": "alice", "roles": ["customer"]}, "action": {"name": "GET"},
		"resource": {"type": "order", "id": "17", "properties": {"owner": "alice"}}, "context": {"time": "2026-03-03T12:00:00Z"}}`
	p := shipped(t)
	for _, text := range []string{request, input, `{"decision_id": "d", "input": ` + input + `}`, `{"input": ` + request + `}`} {
		if e := explain(t, p, text); !e.Allow || e.Asked != "GET order 17 by alice (customer)" {
			t.Errorf("%s: %+v", text, e)
		}
	}
	for text, want := range map[string]string{
		"{\n\n]":               "q.json:3: ",
		`{} {}`:                "more than one",
		`{}`:                   "neither",
		`[]`:                   "q.json:1: ",
		`{"subject": "alice"}`: "neither",
		strings.Replace(request, `"ip"`, `"time": "noon", "ip"`, 1): "context.time",
	} {
		if _, err := author.ParseQuestion("q.json", []byte(text), noon); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseQuestion(f *testing.F) {
	f.Add([]byte(asking("alice", `"customer"`, "GET", `"owner": "alice"`)))
	f.Add([]byte(`{"input": {"subject": {"roles": 1}, "action": {}, "resource": {"properties": {"a": [1, null]}}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		q, err := author.ParseQuestion("q", text, noon)
		if err == nil && q.String() == "" {
			t.Error("a question that asks nothing")
		}
	})
}

func FuzzParseCases(f *testing.F) {
	f.Add(false, []byte(cases))
	f.Add(true, []byte(table))
	f.Add(true, []byte("a: &a {who: {x: {}}, when: *a, decisions: {GET /: {x: [allow]}}}"))
	f.Fuzz(func(t *testing.T, matrix bool, text []byte) {
		name := "c.yaml"
		if matrix {
			name = "m.matrix.yaml"
		}
		all, _ := author.ParseCases(name, text)
		for _, c := range all {
			if c.Line < 1 || (c.Decision != "allow" && c.Decision != "deny") {
				t.Errorf("read %+v", c)
			}
			_ = c.Request()
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	for _, seed := range []string{
		`{"decision_id": "1", "timestamp": "2026-11-24T12:00:00Z", "path": "gatehouse/authz/decision", "input": {"subject": {"id": "a"}, "action": {"name": "GET"}, "resource": {"id": "1", "type": "order"}}, "result": {"allow": true}, "masked": ["/input/x"]}`,
		`{"input": {"subject": {"roles": []}, "action": {}, "resource": {}}, "result": false, "gatehouse": {"sample_rate": 0.5, "outcome": "permit", "looked_up": {}}}`, `{}`, `[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, skip, err := author.ParseRecord("x", line)
		if err != nil && skip != author.SkipUnread {
			t.Errorf("%v, but %q", err, skip)
		}
		if skip == "" && (r.Rate <= 0 || r.Rate > 1) {
			t.Errorf("rate %v", r.Rate)
		}
		if skip == "" {
			_, _, _ = r.AsQuestion()
		}
	})
}
