package guard

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// faultOf is err as a fault; what is none is our own failure.
func faultOf(err error) *fault.Error {
	if f, ok := fault.As(err); ok {
		return f
	}
	return errFailed.Because(err)
}

// refusal answers err as the route wants it.
func (g *Guard) refusal(s *state, err error) Verdict {
	if f := faultOf(err); g.redirects(s, f) {
		return g.login(s, f)
	}
	return g.deny(s, err)
}

// deny answers err as a problem document.
func (g *Guard) deny(s *state, err error) Verdict {
	f := faultOf(err)
	p := web.Problem(web.WithTraceID(context.Background(), s.decision.TraceID), f)
	p.DecisionID, p.Challenge = s.decision.ID, s.issued
	s.decision.Code = p.Code
	body := p.JSON()
	header := map[string]string{}
	maps.Copy(header, s.response)
	maps.Copy(header, map[string]string{
		"Content-Type":           p.ContentType(""),
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
		principal.HeaderDecision: s.decision.ID,
	})
	if f.Code == fault.Unauthenticated {
		header["WWW-Authenticate"] = g.authenticate(s, f.Reason)
	}
	if f.Code == fault.Limited {
		limitHeaders(header, s.limits)
	}
	if s.issued != nil && g.wantsPage(s) {
		if page := g.challengePage(s, header); page != nil {
			body = page
		}
	}
	return Verdict{Status: p.Status, Header: header, Body: body, Decision: s.decision}
}

// serve answers by the edge itself.
func (g *Guard) serve(s *state) Verdict {
	s.decision.Stage, s.decision.Code, s.decision.Allowed = stageChallenge, "served", true
	v := *s.served
	maps.Copy(v.Header, s.response)
	v.Header[principal.HeaderDecision] = s.decision.ID
	v.Decision = s.decision
	return v
}

// logDenial writes one line for a failed check, which is one for a denied request; it holds neither token nor query (S67).
func (g *Guard) logDenial(ctx context.Context, s *state, failed failure) {
	level, d, f := slog.LevelInfo, s.decision, faultOf(failed.err)
	switch f.Code {
	case fault.Unavailable:
		level = slog.LevelWarn
	case fault.Internal:
		level = slog.LevelError
	}
	g.Log.Log(ctx, level, "request denied", "decision_id", d.ID, "code", f.Reason, "stage", failed.stage, "observed", d.Observed, "reasons", d.Reasons, "rules", d.Rules,
		"route", d.Route, "method", s.Method, "path", s.Path, "risk", s.risk, "subject", d.Subject, "address", s.Addr.String(), "trace_id", d.TraceID, "error", failed.err)
}

func (g *Guard) logPanic(ctx context.Context, s *state, p any) {
	g.Log.ErrorContext(ctx, "guard panicked", "trace_id", s.decision.TraceID, "route", s.Route, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}
