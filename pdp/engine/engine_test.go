package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/policies"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func module(body string) fs.FS {
	return fstest.MapFS{"gatehouse/authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false, \"reasons\": [\"no_rule\"]}\n\n" + body)}}
}

func open(t testing.TB, opts engine.Options) *engine.Engine {
	t.Helper()
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Deadline == 0 {
		opts.Deadline = 5 * time.Second
	}
	if opts.Tests == 0 {
		opts.Tests = time.Minute // those of the built-in policies take seconds on a busy machine with the race detector
	}
	e, err := engine.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func ask(kind, id string) authzen.Request {
	return authzen.Request{
		Subject:  authzen.Subject{Type: "user", ID: "alice", Properties: map[string]any{"roles": []string{"customer"}}},
		Action:   authzen.Action{Name: "GET"},
		Resource: authzen.Resource{Type: kind, ID: id},
		Context:  map[string]any{"ip": "10.0.0.1"},
	}
}

// refused is an error that says nothing of its cause, and never a pass.
func refused(t *testing.T, res authzen.Response, err error) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Code != fault.Unavailable || f.Reason != "policy_failed" {
		t.Errorf("error %v", err)
	}
	if res.Decision || res.Context == nil || res.Context.DecisionID == "" {
		t.Errorf("answered %+v", res)
	}
}

// api is the orders service: 17 is alice's.
func api(t *testing.T) map[string][]string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/orders/17" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, `{"owner":"alice","department":"sales"}`)
	}))
	t.Cleanup(s.Close)
	return map[string][]string{"orders": {s.URL}}
}

// S53
func TestUnknownResourceIsDenied(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: policies.FS, Services: api(t)})
	res, err := e.Evaluate(t.Context(), ask("invoice", "17"))
	if err != nil || res.Decision || !slices.Equal(res.Context.Reasons, []string{"resource_unknown"}) {
		t.Errorf("answered %+v, %v", res.Context, err)
	}
}

