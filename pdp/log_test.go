package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// logFile writes a configuration of the decision log in which $DIR is a folder of the test's own.
func logFile(t *testing.T, text string) (path, dir string) {
	t.Helper()
	dir = t.TempDir()
	path = filepath.Join(dir, "log.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "$DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, dir
}

// recordsIn reads a file of records.
func recordsIn(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, m)
	}
	return all
}

// at finds a value within a record.
func at(t *testing.T, v any, path ...string) any {
	t.Helper()
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[name]
	}
	return v
}

const canary = "canary-value"

// S67: what is asked of the program is in the file that its configuration names, by masks and rates, when it has ended.
func TestDecisionsAreRecordedAsConfigured(t *testing.T) {
	t.Parallel()
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"owner":"bob","note":"`+canary+`"}`) }))
	t.Cleanup(api.Close)
	policies, _ := folder(t, rules("invoice")+"\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n")
	lookups := "lookups:\n  order:\n    url: http://orders/{id}\n    properties: {owner: /owner, note: /note}\n    ttl: 1s\n    deadline: 2s\n"
	if err := os.WriteFile(filepath.Join(policies, "gatehouse", "lookups.yaml"), []byte(lookups), 0o600); err != nil {
		t.Fatal(err)
	}
	file, dir := logFile(t, `
spool: {dir: $DIR/spool, size: 16MiB, when_full: block, sync: always}
labels: {region: eu}
sample: {default: 0, routes: {invoices: 1}}
masks:
  - erase: /gatehouse/looked_up/note
  - replace: /input/context/ip
    with: 0.0.0.0
sinks:
  - file: $DIR/decisions.jsonl
`)
	p := start(t, "-policies", policies, "-services", "orders="+api.URL, "-decision-log", file)
	ask := func(kind, route string) authzen.Response {
		client, err := authzen.NewClient(p.url, patience)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		res, err := client.Evaluate(t.Context(), authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{"claims": map[string]any{"id_token": canary}}},
			Action:  authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: kind, ID: "17", Properties: map[string]any{"route": route}},
			Context: map[string]any{"ip": canary},
		})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	denied := ask("order", "orders")
	ask("invoice", "others")
	allowed := ask("invoice", "invoices")
	if denied.Decision || !allowed.Decision {
		t.Fatalf("%+v, %+v", denied, allowed)
	}
	told := p.stop(t)
	records := recordsIn(t, filepath.Join(dir, "decisions.jsonl"))
	if len(records) != 2 {
		t.Fatalf("recorded %v", records)
	}
	first, second := records[0], records[1]
	if at(t, first, "decision_id") != denied.Context.DecisionID || at(t, first, "gatehouse", "outcome") != "not_applicable" || at(t, first, "gatehouse", "looked_up", "owner") != "bob" ||
		at(t, first, "gatehouse", "evaluated_by") != "native" || at(t, first, "input", "subject", "id") != "ann" || at(t, first, "labels", "region") != "eu" ||
		at(t, first, "labels", "app") != "gatehouse-pdp" || at(t, first, "bundles", "policies", "revision") != denied.Context.Revision || at(t, first, "requested_by") == nil ||
		len(fmt.Sprint(at(t, first, "trace_id"))) != 32 || fmt.Sprint(at(t, first, "gatehouse", "rules")) != "[gatehouse.authz.decision#default]" ||
		!slices.Equal(denied.Context.Rules, []string{"gatehouse.authz.decision#default"}) {
		t.Errorf("recorded %v", first)
	}
	if at(t, second, "decision_id") != allowed.Context.DecisionID || at(t, second, "result", "allow") != true || at(t, second, "input", "context", "ip") != "0.0.0.0" ||
		at(t, second, "gatehouse", "rules") != nil || allowed.Context.Rules != nil {
		t.Errorf("recorded %v", second)
	}
	if strings.Contains(told, `"denied"`) || strings.Contains(told+fmt.Sprint(records), canary) {
		t.Errorf("told\n%s%v", told, records)
	}
}

// S67: of OPA's Data API too; the enforcement point is named, and metrics tell how the log is.
func TestDocumentsAreRecordedAndCounted(t *testing.T) {
	t.Parallel()
	file, dir := logFile(t, `
