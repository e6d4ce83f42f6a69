package tracing_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/spans"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
)

func environment(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

func open(t *testing.T, o tracing.Options) *tracing.Tracer {
	t.Helper()
	if o.Lookup == nil {
		o.Lookup = environment()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Service = "test"
	tr, err := tracing.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func TestATraceIsContinuedAndItsSpansSent(t *testing.T) {
	t.Parallel()
	to := spans.Receive(t)
	tr := open(t, tracing.Options{To: to.URL})
	ctx, above := tr.Continue(t.Context(), parent, "event")
	within, below, kept := tr.Child(ctx, "stage")
	if !kept || !strings.HasPrefix(tracing.Traceparent(within), "00-"+trace+"-") || !strings.HasSuffix(tracing.Traceparent(within), "-01") {
		t.Errorf("kept %v, traceparent %s", kept, tracing.Traceparent(within))
	}
	below.End()
	above.End()
	tr.Close() // sends what waits
	all := to.Spans()
	event, stage := spans.Named(t, all, "test", "event"), spans.Named(t, all, "test", "stage")
	if event.Trace != trace || event.Parent != "00f067aa0ba902b7" || !event.Server || stage.Trace != trace || stage.Parent != event.ID || stage.Server {
		t.Errorf("%+v", all)
	}
	if event.Resource("service.namespace") != "gatehouse" || event.Began == 0 || event.Ended < event.Began {
		t.Errorf("%+v", event)
	}
	bodies, _ := to.Sent()
	var request collector.ExportTraceServiceRequest // what a collector takes it for
	if err := proto.Unmarshal(bodies[0], &request); err != nil || len(request.GetResourceSpans()) != 1 || len(request.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("a collector would not read it: %v", err)
	}
	if n := count(t, tr, "exported"); n != 2 {
		t.Errorf("%v exported", n)
	}
}

// What a client says of a trace is believed only if all of it is well-formed.
func TestAMalformedTraceparentBeginsANewTrace(t *testing.T) {
	t.Parallel()
	tr := open(t, tracing.Options{To: "http://127.0.0.1:1"})
	for _, header := range []string{
		"", "x", parent + "-more", strings.ToUpper(parent), "ff" + parent[2:], strings.Replace(parent, trace, strings.Repeat("0", 32), 1),
		strings.Replace(parent, "00f067aa0ba902b7", strings.Repeat("0", 16), 1), parent + "," + parent, parent[:54],
	} {
		ctx, span := tr.Continue(t.Context(), header, "event")
		if got := tracing.Traceparent(ctx); strings.Contains(strings.ToLower(header), got[3:35]) || len(got) != 55 || !strings.HasSuffix(got, "-01") {
			t.Errorf("%q is continued as %s", header, got)
		}
		span.End()
	}
}

func TestWhoeverBeganATraceDecidesWhetherItIsKept(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sampler, ratio, flag string
		kept                 bool
	}{
		{"", "", "-01", true},
		{"", "", "-00", false},
		{"", "0", "-01", true},
		{"parentbased_traceidratio", "0", "-01", true},
		{"parentbased_always_off", "", "-00", false},
		{"traceidratio", "0", "-01", false}, // nobody outside is asked
		{"traceidratio", "1", "-00", true},
		{"always_off", "", "-01", false},
		{"always_on", "", "-00", true},
		{"parentbased_always_on", "", "", true},
		{"", "0", "", false},
		{"", "", "", true},
	} {
		tr := open(t, tracing.Options{To: "http://127.0.0.1:1", Lookup: environment("OTEL_TRACES_SAMPLER", c.sampler, "OTEL_TRACES_SAMPLER_ARG", c.ratio)})
		header := ""
		if c.flag != "" {
			header = parent[:52] + c.flag
		}
		ctx, span := tr.Continue(t.Context(), header, "event")
		_, below, kept := tr.Child(ctx, "stage")
		if kept {
			below.End()
		}
		flag := tracing.Traceparent(ctx)[52:]
		if kept != c.kept || (flag == "-01") != c.kept {
			t.Errorf("%+v: kept %v, passed on as %s", c, kept, flag)
		}
		span.End()
		tr.Close()
	}
}

func TestConfigurationsThatCannotWorkAreRefusedWithoutTheirValues(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to       string
		variable []string
		want     string
	}{
		{"http://u:canary@c:4318", nil, "traces"},
		{"ftp://canary", nil, "traces"},
		{"canary", nil, "traces"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:canary@c"}, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_HEADERS", "canary"}, "OTEL_EXPORTER_OTLP_HEADERS"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=canary%0d"}, "OTEL_EXPORTER_OTLP_TRACES_HEADERS"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_TIMEOUT", "canary"}, "OTEL_EXPORTER_OTLP_TIMEOUT"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_CERTIFICATE", empty}, "OTEL_EXPORTER_OTLP_CERTIFICATE"},
		{"otlp", []string{"OTEL_TRACES_SAMPLER", "canary"}, "OTEL_TRACES_SAMPLER"},
		{"otlp", []string{"OTEL_TRACES_SAMPLER_ARG", "2"}, "OTEL_TRACES_SAMPLER_ARG"},
		{"otlp", []string{"OTEL_TRACES_SAMPLER_ARG", "NaN"}, "OTEL_TRACES_SAMPLER_ARG"},
	} {
		_, err := tracing.New(tracing.Options{To: c.to, Lookup: environment(c.variable...), Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.HasPrefix(err.Error(), c.want+": ") || strings.Contains(err.Error(), "canary") {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for _, off := range []string{"", "none"} {
		if tr, err := tracing.New(tracing.Options{To: off}); tr != nil || err != nil {
			t.Errorf("%q: %v, %v", off, tr, err)
		}
	}
}

func TestOpenTelemetrysVariablesSayWhere(t *testing.T) {
	t.Parallel()
	to := spans.Receive(t)
	for _, variables := range [][]string{
		{"OTEL_EXPORTER_OTLP_ENDPOINT", to.URL + "/", "OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b , x-other=c", "OTEL_EXPORTER_OTLP_TIMEOUT", "9000"},
		{"OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", to.URL + "/v1/traces"},
	} {
		tr := open(t, tracing.Options{To: tracing.OTLP, Lookup: environment(variables...)})
		_, span := tr.Continue(t.Context(), "", "event")
		span.End()
		tr.Close()
	}
	_, headers := to.Sent()
	if len(headers) != 2 || headers[0].Get("X-Key") != "a b" || headers[0].Get("X-Other") != "c" {
		t.Errorf("%v", headers)
	}
}

// A receiver that is away, refuses or hangs costs spans, which are counted, and nothing else: not even the program's end.
func TestAReceiverThatIsAwayCostsNothingButSpans(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]http.HandlerFunc{
		"away":    nil,
		"refuses": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
		"sends elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := "http://" + nowhere(t)
			if serve != nil {
				server := httptest.NewServer(serve)
				t.Cleanup(server.Close)
				to = server.URL
			}
			var out testenv.Output
			tr := open(t, tracing.Options{To: to, Delay: time.Millisecond, Log: telemetry.Logger(&out, slog.LevelInfo)})
			for range 3 {
				_, span := tr.Continue(t.Context(), "", "event")
				span.End()
			}
			tr.Close()
			if n := count(t, tr, "failed"); n != 3 {
				t.Errorf("%v failed", n)
			}
			if lines := strings.Count(out.String(), "spans are lost"); lines != 1 {
				t.Errorf("%d lines: %s", lines, out.String())
			}
		})
	}
}

func TestAReceiverThatHangsFillsTheQueueAndNoMore(t *testing.T) {
	t.Parallel()
	asked, hang := make(chan struct{}, 1), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	tr := open(t, tracing.Options{To: server.URL, Queue: 4, Delay: time.Millisecond})
	one := func() {
		_, span := tr.Continue(t.Context(), "", "event")
		span.End()
	}
	one()
	<-asked
	for range 9 {
		one()
	}
	if dropped := count(t, tr, "dropped"); dropped != 6 {
		t.Errorf("%v dropped; 4 of 10 wait", dropped)
	}
	begun := time.Now()
	tr.Close()
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("the end took %v", took)
	}
	if failed := count(t, tr, "failed"); failed == 0 {
		t.Error("what was lost at the end is not counted")
	}
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func count(t *testing.T, c prometheus.Collector, result string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == "gatehouse_spans_total" && l.GetValue() == result {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no %s in %d families, %v", result, len(families), testutil.CollectAndCount(c))
	return 0
}

func TestNoTracerNeedsNoClosing(t *testing.T) {
	t.Parallel()
	var none *tracing.Tracer
	none.Close()
	if got := tracing.Traceparent(context.Background()); got != "" {
		t.Errorf("traceparent %q of nothing", got)
	}
}
