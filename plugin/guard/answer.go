package guard

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

func traceID(r Request) string {
	h, _ := r.header("traceparent")
	id, _ := web.ParseTraceparent(h)
	return id
}

// forward overwrites every identity header, so that none can be the client's own word (S54).
func (g *Guard) forward(s *state) Verdict {
	set := make(map[string]string, 6)
	for _, name := range principal.IdentityHeaders() {
		set[name] = ""
	}
	set[principal.HeaderSubject] = s.who.Subject
	set[principal.HeaderRoles] = roles(s.who.Roles)
	set[principal.HeaderScope] = strings.Join(s.who.Scope, " ")
	set[principal.HeaderTenant] = s.who.Tenant
	set[principal.HeaderDecision] = s.decision.ID
	for name, v := range set {
		if !plain(v) { // a claim can hold what a header cannot
			set[name] = ""
		}
	}
	if _, kept := s.header("traceparent"); !kept || traceID(s.Request) == "" {
		set["Traceparent"] = "00-" + s.decision.TraceID + "-" + web.NewTraceID()[:16] + "-00"
	}
	return Verdict{Forward: true, SetHeaders: set, Decision: s.decision}
}

// roles is the list as a header. A role that would read as another, or as two, is left out; policy has seen it all the same.
func roles(all []string) string {
	if slices.ContainsFunc(all, unlisted) {
		all = slices.DeleteFunc(slices.Clone(all), unlisted)
	}
	return strings.Join(all, ",")
}

func unlisted(role string) bool { return role == "" || strings.Contains(role, ",") || !portable(role) }

// faultOf is err as a fault; what is none is our own failure.
func faultOf(err error) *fault.Error {
	if f, ok := fault.As(err); ok {
		return f
	}
	return errFailed.Because(err)
}

// deny answers err as a problem document.
func (g *Guard) deny(s *state, err error) Verdict {
	f := faultOf(err)
	p := web.Problem(web.WithTraceID(context.Background(), s.decision.TraceID), f)
	p.DecisionID, p.Challenge = s.decision.ID, s.issued
	s.decision.Code = p.Code
	body := p.JSON()
	header := map[string]string{
		"Content-Type":           p.ContentType(""),
		"Cache-Control":          "no-store",
		"X-Content-Type-Options": "nosniff",
		principal.HeaderDecision: s.decision.ID,
	}
	if f.Code == fault.Unauthenticated {
		header["WWW-Authenticate"] = s.authenticate(f.Reason)
	}
	if f.Code == fault.Limited {
		limitHeaders(header, s.limits)
	}
	return Verdict{Status: p.Status, Header: header, Body: body, Decision: s.decision}
}

// authenticate is the challenge of RFC 6750 section 3, and of RFC 9470 section 3 for a step-up.
func (s *state) authenticate(reason string) string {
	const realm = `Bearer realm="gatehouse"`
	switch reason {
	case errNoToken.Reason:
		return realm // without a token there is no error to tell (RFC 6750 section 3.1)
	case errStepUp.Reason:
		out := realm + `, error="insufficient_user_authentication"`
		if s.need.ACR != "" && isToken(strings.NewReplacer(":", "", ".", "", "/", "").Replace(s.need.ACR)) {
			out += `, acr_values="` + s.need.ACR + `"`
		}
		if s.need.MaxAge > 0 {
			out += `, max_age="` + strconv.Itoa(s.need.MaxAge) + `"`
		}
		return out
	default:
		return realm + `, error="invalid_token"`
	}
}

// limitHeaders writes RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10) and Retry-After, in seconds.
func limitHeaders(header map[string]string, limits []limit.State) {
	var now, policy []string
	retry := 1
	for _, l := range limits {
		reset := int(math.Ceil(l.Reset.Seconds()))
		now = append(now, fmt.Sprintf("%q;r=%d;t=%d", l.Name, l.Remaining, reset))
		policy = append(policy, fmt.Sprintf("%q;q=%d;w=%d", l.Name, l.Rate.Limit, int(l.Rate.Period.Seconds())))
		if l.Exceeded {
			retry = max(retry, reset)
		}
	}
	header["RateLimit"] = strings.Join(now, ", ")
	header["RateLimit-Policy"] = strings.Join(policy, ", ")
	header["Retry-After"] = strconv.Itoa(retry)
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
	g.Log.Log(ctx, level, "request denied", "decision_id", d.ID, "code", f.Reason, "stage", failed.stage, "observed", d.Observed, "reasons", d.Reasons,
		"route", d.Route, "method", s.Method, "path", s.Path, "subject", d.Subject, "address", s.Addr.String(), "trace_id", d.TraceID, "error", failed.err)
}

func (g *Guard) logPanic(ctx context.Context, s *state, p any) {
	g.Log.ErrorContext(ctx, "guard panicked", "trace_id", s.decision.TraceID, "route", s.Route, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}
