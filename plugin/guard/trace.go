package guard

import (
	"context"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// Tracer begins traces, or continues them. It must not block.
type Tracer interface {
	// Begin opens the span of one request, below the one that traceparent names (W3C Trace Context), or of a new trace where that
	// is malformed or "".
	Begin(ctx context.Context, traceparent string) (context.Context, Trace)
}

// Trace is one request's span and those of its stages. They get names and codes alone: nothing that a client sends.
type Trace interface {
	ID() string          // of the trace: 32 hexadecimal digits
	Traceparent() string // names the request's span
	// Stage opens the span of a stage; end takes why the request did not pass it ("" if it did), and whether that is a failure of ours.
	Stage(ctx context.Context, name string) (within context.Context, end func(reason string, broken bool))
	End(v *Verdict)
}

// checkTraced believes one header alone: of several, nobody can say which the next one believes.
func (g *Guard) checkTraced(ctx context.Context, s *state) Verdict {
	parent := ""
	if given := s.Header["traceparent"]; len(given) == 1 {
		parent = given[0]
	}
	ctx, s.trace = g.Tracer.Begin(ctx, parent)
	s.decision.TraceID = s.trace.ID()
	v := g.checked(ctx, s)
	s.trace.End(&v)
	return v
}

// pass lets the request through one stage.
func (g *Guard) pass(ctx context.Context, s *state, stage stage) error {
	if s.trace == nil || !stage.traced {
		return g.safely(ctx, s, stage.check)
	}
	ctx, end := s.trace.Stage(ctx, stage.name)
	err := g.safely(ctx, s, stage.check)
	if err == nil {
		end("", false)
		return nil
	}
	f := faultOf(err)
	end(f.Reason, f.Code == fault.Internal || f.Code == fault.Unavailable)
	return err
}

// setTraceparent tells the upstream the trace that it is in: our own span, if there is one, else what the client said of it, or
// what we put in the place of that.
func (g *Guard) setTraceparent(s *state, set map[string]string) {
	_, given := s.header("traceparent")
	known := given && traceID(s.Request) != ""
	switch {
	case s.trace != nil:
		set["Traceparent"] = s.trace.Traceparent()
	case !known:
		set["Traceparent"] = "00-" + s.decision.TraceID + "-" + web.NewTraceID()[:16] + "-00"
	}
	if _, state := s.header("tracestate"); state && traceID(s.Request) != s.decision.TraceID {
		set["Tracestate"] = "" // it belongs to a traceparent that is not believed
	}
}

func traceID(r Request) string {
	h, _ := r.header("traceparent")
	id, _ := web.ParseTraceparent(h)
	return id
}
