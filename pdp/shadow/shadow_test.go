package shadow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/regomask"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
	"github.com/gatehouse-auth/gatehouse/pdp/shadow"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

const rules = `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": true, "reasons": ["owner"]} if {
	input.resource.properties.owner == input.subject.id
	input.subject.attributes.department == "sales"
}
`

func save(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// setup is an engine, and a shadow of it that does not run yet.
func setup(t *testing.T, dir string, more func(*shadow.Options)) (*engine.Engine, *shadow.Shadow) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	active, err := engine.Open(t.Context(), engine.Options{Policies: fstest.MapFS{"authz.rego": {Data: []byte(rules)}}, Log: log, Deadline: patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(active.Close)
	opts := shadow.Options{Dir: dir, Share: 1, Active: active, Engine: engine.Options{Deadline: patience, Poll: 5 * time.Millisecond}, Poll: 5 * time.Millisecond, Log: log}
	if more != nil {
		more(&opts)
	}
	s, err := shadow.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return active, s
}

func run(t *testing.T, s *shadow.Shadow) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func request(user, owner, department string) authzen.Request {
	return authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: user, Properties: map[string]any{
			"roles": []any{"clerk"}, "tenant": "canary-tenant", "session": "canary-session",
			"attributes": map[string]any{"department": department, "email": "canary@example.com"}, "claims": map[string]any{"jti": "canary-claim"},
		}},
		Action:   authzen.Action{Name: "GET"},
		Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{"owner": owner, "note": "canary-note"}},
		Context:  map[string]any{"ip": "10.0.0.1", "user_agent": "canary-agent"},
	}
}

