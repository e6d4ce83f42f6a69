package regomask_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/regomask"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const canary = "canary-value"

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mask.rego")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func policy(t testing.TB, rules string) *regomask.Policy {
	t.Helper()
	p, err := regomask.Open(t.Context(), write(t, "package system.log\n\n"+rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// kept is a sink that keeps the last record, and all of them as text.
type kept struct {
	mu  sync.Mutex
	all string
}

func (k *kept) Write(_ context.Context, records [][]byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range records {
		k.all += string(r) + "\n"
	}
	return nil
}

func (k *kept) Close() error { return nil }

// recordBy answers the record that a journal makes by a mask policy and one mask of its own, and what it has logged.
func recordBy(t *testing.T, maskBy func(context.Context, []byte) ([]decisionlog.Mask, error)) (record map[string]any, all string) {
	t.Helper()
	own, err := decisionlog.NewMasks([]decisionlog.Mask{{Pointer: "/input/context/ip", With: "0.0.0.0"}})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	sink := &kept{}
	j, err := decisionlog.Open(decisionlog.Options{
		Dir: t.TempDir(), WhenFull: decisionlog.Drop, Masks: own, MaskBy: maskBy, Sinks: map[string]decisionlog.Sink{"kept": sink},
		Log: slog.New(slog.NewJSONHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	e := &decisionlog.Event{
		DecisionID: "d-1", Outcome: decisionlog.Deny, LookedUp: map[string]any{"owner": canary},
		Input: authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{"email": canary, "level": json.Number("3")}}, Context: map[string]any{"ip": canary, "note": canary},
		},
		Result: authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{canary}}},
	}
	if err := j.Record(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(sink.all), &record); err != nil || record["decision_id"] != "d-1" {
		t.Fatalf("%q: %v", sink.all, err)
	}
	return record, sink.all + log.String()
}

// S67: it sees the record as the other masks have left it, and hides more of it.
func TestAPolicyHidesWhatItSays(t *testing.T) {
	t.Parallel()
	p := policy(t, `
mask contains "/input/subject/properties/email" if input.input.subject.type == "user"
mask contains {"op": "remove", "path": "/gatehouse/looked_up/owner"}
mask contains {"op": "upsert", "path": "/input/context/note", "value": sprintf("%v", [input.input.context.ip])}
mask contains {"op": "upsert", "path": "/result/reasons", "value": null}
mask contains "/input/context/ip"
mask contains "/input/absent"
mask contains "/input/never" if input.input.subject.id == "bob"
`)
	record, all := recordBy(t, p.Masks)
	if strings.Contains(all, canary) {
		t.Errorf("it is told: %s", all)
	}
	in, _ := record["input"].(map[string]any)
	if got := fmt.Sprint(in["context"]); got != "map[ip:0.0.0.0 note:0.0.0.0]" {
		t.Errorf("context %s", got)
	}
	if got := fmt.Sprint(record["erased"], record["masked"]); got != "[/input/subject/properties/email /result/reasons /gatehouse/looked_up/owner] [/input/context/ip /input/context/note]" {
		t.Errorf("told %s", got)
	}
}

func TestAPolicyThatHidesNothingLeavesTheRecord(t *testing.T) {
	t.Parallel()
	for _, rules := range []string{`mask contains "/input/x" if input.labels.app == "other"`, `mask := {"/input/x"} if input.labels.app == "other"`, "mask := []"} {
		record, all := recordBy(t, policy(t, rules).Masks)
		if record["input"] == nil || !strings.Contains(all, canary) || strings.Contains(all, "is not known") {
			t.Errorf("%s: %s", rules, all)
		}
	}
}

// S67: what is not known to be harmless is not written.
func TestAPolicyThatFailsHidesEverything(t *testing.T) {
	t.Parallel()
	failing := map[string]func(context.Context, []byte) ([]decisionlog.Mask, error){
		"error": func(context.Context, []byte) ([]decisionlog.Mask, error) { return nil, errors.New("failed") },
	}
	for name, rules := range map[string]string{
		"no set": `mask := "/input/x"`, "a number": "mask := {1}", "another op": `mask contains {"op": "hide", "path": "/input"}`, "no path": `mask contains {"op": "remove"}`,
		"no value": `mask contains {"op": "upsert", "path": "/input/x"}`, "a value to remove": `mask contains {"op": "remove", "path": "/input/x", "value": 1}`,
		"no pointer": `mask contains input.input.context.note`, "elsewhere": `mask contains sprintf("/labels/%s", [input.input.context.note])`,
		"a failing builtin": `mask contains "/input/x" if to_number(input.input.context.note) > 1`,
		"a conflict":        "mask := {\"/input/x\"}\n\nmask := {\"/input/y\"} if input.input.context.note != \"\"",
		"endless":           `mask contains "/input/x" if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == 7; a > 8 }`,
	} {
		failing[name] = policy(t, rules).Masks
	}
	for name, maskBy := range failing {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			record, all := recordBy(t, maskBy)
			if strings.Contains(all, canary) || record["input"] != nil || record["result"] != nil || !strings.Contains(all, "input and result are erased") {
				t.Errorf("told %s", all)
			}
		})
	}
}

// S62: a mask policy is held to what other policies are.
func TestAPolicyThatCannotBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty": "", "broken": "package system.log\n\nmask contains {", "another package": "package gatehouse.authz\n\nmask contains \"/input\"",
		"no rule": "package system.log\n\nx := 1", "reaches outside": "package system.log\n\nmask contains http.send({\"url\": \"http://127.0.0.1\", \"method\": \"GET\"}).body",
		"asks the clock": "package system.log\n\nmask contains \"/input\" if time.now_ns() > 0", "old Rego": "package system.log\n\nmask[x] { x := \"/input\" }",
		"unused": "package system.log\n\nmask contains \"/input\" if { x := 1 }",
	} {
		if _, err := regomask.Open(t.Context(), write(t, text)); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := regomask.Open(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no file")
	}
}

func TestAnEvaluationEndsAlsoIfNobodyWaits(t *testing.T) {
	t.Parallel()
	p := policy(t, `mask contains "/input/x"`)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if masks, err := p.Masks(gone, []byte(`{}`)); err != nil || len(masks) != 1 {
		t.Errorf("%v, %v", masks, err)
	}
	slow := policy(t, `mask contains "/input/x" if { some a in numbers.range(1, 100000); some b in numbers.range(1, 100000); a * b == 7; a > 8 }`)
	start := time.Now()
	if _, err := slow.Masks(t.Context(), []byte(`{}`)); err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}
