package app

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// tracer makes a guard's traces spans of OpenTelemetry.
type tracer struct{ *tracing.Tracer }

var _ guard.Tracer = tracer{}

// Begin implements guard.Tracer.
func (t tracer) Begin(ctx context.Context, traceparent string) (context.Context, guard.Trace) {
	ctx, span := t.Continue(ctx, traceparent, "guard")
	return ctx, &request{t.Tracer, span}
}

// request is one request's span.
type request struct {
	tracer *tracing.Tracer
	span   trace.Span
}

// ID implements guard.Trace.
func (r *request) ID() string { return r.span.SpanContext().TraceID().String() }

// Traceparent implements guard.Trace.
func (r *request) Traceparent() string { return tracing.TraceparentOf(r.span) }

// Stage implements guard.Trace.
func (r *request) Stage(ctx context.Context, name string) (context.Context, func(reason string, broken bool)) {
	ctx, span, kept := r.tracer.Child(ctx, name)
	if !kept {
		return ctx, func(string, bool) {}
	}
	return ctx, func(reason string, broken bool) {
		if reason != "" {
			span.SetAttributes(attribute.String("gatehouse.reason", reason))
		}
		if broken {
			span.SetStatus(codes.Error, reason)
		}
		span.End()
	}
}

// End implements guard.Trace. The route is the operator's name of it, and the code one of our own; nothing else of a decision is.
func (r *request) End(v *guard.Verdict) {
	defer r.span.End()
	if !r.span.IsRecording() {
		return
	}
	r.span.SetAttributes(
		attribute.String("gatehouse.route", v.Decision.Route), attribute.String("gatehouse.decision", v.Decision.Outcome()),
		attribute.String("gatehouse.stage", v.Decision.Stage), attribute.String("gatehouse.reason", v.Decision.Code),
	)
	if !v.Forward { // else the answer is the upstream's
		r.span.SetAttributes(attribute.Int("http.response.status_code", v.Status))
		if v.Status >= http.StatusInternalServerError {
			r.span.SetStatus(codes.Error, v.Decision.Code)
		}
	}
}
