// Package tracing sends spans by OTLP over HTTP (OpenTelemetry) and continues traces by W3C Trace Context. It never makes a request
// wait or fail: spans go into a bounded queue, and those that it has no room for are dropped and counted.
//
// A span bears names and codes only. What a client sends and nobody here has made is kept out of it, tracestate too.
package tracing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Where spans go, beside a URL.
const (
	None = "none" // nowhere
	OTLP = "otlp" // where OTEL_EXPORTER_OTLP_… say
)

const (
	// queue is how many spans wait at most, and for how long; as OpenTelemetry has them.
	queue = 2048
	delay = 5 * time.Second
	// grace is how long the last spans may take when a program ends.
	grace = 2 * time.Second
)

// Options is what a Tracer is made of.
type Options struct {
	To      string                               // None, OTLP or the URL of an OTLP receiver
	Service string                               // unless OTEL_SERVICE_NAME says otherwise
	Lookup  func(variable string) (string, bool) // of the environment: OpenTelemetry's variables
	Log     *slog.Logger                         // told when spans are lost
	Delay   time.Duration                        // how long a span waits for others; 0 for 5 s
	Queue   int                                  // how many spans wait at most; 0 for 2,048
	Now     func() time.Time                     // default time.Now; bounds how often Log is told
}

// Tracer begins spans. It is made by New, and safe for concurrent use.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdk.TracerProvider
	export   *counting
}

// New makes a tracer, or nil where To is None or "". It connects to nothing yet.
func New(o Options) (*Tracer, error) {
	if o.To == "" || o.To == None {
		return nil, nil //nolint:nilnil // no tracing is not a failure
	}
	sampler, err := samplerOf(o.Lookup)
	if err != nil {
		return nil, err
	}
	s, err := newSender(o.To, o.Lookup)
	if err != nil {
		return nil, err
	}
	exporter, err := otlptrace.New(context.Background(), s)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	if o.Queue <= 0 {
		o.Queue = queue
	}
	if o.Delay <= 0 {
		o.Delay = delay
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	t := &Tracer{export: newCounting(exporter, o.Log, o.Now)}
	spans := &bounded{most: int64(o.Queue), counts: &t.export.counts, next: sdk.NewBatchSpanProcessor(t.export,
		sdk.WithMaxQueueSize(o.Queue), sdk.WithMaxExportBatchSize(min(o.Queue, sdk.DefaultMaxExportBatchSize)), sdk.WithBatchTimeout(o.Delay))}
	t.provider = sdk.NewTracerProvider(sdk.WithSampler(sampler), sdk.WithSpanProcessor(spans), sdk.WithResource(describe(o.Service)))
	t.tracer = t.provider.Tracer("github.com/gatehouse-auth/gatehouse")
	return t, nil
}

// Close sends what waits, within two seconds, and ends. What is left then is dropped.
func (t *Tracer) Close() {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	stop := context.AfterFunc(ctx, t.export.cut)
	defer stop()
	_ = t.provider.Shutdown(ctx) // what was lost is counted and logged
	t.export.cut()
	<-t.export.ended // at once: whatever is still exported fails now
}

// samplerOf reads OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG. Without the former, whoever began a trace decides whether it is
// kept, so that none has holes, and of those that begin here a ratio is.
func samplerOf(lookup func(string) (string, bool)) (sdk.Sampler, error) {
	ratio := 1.0
	if text, _ := lookup("OTEL_TRACES_SAMPLER_ARG"); strings.TrimSpace(text) != "" {
		var err error
		if ratio, err = strconv.ParseFloat(strings.TrimSpace(text), 64); err != nil || !(ratio >= 0 && ratio <= 1) {
			return nil, errors.New("OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1")
		}
	}
	name, _ := lookup("OTEL_TRACES_SAMPLER")
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "", "parentbased_traceidratio":
		return sdk.ParentBased(sdk.TraceIDRatioBased(ratio)), nil
	case "traceidratio":
		return sdk.TraceIDRatioBased(ratio), nil
	case "parentbased_always_on":
		return sdk.ParentBased(sdk.AlwaysSample()), nil
	case "parentbased_always_off":
		return sdk.ParentBased(sdk.NeverSample()), nil
	case "always_on":
		return sdk.AlwaysSample(), nil
	case "always_off":
		return sdk.NeverSample(), nil
	}
	return nil, errors.New("OTEL_TRACES_SAMPLER: expected one of OpenTelemetry's samplers, such as parentbased_traceidratio")
}

// describe says who sends the spans. What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes first.
func describe(service string) *resource.Resource {
	own := []attribute.KeyValue{attribute.String("service.name", service), attribute.String("service.namespace", "gatehouse")}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		own = append(own, attribute.String("service.version", info.Main.Version))
	}
	named, err := resource.Merge(resource.NewSchemaless(own...), resource.Environment())
	if err != nil { // two schemas, of which one is none
		return resource.NewSchemaless(own...)
	}
	return named
}

// Continue begins a span of its own kind (server) as a child of what a traceparent header names, or of a new trace where that is
// malformed, "" or known to nobody. The header is believed no more than for that and, if the sampler asks it, for its flag.
func (t *Tracer) Continue(ctx context.Context, traceparent, name string) (context.Context, trace.Span) {
	parent := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": traceparent})
	ctx = trace.ContextWithRemoteSpanContext(ctx, trace.SpanContextFromContext(parent))
	return t.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindServer))
}

// Child begins a span below that of ctx, if there is one that is kept; else it answers ctx and false, and nothing is to be ended.
func (t *Tracer) Child(ctx context.Context, name string) (context.Context, trace.Span, bool) {
	above := trace.SpanFromContext(ctx)
	if !above.IsRecording() {
		return ctx, above, false
	}
	ctx, span := t.tracer.Start(ctx, name)
	return ctx, span, true
}

// Traceparent answers the header that names the span of ctx, "" for none.
func Traceparent(ctx context.Context) string { return traceparent(trace.SpanContextFromContext(ctx)) }

// TraceparentOf answers the header that names span.
func TraceparentOf(span trace.Span) string { return traceparent(span.SpanContext()) }

func traceparent(c trace.SpanContext) string {
	if !c.IsValid() {
		return ""
	}
	return fmt.Sprintf("00-%s-%s-%s", c.TraceID(), c.SpanID(), c.TraceFlags()&trace.FlagsSampled)
}