spool: {dir: $DIR/spool}
sample: {routes: {gatehouse/open: 1}}
masks: [{erase: /input/who}]
sinks: [{file: $DIR/log}]
`)
	tokens := filepath.Join(dir, "tokens")
	const token = "0123456789abcdef0123456789abcdef"
	if err := os.WriteFile(tokens, []byte("edge-1 "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	policies, _ := folder(t, rules("order")+"\nclosed := false\n\nopen := true\n\nlist := [input.who, input.password]\n")
	p := start(t, "-policies", policies, "-decision-log", file, "-data-paths", "/", "-tokens-file", tokens)
	get := func(path string) string {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/data/gatehouse/authz/"+path, strings.NewReader(`{"input":{"who":"`+canary+`","password":"`+canary+`"}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		res, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", path, res.StatusCode, body)
		}
		return string(body)
	}
	for _, path := range []string{"open", "closed", "missing", "decision"} { // the first is allowed, and not sampled
		get(path)
	}
	res, err := p.client.Get(p.status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil || !strings.Contains(string(text), `gatehouse_pdp_decision_log_records_total{outcome="not_applicable"} 2`) ||
		!strings.Contains(string(text), `gatehouse_pdp_decision_log_lag_seconds{sink="file"}`) {
		t.Errorf("metrics %v\n%s", err, text)
	}
	p.stop(t)
	records := recordsIn(t, filepath.Join(dir, "log"))
	if len(records) != 3 || strings.Contains(fmt.Sprint(records), canary) {
		t.Fatalf("recorded %v", records)
	}
	for i, want := range []struct{ path, outcome, rules string }{
		{"gatehouse/authz/closed", "deny", "[gatehouse.authz.closed]"}, {"gatehouse/authz/missing", "not_applicable", "<nil>"}, {"gatehouse/authz/decision", "not_applicable", "[gatehouse.authz.decision#default]"},
	} {
		if r := records[i]; at(t, r, "path") != want.path || at(t, r, "gatehouse", "outcome") != want.outcome || at(t, r, "gatehouse", "pep") != "edge-1" || fmt.Sprint(at(t, r, "gatehouse", "rules")) != want.rules {
			t.Errorf("recorded %v", r)
		}
	}
	if r := records[2]; at(t, r, "result", "allow") != false || fmt.Sprint(at(t, r, "result", "reasons")) != "[no_rule]" { // as OPA records it
		t.Errorf("recorded %v", r)
	}
}