// S56: an engine does not start with policies that cannot decide.
func TestPoliciesThatCannotDecideAreRefused(t *testing.T) {
	t.Parallel()
	const head = "package gatehouse.authz\n\n"
	for name, files := range map[string]fstest.MapFS{
		"empty folder":         {},
		"empty file":           {"gatehouse/authz.rego": {}},
		"syntax error":         {"gatehouse/authz.rego": {Data: []byte(head + "decision := {")}},
		"type error":           {"gatehouse/authz.rego": {Data: []byte(head + `decision := {"allow": 1 + "x"}`)}},
		"old syntax":           {"gatehouse/authz.rego": {Data: []byte(head + `allow { true }`)}},
		"unused variable":      {"gatehouse/authz.rego": {Data: []byte(head + "default decision := {\"allow\": false}\n\nx if {\n\ty := 1\n}")}},
		"no entry point":       {"gatehouse/authz.rego": {Data: []byte(head + `allow := false`)}},
		"another package":      {"gatehouse/authz.rego": {Data: []byte("package other\n\ndefault decision := {\"allow\": false}")}},
		"undefined by default": {"gatehouse/authz.rego": {Data: []byte(head + `decision := {"allow": true} if input.subject.id == "alice"`)}},
		"boolean":              {"gatehouse/authz.rego": {Data: []byte(head + `decision := false`)}},
		"bad data":             {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)}, "a.yaml": {Data: []byte("a: [")}},
		"data no object":       {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)}, "a.yaml": {Data: []byte("[1]")}},
		"data twice":           {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)}, "a.yaml": {Data: []byte("a: 1")}, "b.json": {Data: []byte(`{"a": 2}`)}},
		"data over a rule": {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)},
			"gatehouse/authz/a.json": {Data: []byte(`{"decision": {"allow": true}}`)}},
		"failing test": {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)},
			"gatehouse/authz_test.rego": {Data: []byte("package gatehouse.authz_test\n\nimport data.gatehouse.authz\n\ntest_x if authz.decision.allow")}},
		"bad look-up": {"gatehouse/authz.rego": {Data: []byte(head + `default decision := {"allow": false}`)},
			"gatehouse/l.yaml": {Data: []byte("lookups: {order: {url: 'http://nobody/{id}', properties: {owner: /owner}}}")}},
	} {
		if _, err := engine.Open(t.Context(), engine.Options{Policies: files}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := engine.Open(t.Context(), engine.Options{}); err == nil {
		t.Error("no folder was accepted")
	}
	if _, err := engine.Open(t.Context(), engine.Options{Dir: filepath.Join(t.TempDir(), "none")}); err == nil {
		t.Error("a folder that is not there was accepted")
	}
}

// S62
func TestPoliciesThatAllowByDefaultAreRefused(t *testing.T) {
	t.Parallel()
	_, err := engine.Open(t.Context(), engine.Options{Policies: module(`decision := {"allow": true} if not input.context.nothing`)})
	if err == nil || !strings.Contains(err.Error(), "deny by default") {
		t.Errorf("error %v", err)
	}
}

// S62: nothing that reaches outside or answers differently twice.
func TestBuiltinsThatReachOutsideAreGone(t *testing.T) {
	t.Parallel()
	for _, call := range []string{
		`http.send({"method": "GET", "url": "http://127.0.0.1"}).status_code == 200`,
		`count(net.lookup_ip_addr("localhost")) > 0`,
		`opa.runtime().env.HOME != ""`,
		`time.now_ns() > 0`,
		`rand.intn("x", 2) == 1`,
		`uuid.rfc4122("x") != ""`,
	} {
		_, err := engine.Open(t.Context(), engine.Options{Policies: module(`decision := {"allow": true} if ` + call)})
		if err == nil || !strings.Contains(err.Error(), "undefined function") {
			t.Errorf("%s: %v", call, err)
		}
		_, err = engine.Open(t.Context(), engine.Options{Policies: fstest.MapFS{
			"gatehouse/authz.rego":  {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}")},
			"gatehouse/a_test.rego": {Data: []byte("package a_test\n\ntest_a if " + call)},
		}})
		if err == nil || !strings.Contains(err.Error(), "undefined function") {
			t.Errorf("in a test, %s: %v", call, err)
		}
	}
}

// S56
func TestMalformedDecisionsAreErrors(t *testing.T) {
	t.Parallel()
	for _, decision := range []string{
		`true`, `{}`, `"allow"`, `null`, `[]`,
		`{"allow": "true"}`, `{"allow": 1}`, `{"allow": null}`, `{"reasons": []}`,
		`{"allow": true, "reasons": "granted"}`, `{"allow": true, "reasons": [1]}`,
		`{"allow": true, "alow": true}`,
		`{"allow": false, "need": {}}`, `{"allow": false, "need": {"acr": 2}}`, `{"allow": false, "need": {"max_age": -1}}`,
		`{"allow": false, "need": {"max_age": 1.5}}`, `{"allow": false, "need": {"mfa": true}}`,
		`{"allow": true, "need": {"acr": "aal2"}}`,
		`{"allow": true, "obligations": []}`,
	} {
		e := open(t, engine.Options{Policies: module("decision := " + decision + ` if input.subject.id == "alice"`)})
		res, err := e.Evaluate(t.Context(), ask("x", "1"))
		t.Run(decision, func(t *testing.T) { refused(t, res, err) })
	}
}

// S56: no default here, so the decision is undefined for all but the probe at load.
func TestUndefinedDecisionIsAnError(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"a.rego": {Data: []byte("package gatehouse.authz\n\ndecision := {\"allow\": false} if input.subject.id != \"alice\"")}}
	res, err := open(t, engine.Options{Policies: files}).Evaluate(t.Context(), ask("x", "1"))
	refused(t, res, err)
}

// S56: two rules that both decide, differently.
func TestConflictingDecisionsAreAnError(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module("decision := {\"allow\": true} if input.subject.id == \"alice\"\n\ndecision := {\"allow\": false} if input.action.name == \"GET\"")})
	res, err := e.Evaluate(t.Context(), ask("x", "1"))
	refused(t, res, err)
}

// S56: a builtin that fails is no condition that does not hold; `not` would make a pass of it.
func TestFailingBuiltinsAreErrors(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if {
	input.subject.id == "alice"
	not net.cidr_contains("10.0.0.0/8", input.context.ip)
}`)})
	r := ask("x", "1")
	r.Context["ip"] = "not an address"
	res, err := e.Evaluate(t.Context(), r)
	refused(t, res, err)
}

// S56
func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	var armed bool
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true} if input.subject.id == "alice"`), Now: func() time.Time {
		if armed {
			panic("clock")
		}
		return time.Now()
	}})
	armed = true
	res, err := e.Evaluate(t.Context(), ask("x", "1"))
	refused(t, res, err)
}

func TestTimeIsTheEnginesOwn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.FixedZone("", 7200))
	e := open(t, engine.Options{Policies: module(`decision := {"allow": true, "reasons": [input.context.time]} if input.subject.id == "alice"`),
		Now: func() time.Time { return now }})
	r := ask("x", "1")
	r.Context["time"] = "1999-01-01T00:00:00Z"
	res, err := e.Evaluate(t.Context(), r)
	if err != nil || !slices.Equal(res.Context.Reasons, []string{"2026-03-03T10:00:00Z"}) {
		t.Errorf("answered %+v, %v", res.Context, err)
	}
}

