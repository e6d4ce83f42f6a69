// Package traced makes the decision point's work spans: one for a request, below that of who asks, in it one for each decision, and
// in that one for the look-up and one for the evaluation. Spans bear names and codes only.
package traced

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// Handler puts a span around each request for decisions, below that of who asks. Without a tracer it is next.
func Handler(t *tracing.Tracer, next http.Handler) http.Handler {
	if t == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routeOf(r.URL.Path)
		if route == "" {
			next.ServeHTTP(w, r)
			return
		}
		parent := ""
		if given := r.Header.Values("Traceparent"); len(given) == 1 {
			parent = given[0]
		}
		ctx, span := t.Continue(r.Context(), parent, "pdp")
		defer span.End()
		r = r.WithContext(ctx)
		r.Header = r.Header.Clone()
		r.Header.Set("Traceparent", tracing.TraceparentOf(span)) // so that the log has this trace's id, also where theirs was none
		said := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(said, r)
		span.SetAttributes(attribute.String("http.route", route), attribute.Int("http.response.status_code", said.status))
		if said.status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
	})
}

// routeOf names what a path asks for decisions, "" for what asks for none. What follows the Data API's prefix is the caller's word.
func routeOf(path string) string {
	switch {
	case path == authzen.Path, path == authzen.BatchPath:
		return path
	case path == dataapi.Prefix, strings.HasPrefix(path, dataapi.Prefix+"/"):
		return dataapi.Prefix
	}
	return ""
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the writer underneath.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// engine is one whose decisions are spans. A batch has several.
type engine struct {
	server.Engine
	tracer *tracing.Tracer
}

// Engine is e itself without a tracer.
func Engine(t *tracing.Tracer, e server.Engine) server.Engine {
	if t == nil {
		return e
	}
	return &engine{e, t}
}

// Evaluate implements server.Engine.
func (e *engine) Evaluate(ctx context.Context, req authzen.Request) (authzen.Response, error) {
	ctx, span, kept := e.tracer.Child(ctx, "decide")
	if !kept {
		return e.Engine.Evaluate(ctx, req)
	}
	defer span.End()
	res, err := e.Engine.Evaluate(ctx, req)
	decided(span, string(server.OutcomeOf(res, err)), err)
	return res, err
}

// Document implements server.Engine.
func (e *engine) Document(ctx context.Context, q dataapi.Question) (dataapi.Document, error) {
	ctx, span, kept := e.tracer.Child(ctx, "decide")
	if !kept {
		return e.Engine.Document(ctx, q)
	}
	defer span.End()
	doc, err := e.Engine.Document(ctx, q)
	decided(span, server.Meaning(doc, err), err)
	return doc, err
}

func decided(span trace.Span, outcome string, err error) {
	span.SetAttributes(attribute.String("gatehouse.outcome", outcome))
	if err != nil {
		span.SetStatus(codes.Error, outcome)
	}
}

// Parts is what an engine tells its parts to; nil without a tracer.
func Parts(t *tracing.Tracer) func(ctx context.Context, part string) (context.Context, func(error)) {
	if t == nil {
		return nil
	}
	return func(ctx context.Context, part string) (context.Context, func(error)) {
		ctx, span, kept := t.Child(ctx, part)
		if !kept {
			return ctx, func(error) {}
		}
		return ctx, func(err error) {
			if err != nil {
				span.SetStatus(codes.Error, part+"_failed")
			}
			span.End()
		}
	}
}