// S67: a search is one record, with who asked, for what, and what was told.
func TestSearchesAreRecorded(t *testing.T) {
	t.Parallel()
	file, dir := logFile(t, "spool: {dir: $DIR/spool}\nmasks: [{erase: /input/context}]\nsinks: [{file: $DIR/log}]\n")
	policies, _ := folder(t, rules("order")+"\ndecision := {\"allow\": true} if input.action.name == \"GET\"\n")
	search := "package gatehouse.search\n\nactions := {\"complete\": true, \"candidates\": [{\"name\": n} | some n in [\"GET\", \"PUT\"]]}\n"
	if err := os.WriteFile(filepath.Join(policies, "gatehouse", "search.rego"), []byte(search), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-policies", policies, "-decision-log", file, "-search-callers", "*")
	var found authzen.SearchResponse
	postJSON(t, p.url+authzen.SearchActionPath, []byte(`{"subject":{"type":"user","id":"ann"},"resource":{"type":"invoice","id":"17"},"context":{"note":"`+canary+`"}}`), &found)
	if len(found.Results) != 1 || found.Results[0].Name != "GET" {
		t.Errorf("found %+v", found)
	}
	p.stop(t)
	records := recordsIn(t, filepath.Join(dir, "log"))
	if len(records) != 1 || strings.Contains(fmt.Sprint(records), canary) {
		t.Fatalf("recorded %v", records)
	}
	r := records[0]
	if at(t, r, "path") != "access/v1/search/action" || at(t, r, "decision_id") != found.Context.DecisionID || at(t, r, "input", "subject", "id") != "ann" ||
		at(t, r, "gatehouse", "outcome") != decisionlog.Document || !strings.Contains(fmt.Sprint(at(t, r, "result", "results")), "GET") {
		t.Errorf("recorded %v", r)
	}
}

// S56, S67: with when_full: fail no decision is answered that is not recorded.
func TestADecisionThatCannotBeRecordedIsRefused(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(gone.Close)
	file, _ := logFile(t, "spool: {dir: $DIR/spool, size: 1MiB, when_full: fail}\nsample: {default: 1}\nsinks: [{http: "+gone.URL+"}]\n")
	policies, _ := folder(t, rules("order"))
	p := start(t, "-policies", policies, "-decision-log", file)
	body := `{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"order","id":"17"},"context":{"x":"` + strings.Repeat("x", 50_000) + `"}}`
	for i := 0; ; i++ {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+authzen.Path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		res, err := p.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode == http.StatusOK && i < 100 {
			continue
		}
		if status, text := p.get(t, "/readyz"); status != http.StatusOK || !strings.Contains(text, `"degraded"`) || !strings.Contains(text, "cannot be recorded") {
			t.Errorf("readyz: %d %s", status, text)
		}
		var problem struct {
			Code       string `json:"code"`
			DecisionID string `json:"decision_id"`
		}
		if err := json.Unmarshal(answer, &problem); err != nil || res.StatusCode != http.StatusServiceUnavailable || problem.Code != "decision_log_unavailable" || problem.DecisionID == "" {
			t.Errorf("answered %d %s", res.StatusCode, answer)
		}
		break
	}
}

// undecided is an engine that fails.
type undecided struct{ server.Engine }

func (undecided) Evaluate(context.Context, authzen.Request) (authzen.Response, error) {
	return authzen.Response{Context: &authzen.ResponseContext{DecisionID: "d-1"}}, errors.New(canary)
}

func TestAFailureToDecideIsRecordedAsOne(t *testing.T) {
	t.Parallel()
	file, dir := logFile(t, "spool: {dir: $DIR/spool}\nsinks: [{file: $DIR/log}]\n")
	d, err := recording.Open("gatehouse-pdp", file, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	if _, err := d.Engine(undecided{}).Evaluate(t.Context(), authzen.Request{}); err == nil || err.Error() != canary {
		t.Errorf("answered %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	records := recordsIn(t, filepath.Join(dir, "log"))
	if len(records) != 1 || at(t, records[0], "gatehouse", "outcome") != decisionlog.Indeterminate || at(t, records[0], "error", "code") != "internal" ||
		strings.Contains(fmt.Sprint(records), canary) {
		t.Errorf("recorded %v", records)
	}
}

// Not parallel: the signal is for the whole process.
func TestSIGHUPOpensTheFileAnew(t *testing.T) {
	guard := make(chan os.Signal, 8)
	signal.Notify(guard, syscall.SIGHUP) // it would end the process while nobody listens
	defer signal.Stop(guard)
	file, dir := logFile(t, "spool: {dir: $DIR/spool}\nsinks: [{file: $DIR/log}]\n")
	policies, _ := folder(t, rules("order"))
	p := start(t, "-policies", policies, "-decision-log", file)
	path := filepath.Join(dir, "log")
	lines := func(path string) int {
		text, _ := os.ReadFile(path)
		return strings.Count(string(text), "\n")
	}
	deny := func() {
		if _, err := p.ask(t, "invoice", "1"); err != nil {
			t.Fatal(err)
		}
	}
	deny()
	await.That(t, "it is written", func() bool { return lines(path) == 1 })
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	<-guard
	deny()
	await.That(t, "the next is in a new file", func() bool { return lines(path) == 1 && lines(path+".1") == 1 })
	p.stop(t)
}

func TestAWrongDecisionLogSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                            "it is empty",
		"spool: {dir: x}\nspol: {}\n": "line 2: field spol not found",
		"spool: {dir: $DIR/s, size: many}\nsinks: [{file: $DIR/x}]":                                                   "line 1: a size is",
		"sinks: [{file: $DIR/x}]":                                                                                     "spool.dir: is needed",
		"spool: {dir: $DIR/s}":                                                                                        "sinks: at least one",
		"spool: {dir: $DIR/s, when_full: ignore}\nsinks: [{file: $DIR/x}]":                                            "spool.when_full: block, drop or fail",
		"spool: {dir: $DIR/s, sync: often}\nsinks: [{file: $DIR/x}]":                                                  "spool.sync: always",
		"spool: {dir: $DIR/s, wait: soon}\nsinks: [{file: $DIR/x}]":                                                   "spool.wait: a time",
		"spool: {dir: $DIR/s, wait: 1s, when_full: drop}\nsinks: [{file: $DIR/x}]":                                    "for when_full: block",
		"spool: {dir: $DIR/s, size: 4KiB}\nsinks: [{file: $DIR/x}]":                                                   "at least 1048576 bytes",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/none/x}]":                                                          "sinks[0]: file: open",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/x, http: 'https://x'}]":                                            "sinks[0]: one of file, http, nats, postgres_url_file, kafka, rabbitmq",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/x}, {file: $DIR/y}]":                                               "there is a sink file already",
		"spool: {dir: $DIR/s}\nsinks: [{http: 'http://elsewhere.example'}]":                                           "sinks[0]: http: plain http",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/x, token_file: y}]":                                                "token_file is not for file",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/x, subject: y}]":                                                   "subject is not for file",
		"spool: {dir: $DIR/s}\nsinks: [{kafka: [k.example:9093], topic: y, user: z}]":                                 "user and password_file belong together",
		"spool: {dir: $DIR/s}\nsinks: [{kafka: [k.example:9093], topic: y, routing_key: z}]":                          "routing_key is not for kafka",
		"spool: {dir: $DIR/s}\nsinks: [{rabbitmq: 'amqp://mq.example', routing_key: y, user: z, password_file: z}]":   "use amqps://",
		"spool: {dir: $DIR/s}\nsinks: [{rabbitmq: 'amqps://mq.example', topic: y}]":                                   "topic is not for rabbitmq",
		"spool: {dir: $DIR/s}\nsinks: [{nats: 'nats://n.example', subject: y}]":                                       "use tls://",
		"spool: {dir: $DIR/s}\nsinks: [{nats: 'tls://n.example', subject: y, ca_file: $DIR/nowhere}]":                 "nowhere: no such file",
		"spool: {dir: $DIR/s}\nsinks: [{http: 'https://x', token_file: y}]":                                           "no such file",
		"spool: {dir: $DIR/s}\nsinks: [{postgres_url_file: $DIR/none}]":                                               "no such file",
		"spool: {dir: $DIR/s}\nsinks: [{file: $DIR/x, name: ../x}]":                                                   "letters, digits",
		"spool: {dir: $DIR/s}\nsample: {default: 2}\nsinks: [{file: $DIR/x}]":                                         "default: a rate is from 0 to 1",
		"spool: {dir: $DIR/s}\nmasks: [{erase: input}]\nsinks: [{file: $DIR/x}]":                                      `masks: mask "input" is not a JSON Pointer`,
		"spool: {dir: $DIR/s}\nmasks: [{erase: /input/a, replace: /input/b}]\nsinks: [{file: $DIR/x}]":                "either erase or replace",
		"spool: {dir: $DIR/s}\nmask_policy: $DIR/log.yaml\nsinks: [{file: $DIR/x}]":                                   "mask_policy: ",
		"spool: {dir: $DIR/s}\nmasks: [{replace: /input/b}]\nsinks: [{file: $DIR/x}]":                                 "replace has a with",
		"spool: {dir: $DIR/s, when_full: x, sync: y}\nsample: {routes: {a: -1}}\nmasks: [{erase: /x}]\nsinks: [{}]\n": "spool.when_full", // and all the others
	} {
		file, _ := logFile(t, text)
		_, err := recording.Open("gatehouse-pdp", file, slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "decision log: ") {
			t.Errorf("%q:\n%v", text, err)
		}
		if strings.Contains(text, "routes: {a: -1}") && len(strings.Split(err.Error(), "\n")) != 6 {
			t.Errorf("not all of it is told: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := run(ctx, []string{"serve", "-decision-log", "/none.yaml"}, func(string) string { return "" }, io.Discard); err == nil || ctx.Err() != nil {
		t.Errorf("it starts: %v", err)
	}
}

// What docs/decision-log.md shows is what the program takes and makes.
func TestTheDocumentationHolds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "docs", "decision-log.md"))
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string) string {
		_, rest, _ := strings.Cut(string(text), "\n```"+kind+"\n")
		within, _, ok := strings.Cut(rest, "```\n")
		if !ok {
			t.Fatalf("no %s", kind)
		}
		return within
	}
	if block("sql") != sink.Schema {
		t.Error("the table is another one")
	}
	config := block("yaml")
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("postgres://log@127.0.0.1/log\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(filepath.Dir(secret), "mask.rego")
	if err := os.WriteFile(policy, []byte(block("rego")), 0o600); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"/etc/gatehouse/mask.rego":        policy,
		"/var/lib/gatehouse/decision-log": "$DIR/spool", "/var/log/gatehouse": "$DIR", "/run/secrets/collector-token": secret, "/run/secrets/nats.creds": secret, "/run/secrets/decision-log-url": secret, "/run/secrets/kafka": secret, "/run/secrets/rabbitmq": secret,
	} {
		config = strings.ReplaceAll(config, from, to)
	}
	file, _ := logFile(t, config)
	opts, err := recording.ReadConfig(file)
	if err != nil || len(opts.Sinks) != 6 || opts.MaskBy == nil {
		t.Errorf("%d sinks, %v", len(opts.Sinks), err)
	}
	for _, s := range opts.Sinks {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	d := json.NewDecoder(strings.NewReader(block("json")))
	d.DisallowUnknownFields()
	var record struct {
		Labels, Bundles, Input, Result, Metrics, Gatehouse map[string]any
		ID                                                 string `json:"decision_id"`
		TraceID                                            string `json:"trace_id"`
		Timestamp, Path                                    string
		RequestedBy                                        string `json:"requested_by"`
		Erased, Masked                                     []string
	}
	if err := d.Decode(&record); err != nil {
		t.Error(err)
	}
}
