package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/spans"
)

// post sends a body with headers and answers the status.
func (p *program) post(t *testing.T, path, body string, headers ...string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := p.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// S67: spans tell of decisions by names and codes, and of nothing that is asked about.
func TestDecisionsAreSpansOfTheCallersTrace(t *testing.T) {
	t.Parallel()
	const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	to := spans.Receive(t)
	dir, _ := folder(t, rules("order"))
	p := start(t, "-policies", dir, "-data-paths", "/", "-traces", to.URL)
	const one = `{"subject":{"type":"user","id":"canary-ann"},"action":{"name":"GET"},"resource":{"type":"order","id":"canary-17"},"context":{"ip":"192.0.2.7"}}`
	const two = `{"subject":{"type":"user","id":"canary-ann"},"action":{"name":"GET"},"evaluations":[{"resource":{"type":"order","id":"1"}},{"resource":{"type":"invoice","id":"2"}}]}`
	if status := p.post(t, "/access/v1/evaluation", one, "Traceparent", parent, "Tracestate", "v=canary-state"); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	p.post(t, "/access/v1/evaluations", two, "Traceparent", strings.Replace(parent, trace, strings.Repeat("b", 32), 1))
	p.post(t, "/access/v1/evaluation", "canary-body", "Traceparent", strings.Replace(parent, trace, strings.Repeat("c", 32), 1))
	p.post(t, "/v1/data/canary-document/x", `{"input":{"secret":"canary-input"}}`, "Traceparent", strings.Replace(parent, trace, strings.Repeat("d", 32), 1))
	p.post(t, "/access/v1/evaluation", one, "Traceparent", strings.Replace(parent[:53]+"00", trace, strings.Repeat("e", 32), 1)) // not kept
	p.post(t, "/access/v1/evaluation", one, "Traceparent", "canary-trace")
	p.get(t, "/healthz")
	p.stop(t) // sends what waits
	by := map[string][]spans.Span{}
	names := map[string]string{}
	for _, s := range to.Spans() {
		by[s.Trace] = append(by[s.Trace], s)
		names[s.Trace] += s.Name + " "
	}
	all := by[trace]
	pdp, decide := spans.Named(t, all, "gatehouse-pdp", "pdp"), spans.Named(t, all, "gatehouse-pdp", "decide")
	if pdp.Parent != "00f067aa0ba902b7" || decide.Parent != pdp.ID || spans.Named(t, all, "gatehouse-pdp", "evaluate").Parent != decide.ID {
		t.Errorf("%+v", all)
	}
	if pdp.Attributes["http.route"] != "/access/v1/evaluation" || pdp.Attributes["http.response.status_code"] != "200" || decide.Attributes["gatehouse.outcome"] != "permit" {
		t.Errorf("%v %v", pdp.Attributes, decide.Attributes)
	}
	for id, want := range map[string]string{"b": "evaluate decide evaluate decide pdp ", "c": "pdp ", "d": "evaluate decide pdp "} {
		if got := names[strings.Repeat(id, 32)]; got != want {
			t.Errorf("trace %s: %q", id, got)
		}
	}
	if s := by[strings.Repeat("c", 32)]; len(s) == 1 && s[0].Attributes["http.response.status_code"] != "400" {
		t.Errorf("%+v", s)
	}
	if len(by) != 5 || len(by[strings.Repeat("e", 32)]) > 0 {
		t.Errorf("%d traces: %v", len(by), names)
	}
	bodies, _ := to.Sent()
	for _, body := range bodies {
		for _, secret := range []string{"canary", "192.0.2.7", "127.0.0.1"} {
			if strings.Contains(string(body), secret) {
				t.Errorf("a span holds %q", secret)
			}
		}
	}
}

func TestDecisionsAreMadeWhileNobodyTakesSpans(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	p := start(t, "-policies", dir, "-traces", "http://127.0.0.1:1")
	for range 5 {
		if res, err := p.ask(t, "order", "17"); err != nil || !res.Decision {
			t.Errorf("%+v, %v", res, err)
		}
	}
	res, err := p.client.Get(p.status + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `gatehouse_spans_total{result="dropped"}`) {
		t.Errorf("%v %s", err, body)
	}
	p.stop(t)
}
