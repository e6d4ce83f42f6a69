package guard

import (
	"context"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
)

// Asserter signs who a request comes from, for an upstream that does not trust the network.
type Asserter interface {
	Sign(i assertion.Identity, r assertion.Request) (string, error)
}

// Assertion says for whom X-Gatehouse-Assertion is signed.
type Assertion struct {
	Audience string // the upstream's name; "" for no assertion
}

func (c Config) validateForward(wrong reject) {
	if a := c.Assertion.Audience; !portable(a) {
		wrong("assertion.audience", "expected a name without control characters, or none")
	}
}

func (c Config) forwardNeeds(p Parts) []need {
	return []need{{"asserter", c.Assertion.Audience != "", p.Asserter != nil}}
}

var errAssertion = fault.New(fault.Internal, "").Named("assertion_failed")

// assert signs what the upstream is told (S54).
func (g *Guard) assert(_ context.Context, s *state) error {
	if g.cfg.Assertion.Audience == "" {
		return nil
	}
	path, err := url.PathUnescape(s.path())
	if err != nil {
		return errPath
	}
	g.identifyDecision(s)
	signed, err := g.Asserter.Sign(assertion.Identity{
		Subject: s.who.Subject, SubjectIssuer: s.who.Issuer, Tenant: s.who.Tenant, ClientID: s.who.ClientID, Session: s.who.SessionID, ACR: s.who.ACR,
		Roles: s.who.Roles, Scope: s.who.Scope, Decision: s.decision.ID,
	}, assertion.Request{Method: s.Method, Path: path, Audience: g.cfg.Assertion.Audience})
	if err != nil {
		return errAssertion.Because(err)
	}
	s.asserted = signed
	return nil
}

// forward overwrites every identity header, so that none can be the client's own word (S54).
func (g *Guard) forward(s *state) Verdict {
	set := make(map[string]string, 7+len(g.upstreamHeaders))
	for _, name := range principal.IdentityHeaders() {
		set[name] = ""
	}
	set[principal.HeaderSubject] = s.who.Subject
	set[principal.HeaderRoles] = roles(s.who.Roles)
	set[principal.HeaderScope] = strings.Join(s.who.Scope, " ")
	set[principal.HeaderTenant] = s.who.Tenant
	set[principal.HeaderDecision] = s.decision.ID
	set[principal.HeaderAssertion] = s.asserted
	for _, name := range g.upstreamHeaders {
		set[name] = s.upstream[name] // overwritten even where no decision set it
	}
	if c := g.cfg.Cookie; c.Name != "" && !c.Keep {
		if rest, changed := withoutToken(s.Header["cookie"], c.Name); changed {
			set["Cookie"] = rest
		}
	}
	for name, v := range set {
		if !plain(v) { // a claim can hold what a header cannot
			set[name] = ""
		}
	}
	g.setTraceparent(s, set)
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
