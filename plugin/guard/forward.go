package guard

import (
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
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
	for _, name := range g.upstreamHeaders {
		set[name] = s.upstream[name] // overwritten even where no decision set it
	}
	for name, v := range set {
		if !plain(v) { // a claim can hold what a header cannot
			set[name] = ""
		}
	}
	if _, kept := s.header("traceparent"); !kept || traceID(s.Request) == "" {
		set["Traceparent"] = "00-" + s.decision.TraceID + "-" + web.NewTraceID()[:16] + "-00"
	}
	return Verdict{Forward: true, SetHeaders: set, Respond: s.response, Decision: s.decision}
}

// roles is the list as a header. A role that would read as another, or as two, is left out; policy has seen it all the same.
func roles(all []string) string {
	if slices.ContainsFunc(all, unlisted) {
		all = slices.DeleteFunc(slices.Clone(all), unlisted)
	}
	return strings.Join(all, ",")
}

func unlisted(role string) bool { return role == "" || strings.Contains(role, ",") || !portable(role) }