func TestNeedAndObligationsAreAnswered(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: module(`decision := {
	"allow": false,
	"reasons": {"too_old", "stale"},
	"need": {"acr": "aal2", "max_age": 600},
	"obligations": {"watermark": true},
} if input.subject.id == "alice"`)})
	res, err := e.Evaluate(t.Context(), ask("x", "1"))
	if err != nil {
		t.Fatal(err)
	}
	c := res.Context
	if c.Need == nil || *c.Need != (authzen.Need{ACR: "aal2", MaxAge: 600}) || c.Obligations["watermark"] != true ||
		!slices.Equal(c.Reasons, []string{"stale", "too_old"}) || c.Revision != e.Revision() || len(c.DecisionID) != 36 {
		t.Errorf("answered %+v", c)
	}
}

// S59: who asks cannot say of a looked-up object whose it is.
func TestPropertiesOfALookedUpObjectComeFromTheLookUpAlone(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Policies: patient(t), Services: api(t)})
	r := ask("order", "18") // is not there
	r.Resource.Properties = map[string]any{"owner": "alice", "properties": map[string]any{"owner": "alice"}}
	res, err := e.Evaluate(t.Context(), r)
	if err != nil || res.Decision {
		t.Errorf("answered %+v, %v", res, err)
	}
	if res, err = e.Evaluate(t.Context(), ask("order", "17")); err != nil || !res.Decision {
		t.Errorf("her own: %+v, %v", res.Context, err)
	}
}