func TestDisagreementsAreGroupedAndBecomeCases(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	save(t, dir, strings.Replace(rules, "\tinput.subject.attributes.department == \"sales\"\n", "\tinput.subject.id != \"\"\n", 1))
	active, s := setup(t, dir, nil)
	run(t, s)
	await.That(t, "the candidate loads", func() bool { return s.Candidate() != nil })
	e := s.Wrap(active)
	for i := range 20 {
		user := fmt.Sprintf("canary-user-%d", i)
		for _, r := range []authzen.Request{request(user, user, "support"), request(user, "bob", "support"), request(user, user, "sales")} {
			if _, err := e.Evaluate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	await.That(t, "all are compared", func() bool { return s.Status().Counts.Compared == 60 })
	st := s.Status()
	if st.Counts.Gains != 20 || st.Counts.Loses != 0 || len(st.Disagreements) != 1 || st.Dropped != 0 {
		t.Fatalf("%+v", st)
	}
	d := st.Disagreements[0]
	if d.Direction != "gains" || d.Who != "clerk" || d.Before != "deny no_rule" || d.After != "allow owner" || d.Times != 20 || !slices.Equal(d.Rules, []string{"gatehouse.authz.decision#default"}) {
		t.Errorf("%+v", d)
	}
	c, err := s.Case(t.Context(), d.ID, shadow.Candidate)
	if err != nil || !c.Shows || c.Active != "deny no_rule" || c.Now != "allow owner" {
		t.Fatalf("%+v, %v", c, err)
	}
	cases, err := golden.Parse("c.yaml", []byte(c.Case))
	if err != nil || len(cases) != 1 || cases[0].Decision != "allow" || cases[0].Who.ID != "somebody" || cases[0].Known["owner"] != "somebody" {
		t.Errorf("%v: %s", err, c.Case)
	}
	// S67: of a request only that is kept which a policy can look at, and nobody's name.
	all, err := json.Marshal([]any{st, c, d.Example, d.Known})
	if err != nil || strings.Contains(string(all), "canary") {
		t.Errorf("it tells: %s", all)
	}
	if _, err := s.Case(t.Context(), "nothing", shadow.Active); err == nil {
		t.Error("there is a case of nothing")
	}
	if _, err := s.Case(t.Context(), d.ID, "both"); err == nil {
		t.Error("a case wants both")
	}
}

// masked has one request decided by both, with a candidate in dir and a mask of what a pointer shows.
func masked(t *testing.T, dir, pointer string, asked authzen.Request) *shadow.Shadow {
	t.Helper()
	masks, err := decisionlog.NewMasks([]decisionlog.Mask{{Pointer: pointer}})
	if err != nil {
		t.Fatal(err)
	}
	active, s := setup(t, dir, func(o *shadow.Options) {
		o.Masks = func(context.Context, decisionlog.Event) *decisionlog.Masks { return masks }
	})
	run(t, s)
	await.That(t, "the candidate loads", func() bool { return s.Candidate() != nil })
	if _, err := s.Wrap(active).Evaluate(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	return s
}

// What the candidate denies has the candidate's rules, unless a mask hides them, or the reasons (S67).
func TestALossSaysByWhichRules(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string][]string{"/input/context": {"gatehouse.authz.misses[\"closed\"]", "gatehouse.authz.shut"}, "/gatehouse/rules": nil, "/result/reasons": nil} {
		dir := t.TempDir()
		save(t, dir, `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

# METADATA
# custom: {id: gatehouse.authz.shut}
decision := {"allow": false, "reasons": sort(misses)} if count(misses) > 0

misses contains "closed" if input.subject.id != ""
`)
		s := masked(t, dir, pointer, request("ann", "ann", "sales"))
		await.That(t, "it is compared", func() bool { return s.Status().Counts.Loses == 1 })
		got := slices.Sorted(slices.Values(s.Status().Disagreements[0].Rules))
		if !slices.Equal(got, want) {
			t.Errorf("%s masked: by %q, want %q", pointer, got, want)
		}
	}
}

// S67: what the decision log masks is masked here, too, and that a case does not show the disagreement for it is said.
func TestExamplesAreMasked(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	save(t, dir, strings.Replace(rules, `"sales"`, `"canary-department"`, 1))
	s := masked(t, dir, "/input/subject/properties/attributes/department", request("ann", "ann", "canary-department"))
	await.That(t, "it is compared", func() bool { return s.Status().Counts.Gains == 1 })
	c, err := s.Case(t.Context(), s.Status().Disagreements[0].ID, shadow.Active)
	if err != nil || c.Shows || len(c.Hidden) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if all, _ := json.Marshal(c); strings.Contains(string(all), "canary") {
		t.Errorf("it tells: %s", all)
	}
}

// S67: what the decision log's mask policy hides of a record is hidden here, too: by what the record was, though less is kept of it, and in
// what tells the kinds of disagreements apart; and where the policy fails nothing is kept.
// S67: what the decision log masks is masked here, too, and that a case does not show the disagreement for it is said.
func TestExamplesAreMaskedByPolicy(t *testing.T) {
	t.Parallel()
	for name, masks := range map[string]string{
		"chosen": `mask contains "/input/subject/properties/attributes/department" if input.input.subject.id == "canary-ann"

mask contains {"op": "upsert", "path": "/input/subject/properties/roles", "value": ["x"]} if input.result.reasons[0] == "no_rule"

mask contains "/input/resource" if not input.requested_by

mask contains "/result/reasons" if input.labels.stage == "test"
`,
		"fails": `mask contains sprintf("/input/subject/%v", [1 / input.gatehouse.sample_rate - input.nothing])

mask contains x if x := to_number("canary")
`,
		"leaves no request": `mask contains {"op": "upsert", "path": "/input/subject", "value": 7}

mask contains "/input/resource"

mask contains "/result"
`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "mask.rego")
			if err := os.WriteFile(path, []byte("package system.log\n\n"+masks), 0o600); err != nil {
				t.Fatal(err)
			}
			policy, err := regomask.Open(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			own, err := decisionlog.NewMasks([]decisionlog.Mask{{Pointer: "/input/context/ip"}})
			if err != nil {
				t.Fatal(err)
			}
			j, err := decisionlog.Open(decisionlog.Options{
				Dir: t.TempDir(), WhenFull: decisionlog.Drop, Masks: own, MaskBy: policy.Masks, Sinks: map[string]decisionlog.Sink{"none": nowhere{}}, Labels: map[string]string{"stage": "test"}, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				ended, cancel := context.WithCancel(context.Background())
				cancel()
				if err := j.Run(ended); err != nil {
					t.Error(err)
				}
			}()
			dir := t.TempDir()
			save(t, dir, strings.NewReplacer(`"sales"`, `"canary-department"`, `["owner"]`, `["canary-reason"]`).Replace(withCondition(`input.resource.id != "x"; input.subject.roles[0] != "x"`)))
			active, s := setup(t, dir, func(o *shadow.Options) { o.Masks = j.MasksOf })
			run(t, s)
			await.That(t, "the candidate loads", func() bool { return s.Candidate() != nil })
			r := request("canary-ann", "canary-ann", "canary-department")
			r.Subject.Properties["roles"], r.Resource.ID = []any{"canary-role"}, "/canary/path"
			if _, err := s.Wrap(active).Evaluate(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			await.That(t, "it is compared", func() bool { return s.Status().Counts.Gains == 1 })
			st := s.Status()
			if len(st.Disagreements) != 1 || st.Disagreements[0].Who != "(masked)" {
				t.Fatalf("%+v", st)
			}
			c, err := s.Case(t.Context(), st.Disagreements[0].ID, shadow.Active)
			all, _ := json.Marshal([]any{st, c, st.Disagreements[0].Example, st.Disagreements[0].Known}) // of values that JSON has
			if strings.Contains(string(all), "canary") || err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("it tells: %s, %v", all, err)
			}
		})
	}
}

// nowhere is a sink.
type nowhere struct{}

func (nowhere) Write(context.Context, [][]byte) error { return nil }

func (nowhere) Close() error { return nil }

// withCondition is the rules with one more condition.
func withCondition(condition string) string {
	return strings.Replace(rules, "\tinput.subject.attributes", "\t"+condition+"\n\tinput.subject.attributes", 1)
}

// A request never waits for its comparison: nobody takes what is offered here.
func TestWhatThereIsNoRoomForIsDroppedAndCounted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	save(t, dir, rules)
	active, s := setup(t, dir, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	await.That(t, "the candidate loads", func() bool { return s.Candidate() != nil })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	e := s.Wrap(active)
	for range 1024 + 5 {
		if res, err := e.Evaluate(t.Context(), request("ann", "ann", "sales")); err != nil || !res.Decision {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if n := s.Status().Dropped; n != 5 {
		t.Errorf("%d dropped", n)
	}
}

func TestACandidateMayComeLateAndChange(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	active, s := setup(t, dir, nil)
	run(t, s)
	await.That(t, "it is said that there is none", func() bool { return s.Status().Why != "" })
	if res, err := s.Wrap(active).Evaluate(t.Context(), request("ann", "ann", "sales")); err != nil || !res.Decision {
		t.Fatalf("%+v, %v", res, err)
	}
	save(t, dir, strings.Replace(rules, `"sales"`, `"nowhere"`, 1))
	await.That(t, "it loads", func() bool { st := s.Status(); return st.Candidate != "" && st.Why == "" })
	e := s.Wrap(active)
	if _, err := e.Evaluate(t.Context(), request("ann", "ann", "sales")); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it disagrees", func() bool { return s.Status().Counts.Loses == 1 })
	save(t, dir, rules+"\n# another\n")
	await.That(t, "the new one begins anew", func() bool {
		if _, err := e.Evaluate(t.Context(), request("ann", "ann", "sales")); err != nil {
			t.Fatal(err)
		}
		st := s.Status()
		return st.Counts.Compared > 0 && st.Counts.Loses == 0 && len(st.Disagreements) == 0
	})
}

func TestASharePicksSome(t *testing.T) {
	t.Parallel()
	for _, share := range []float64{0, -1, 1.1} {
		if _, err := shadow.New(shadow.Options{Share: share}); err == nil {
			t.Errorf("a share of %v was accepted", share)
		}
	}
	dir := t.TempDir()
	save(t, dir, rules)
	active, s := setup(t, dir, func(o *shadow.Options) { o.Share = 0.5 })
	run(t, s)
	await.That(t, "the candidate loads", func() bool { return s.Candidate() != nil })
	e := s.Wrap(active)
	for range 400 {
		if _, err := e.Evaluate(t.Context(), request("ann", "ann", "sales")); err != nil {
			t.Fatal(err)
		}
	}
	await.That(t, "some are compared", func() bool { return s.Status().Counts.Compared > 100 })
	if st := s.Status(); st.Counts.Compared+st.Dropped > 300 {
		t.Errorf("%+v", st)
	}
}
