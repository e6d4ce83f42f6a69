package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/spans"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

const (
	theirTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	theirParent = "00-" + theirTrace + "-00f067aa0ba902b7-01"
)

// traced starts everything with spans that go to what it answers.
func (w *bench) traced(t *testing.T) (to *spans.Receiver, counts *counter) {
	t.Helper()
	to = spans.Receive(t)
	for service, tracer := range map[string]**tracing.Tracer{"gatehouse-plugin": &w.edge, "gatehouse-pdp": &w.pdp} {
		var err error
		*tracer, err = tracing.New(tracing.Options{To: to.URL, Service: service, Delay: time.Millisecond, Lookup: os.LookupEnv, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*tracer).Close)
	}
	return to, w.counted(t)
}

// One trace goes from the client over each of the edge's stages and the decision point to the upstream, and costs Kong no call more.
// S67: neither a token, a cookie, a query nor what the client says of the trace beside its id is in a span.
func TestOneTraceShowsTheEdgeAndTheDecisionPoint(t *testing.T) {
	t.Parallel()
	w := newBench(t)
	to, counts := w.traced(t)
	counts.calls.Store(0)
	counts.writes.Store(0)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+"/orders/"+w.order+"?q=canary-query", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + w.token, "Cookie": "c=canary-cookie", "User-Agent": "canary-agent", "X-Any": "canary-header",
		"Traceparent": theirParent, "Tracestate": "v=canary-state", "Baggage": "b=canary-baggage",
	} {
		req.Header.Set(name, value)
	}
	res, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	ours := func(all []spans.Span) (found []spans.Span) {
		for _, s := range all {
			if s.Trace == theirTrace {
				found = append(found, s)
			}
		}
		return found
	}
	all := ours(to.Until(t, "ten spans of one trace", func(all []spans.Span) bool { return len(ours(all)) >= 10 }))
	guard := spans.Named(t, all, "gatehouse-plugin", "guard")
	if guard.Parent != "00f067aa0ba902b7" || !guard.Server {
		t.Errorf("the edge's span is below %q", guard.Parent)
	}
	for name, want := range map[string]string{"gatehouse.route": "orders", "gatehouse.decision": "allowed", "gatehouse.reason": "allowed", "gatehouse.stage": "forward"} {
		if guard.Attributes[name] != want {
			t.Errorf("%s is %q", name, guard.Attributes[name])
		}
	}
	for _, stage := range []string{"identify", "alive", "limit", "authorize", "forward"} { // the route has no challenge
		if s := spans.Named(t, all, "gatehouse-plugin", stage); s.Parent != guard.ID || s.Failed {
			t.Errorf("%+v is not below %s", s, guard.ID)
		}
	}
	pdp, decide := spans.Named(t, all, "gatehouse-pdp", "pdp"), spans.Named(t, all, "gatehouse-pdp", "decide")
	if authorize := spans.Named(t, all, "gatehouse-plugin", "authorize"); pdp.Parent != authorize.ID || !pdp.Server || decide.Parent != pdp.ID {
		t.Errorf("%+v and %+v are not below %s", pdp, decide, authorize.ID)
	}
	if pdp.Attributes["http.response.status_code"] != "200" || pdp.Attributes["http.route"] != "/access/v1/evaluation" || decide.Attributes["gatehouse.outcome"] != "permit" {
		t.Errorf("%v, %v", pdp.Attributes, decide.Attributes)
	}
	for _, part := range []string{"lookup", "evaluate"} {
		if s := spans.Named(t, all, "gatehouse-pdp", part); s.Parent != decide.ID {
			t.Errorf("%+v is not below %s", s, decide.ID)
		}
	}
	if len(all) != 10 {
		t.Errorf("%d spans: %+v", len(all), all)
	}
	if calls, writes := counts.calls.Load(), counts.writes.Load(); calls > 3 || writes > 2 {
		t.Errorf("%d calls in %d writes", calls, writes)
	}
	w.carriesNothing(t, to)
}

func (w *bench) carriesNothing(t *testing.T, to *spans.Receiver) {
	t.Helper()
	bodies, _ := to.Sent()
	sent := bytes.Join(bodies, nil)
	for _, secret := range append([]string{"canary", "/orders/" + w.order, "192.0.2", "Bearer", "127.0.0.1"}, strings.Split(w.token, ".")...) {
		if bytes.Contains(sent, []byte(secret)) {
			t.Errorf("a span holds %q", secret)
		}
	}
}