// S59: what was looked up before a change that was allowed decides nothing after it.
func TestAnObjectIsLookedUpAnewBehindAChange(t *testing.T) {
	t.Parallel()
	var owner atomic.Value
	owner.Store("alice")
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"owner":%q}`, owner.Load()) }))
	t.Cleanup(orders.Close)
	still := time.Now()
	e := open(t, engine.Options{Policies: patient(t), Services: map[string][]string{"orders": {orders.URL}}, Now: func() time.Time { return still }})
	read, remove := ask("order", "17"), ask("order", "17")
	remove.Action.Name = http.MethodDelete
	for _, step := range []struct {
		owner string
		r     authzen.Request
		want  bool
	}{
		{"alice", read, true},
		{"bob", read, true}, // as remembered
		{"bob", remove, true},
		{"bob", read, false},
		{"alice", read, true}, // nothing is remembered for a while
		{"bob", read, false},
	} {
		owner.Store(step.owner)
		if res, err := e.Evaluate(t.Context(), step.r); err != nil || res.Decision != step.want {
			t.Errorf("%s's, %s: %+v, %v", step.owner, step.r.Action.Name, res.Context, err)
		}
	}
}

// S56, S59: an API that cannot say whose the object is.
func TestFailedLookUpIsADenial(t *testing.T) {
	t.Parallel()
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	var log bytes.Buffer
	e := open(t, engine.Options{Policies: patient(t), Services: map[string][]string{"orders": {down.URL}}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	res, err := e.Evaluate(t.Context(), ask("order", "17"))
	if err != nil || res.Decision || !slices.Equal(res.Context.Reasons, []string{"resource_unavailable"}) {
		t.Errorf("answered %+v, %v", res.Context, err)
	}
	if !strings.Contains(log.String(), res.Context.DecisionID) {
		t.Errorf("log %s", log.String())
	}
}

// patient is the policies with a look-up deadline that a busy machine can keep.
func patient(t testing.TB) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	for _, name := range []string{"authz.rego", "roles.yaml", "conditions.yaml", "lookups.yaml"} {
		b, err := fs.ReadFile(policies.FS, "gatehouse/"+name)
		if err != nil {
			t.Fatal(err)
		}
		files["gatehouse/"+name] = &fstest.MapFile{Data: bytes.Replace(b, []byte("deadline: 20ms"), []byte("deadline: 2s"), 1)}
	}
	return files
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.After(20*time.Second), time.NewTicker(2*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// S56, S62: changed files are taken up, broken ones never replace working ones and are told.
func TestChangesAreTakenUpAndBrokenOnesAreNot(t *testing.T) {
	t.Parallel()
	dir, aside := t.TempDir(), filepath.Join(t.TempDir(), "aside")
	write := func(name, text string) { // at once, as editors do: half of a file is another policy
		t.Helper()
		if err := errors.Join(os.WriteFile(aside, []byte(text), 0o600), os.Rename(aside, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	allowing := func(user string) string {
		return "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.subject.id == \"" + user + "\"\n"
	}
	write("authz.rego", allowing("alice"))
	var log testenv.Output
	e := open(t, engine.Options{Dir: dir, Poll: 2 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	allowed := func() bool {
		res, err := e.Evaluate(t.Context(), ask("x", "1"))
		return err == nil && res.Decision
	}
	if !allowed() || e.Ready() != nil {
		t.Fatal("the first policies do not decide")
	}
	first := e.Revision()

	for name, broken := range map[string]string{
		"syntax error": "package gatehouse.authz\n\ndecision := {",
		"empty":        "",
		"allows all":   "package gatehouse.authz\n\ndecision := {\"allow\": true}\n",
	} {
		write("authz.rego", broken)
		eventually(t, name+" is told", func() bool { return e.Ready() != nil })
		if !errors.Is(e.Ready(), fault.New(fault.Unavailable, "").Named("degraded")) || strings.Contains(e.Ready().Error(), "\n") {
			t.Errorf("%s: %v", name, e.Ready())
		}
		if !allowed() || e.Revision() != first {
			t.Errorf("%s replaced a policy that worked", name)
		}
		if !strings.Contains(log.String(), "policies not loaded") {
			t.Errorf("%s is not in the log", name)
		}
		write("authz.rego", allowing("alice"))
		eventually(t, "the first policies are back", func() bool { return e.Ready() == nil })
	}

	write("authz.rego", allowing("bob"))
	eventually(t, "the change decides", func() bool { return e.Revision() != first })
	if allowed() || e.Ready() != nil {
		t.Errorf("the old policies decide still; %v", e.Ready())
	}
	write("authz_test.rego", "package t_test\n\ntest_never if 1 == 2\n")
	eventually(t, "a failing test is told", func() bool { return e.Ready() != nil })
	if !strings.Contains(e.Ready().Error(), "test_never") {
		t.Errorf("%v does not name the test", e.Ready())
	}
	if err := os.Remove(filepath.Join(dir, "authz_test.rego")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "without the test all is well", func() bool { return e.Ready() == nil })
	for _, name := range []string{"authz.rego", "."} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a removed "+name+" is told", func() bool { return e.Ready() != nil })
	}
	if res, err := e.Evaluate(t.Context(), authzen.Request{Subject: authzen.Subject{Type: "user", ID: "bob"}}); err != nil || !res.Decision {
		t.Errorf("without files the last policies no longer decide: %+v, %v", res, err)
	}
}

// Decisions while the policies change are by one of the two revisions, whole.
func TestDecisionsDuringReloadsAreNeverMixed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(owner string) {
		text := "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true, \"reasons\": [\"" + owner + "\", data.owner]} if input.subject.id == \"alice\"\n"
		if err := errors.Join(os.WriteFile(filepath.Join(dir, "a.rego"), []byte(text), 0o600),
			os.WriteFile(filepath.Join(dir, "a.json"), []byte(`{"owner":"`+owner+`"}`), 0o600)); err != nil {
			t.Error(err)
		}
	}
	write("a")
	e := open(t, engine.Options{Dir: dir})
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				res, err := e.Evaluate(t.Context(), ask("x", "1"))
				if err != nil || !res.Decision || res.Context.Reasons[0] != res.Context.Reasons[1] {
					t.Errorf("answered %+v, %v", res.Context, err)
					return
				}
			}
		})
	}
	for i := range 20 {
		write([]string{"a", "b"}[i%2])
		if err := e.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	close(done)
	wg.Wait()
}

// BenchmarkEvaluate is a decision of policies/, made and remembered.
func BenchmarkEvaluate(b *testing.B) {
	r := ask("order", "/orders")
	r.Subject.Properties = map[string]any{
		"roles": []string{"customer"}, "groups": []string{}, "tenant": "", "session": "s1", "attributes": map[string]any{"department": "sales"},
		"claims": map[string]any{"iss": "http://127.0.0.1:8081", "client_id": "first-party", "scope": []string{"openid"}, "acr": "aal1", "amr": []string{"pwd"}},
	}
	r.Resource.Properties = map[string]any{"path": "/orders", "segments": []string{"orders"}, "route": "orders", "params": map[string]any{}}
	for name, memory := range map[string]int{"made": -1, "remembered": 0} {
		e, err := engine.Open(b.Context(), engine.Options{
			Policies: patient(b), Services: map[string][]string{"orders": {"http://127.0.0.1:1"}}, Memory: memory, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			b.Fatal(err)
		}
		defer e.Close()
		for result, method := range map[string]string{"allow": "GET", "deny": "PATCH"} {
			b.Run(name+"/"+result, func(b *testing.B) {
				r.Action.Name = method
				b.ReportAllocs()
				for b.Loop() {
					if res, err := e.Evaluate(b.Context(), r); err != nil || res.Decision != (method == "GET") {
						b.Fatal(res, err)
					}
				}
			})
		}
	}
}
