package command_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // a Tuesday

// event is what a decision point records of a clerk who reads an order of sales.
func event(id string, at time.Time, allowed bool, reasons ...string) decisionlog.Event {
	outcome := authzen.Deny
	if allowed {
		outcome = authzen.Permit
	}
	return decisionlog.Event{
		Time: at, DecisionID: id, Outcome: string(outcome), Revision: "r",
		Input: authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "clara", Properties: map[string]any{
				"roles": []string{"clerk"}, "tenant": "acme", "attributes": map[string]any{"department": "sales", "email": "clara@example.com"},
			}},
			Action:   authzen.Action{Name: "GET"},
			Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{"route": "orders", "path": "/orders/17"}},
			Context:  map[string]any{"ip": "10.1.2.3"},
		},
		LookedUp: map[string]any{"owner": "alice", "department": "sales", "tenant": "acme"},
		Result:   authzen.Response{Decision: allowed, Context: &authzen.ResponseContext{Outcome: outcome, Reasons: reasons}},
	}
}

func masks(t *testing.T, pointers ...string) *decisionlog.Masks {
	t.Helper()
	var all []decisionlog.Mask
	for _, p := range pointers {
		all = append(all, decisionlog.Mask{Pointer: p})
	}
	m, err := decisionlog.NewMasks(all)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func write(t *testing.T, lines ...string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "decisions.jsonl")
	if err := os.WriteFile(name, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestReplaySaysWhoGainsAndWhoLoses(t *testing.T) {
	t.Parallel()
	plain := masks(t)
	sampled := decisionlog.Encode(event("p1", noon, true, "granted_to_clerk"), plain, 0.1)
	log := write(t, string(sampled),
		string(decisionlog.Encode(event("p2", noon.Add(time.Hour), true, "granted_to_clerk"), masks(t, "/input/subject/properties/attributes/email"), 0.1)),
		string(decisionlog.Encode(event("m1", noon, true, "granted_to_clerk"), masks(t, "/input/subject/properties/attributes/department"), 1)),
		string(decisionlog.Encode(event("m2", noon, true, "granted_to_clerk"), masks(t, "/gatehouse/looked_up/owner"), 1)),
		`{"decision_id": "d", "path": "orders/allow", "input": {}, "result": true}`, `{"msg": "started"}`,
	)
	code, out, errs := on(t, "", "replay", log, "--candidate", policies, "--fail-on-change")
	if code != command.OK || !strings.Contains(out, "0 decisions gained, 0 lost, 0 decided alike for other reasons; 2 of 6 entries decided again, 2026-11-24T12:00:00Z to 2026-11-24T13:00:00Z; left out: 1 other path, 2 masked, 1 no decision") {
		t.Errorf("the same: %d, %s%s", code, out, errs)
	}
	stricter := broken(t, "gatehouse/roles.yaml", "clerk: [department]", "clerk: [department, owner]")
	code, out, _ = on(t, "", "replay", log, "--candidate", stricter, "--fail-on-change")
	if code != command.Findings || !strings.Contains(out, "loses  clerk  GET order  allow granted_to_clerk  →  deny not_owner  (2, of about 20)") ||
		!strings.Contains(out, "by gatehouse.authz.decision#2 ("+stricter+"/gatehouse/authz.rego:16), gatehouse.authz.misses\n") || !strings.Contains(out, "such as p1, p2") {
		t.Errorf("stricter: %d, %s", code, out)
	}
	if code, _, _ := on(t, "", "replay", log, "--candidate", stricter, "--fail-on-widening"); code != command.OK {
		t.Errorf("nobody gains: %d", code)
	}
	denied := write(t, string(decisionlog.Encode(event("n1", noon, false, "not_in_department"), plain, 1)))
	code, out, _ = on(t, "", "replay", denied, "--candidate", policies, "--fail-on-widening", "--markdown")
	if code != command.Findings || !strings.Contains(out, "| 🔺 **gains** | clerk | GET order | deny not_in_department | allow granted_to_clerk | 1 | gatehouse.authz.decision#1 | n1 |") {
		t.Errorf("wider: %d, %s", code, out)
	}
	if code, out, _ := on(t, "", "replay", denied, "--candidate", policies, "--json"); code != command.OK || len(document(t, out)["changes"].([]any)) != 1 {
		t.Errorf("JSON: %d, %s", code, out)
	}
}

// The clock of a decision is the record's own, so that office hours are those of its moment.
func TestReplayDecidesAtTheTimeOfTheRecord(t *testing.T) {
	t.Parallel()
	deleted := func(id string, at time.Time, allowed bool, reason string) string {
		e := event(id, at, allowed, reason)
		r := e.Input.(authzen.Request)
		r.Action.Name, r.Subject.Properties = "DELETE", map[string]any{"roles": []string{"admin"}, "tenant": "acme"}
		e.Input = r
		return string(decisionlog.Encode(e, masks(t), 1))
	}
	log := write(t, deleted("day", noon, true, "granted_to_admin"), deleted("night", noon.Add(12*time.Hour), false, "outside_office_hours"))
	if code, out, errs := on(t, "", "replay", log, "--candidate", policies, "--fail-on-change"); code != command.OK || !strings.Contains(out, "2 of 2 entries") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, _ := on(t, "", "replay", log, "--candidate", policies, "--since", "2026-11-24T18:00:00Z", "--until", "2026-11-25T18:00:00Z"); code != command.OK || !strings.Contains(out, "1 of 2 entries") || !strings.Contains(out, "1 out of range") {
		t.Errorf("%d, %s", code, out)
	}
	code, out, _ := on(t, "", "explain", "--policies", policies, "--id", "night", log)
	if code != command.OK || !strings.Contains(out, "context.time") && !strings.Contains(out, "outside_office_hours") {
		t.Errorf("%d, %s", code, out)
	}
}

// A record says by which rules a denial was; whoever explains it by other policies is told.
func TestARecordOfOtherRulesIsToldOf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() // of few rules, which are explained soon
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(`package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": false, "reasons": [why]} if some why in misses

misses contains "unknown" if not input.resource.type in {"invoice"}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	denied := event("n1", noon, false, "unknown")
	for name, c := range map[string]struct {
		rules []string
		mask  []decisionlog.Mask
		told  bool
	}{
		"the same":      {rules: []string{"gatehouse.authz.decision", `gatehouse.authz.misses["unknown"]`}},
		"others":        {rules: []string{"gatehouse.authz.decision", "R-7"}, told: true},
		"none":          {},
		"masked":        {rules: []string{"R-7"}, mask: []decisionlog.Mask{{Pointer: "/gatehouse/rules"}}},
		"replaced":      {rules: []string{"R-7"}, mask: []decisionlog.Mask{{Pointer: "/gatehouse/rules", With: "hidden"}}},
		"one of them":   {rules: []string{"R-7", "R-8"}, mask: []decisionlog.Mask{{Pointer: "/gatehouse/rules/0"}}},
		"what they saw": {rules: []string{"R-7"}, mask: []decisionlog.Mask{{Pointer: "/input/resource/type"}}},
	} {
		denied.Rules = c.rules
		hides, err := decisionlog.NewMasks(c.mask)
		if err != nil {
			t.Fatal(err)
		}
		log := write(t, string(decisionlog.Encode(denied, hides, 1)))
		code, out, errs := on(t, "", "explain", "--policies", dir, "--id", "n1", log)
		if told := strings.Contains(errs, "denied by "+strings.Join(c.rules, ", ")+", says its record"); code != command.OK || told != c.told || !strings.Contains(out, "\n  by gatehouse.authz.decision, gatehouse.authz.misses") {
			t.Errorf("%s: %d, %s%s", name, code, out, errs)
		}
	}
}

func TestReplayReadsWhatOPAWrites(t *testing.T) {
	t.Parallel()
	entry := `{"labels": {"id": "x"}, "decision_id": "%s", "path": "%s", "input": {"subject": {"id": "alice", "type": "user", "roles": ["customer"], "attributes": {}, "tenant": ""},` +
		` "action": {"name": "GET"}, "resource": {"id": "17", "type": "order", "properties": {"owner": "alice"}}, "context": {"ip": "10.0.0.1"}}, "result": %s, "timestamp": "2026-11-24T12:00:00.5Z", "msg": "Decision Log"}`
	lines := []string{
		fmt.Sprintf(entry, "o1", "gatehouse/authz/decision", `{"allow": true, "reasons": ["granted_to_customer"]}`),
		fmt.Sprintf(entry, "o2", "/v1/data/gatehouse/authz/decision/allow", "true"),
		fmt.Sprintf(entry, "o3", "gatehouse/authz/decision", `{"allow": false, "reasons": ["not_owner"]}`),
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprintf(z, "[%s]", strings.Join(lines, ","))
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	upload := filepath.Join(t.TempDir(), "upload.gz")
	if err := os.WriteFile(upload, zipped.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, log := range []string{write(t, lines...), upload} {
		code, out, errs := on(t, "", "replay", log, "--candidate", policies)
		if code != command.OK || errs != "" || !strings.Contains(out, "1 decisions gained, 0 lost") || !strings.Contains(out, "such as o3") || !strings.Contains(out, "3 of 3 entries") {
			t.Errorf("%s: %d, %s%s", log, code, out, errs)
		}
	}
}

// The decision point may be running: its spool is only read.
func TestReplayReadsASpool(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := spool.Open(spool.Options{Dir: dir, Readers: []string{"file"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var frames []byte
	for i := range 3 {
		start := len(frames)
		frames = append(spool.AppendFrame(frames), decisionlog.Encode(event(fmt.Sprint("s", i), noon, true, "granted_to_clerk"), masks(t), 1)...)
		if err := spool.Seal(frames, start, noon); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Append(frames); err != nil {
		t.Fatal(err)
	}
	code, out, errs := on(t, "", "replay", dir, "--candidate", policies)
	if code != command.OK || errs != "" || !strings.Contains(out, "3 of 3 entries decided again") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	if code, out, _ := on(t, "", "explain", "--policies", policies, "--id", "s1", dir); code != command.OK || !strings.Contains(out, "allowed: GET order 17 by clara (clerk)") {
		t.Errorf("%d, %s", code, out)
	}
	if code, _, errs := on(t, "", "explain", "--policies", policies, "--id", "nobody", dir); code != command.Failure || !strings.Contains(errs, "no decision nobody") {
		t.Errorf("%d, %s", code, errs)
	}
}

func TestWhatCannotBeReplayedIsAFailure(t *testing.T) {
	t.Parallel()
	log := write(t, `{"msg": "started"}`)
	for _, args := range [][]string{
		{"replay"}, {"replay", "nowhere"}, {"replay", log, "--candidate", "nowhere"}, {"replay", log, "--candidate", policies}, {"replay", log, "--since", "yesterday"},
		{"replay", t.TempDir(), "--candidate", policies},
	} {
		if code, out, errs := on(t, "", args...); code != command.Failure || out != "" || errs == "" {
			t.Errorf("%q: %d, %s, %s", args, code, out, errs)
		}
	}
}

func TestDiffTakesDecisionsAsASecondSource(t *testing.T) {
	t.Parallel()
	log := write(t, string(decisionlog.Encode(event("n1", noon, false, "not_in_department"), masks(t), 1)))
	lean := lean(t, broken(t, "cases/orders.yaml", "# Left out:", "# Left out,"))
	stricter := broken(t, "gatehouse/roles.yaml", "clerk: [department]", "clerk: [department, owner]")
	code, out, errs := on(t, "", "diff", lean, stricter, "--decisions", log)
	if code != command.OK || !strings.Contains(out, "(1 times in the log)") {
		t.Errorf("%d, %s%s", code, out, errs)
	}
}
