package guard

import (
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

var errResource = fault.New(fault.Forbidden, "No rule covers this path.").Named("resource_unknown")

// pattern is a Resource cut in its segments.
type pattern struct {
	Resource
	segments []string
}

// patterns sorts the most specific first: more segments, then fewer parameters.
func patterns(resources []Resource) []pattern {
	out := make([]pattern, 0, len(resources))
	for _, r := range resources {
		out = append(out, pattern{r, segmentsOf(r.Pattern)})
	}
	slices.SortStableFunc(out, func(a, b pattern) int { return strings.Count(a.Pattern, "{") - strings.Count(b.Pattern, "{") })
	return out
}

// segmentsOf keeps a slash at the end as an empty segment: to many an upstream that is another path.
func segmentsOf(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

// shape is the pattern without its parameters' names: two of the same shape match the same paths. It is "" for a pattern
// that is malformed or that no path could match.
func (r Resource) shape() string {
	if !strings.HasPrefix(r.Pattern, "/") {
		return ""
	}
	segments := segmentsOf(r.Pattern)
	for i, s := range segments {
		if name, is := parameter(s); is && isToken(name) {
			segments[i] = "{}"
		} else if strings.ContainsAny(s, "{}") || (s == "" && len(segments) > 1) {
			return ""
		}
	}
	shape := "/" + strings.Join(segments, "/")
	if !canonical(shape) {
		return ""
	}
	return shape
}

func parameter(segment string) (name string, ok bool) {
	if len(segment) > 2 && segment[0] == '{' && segment[len(segment)-1] == '}' {
		return segment[1 : len(segment)-1], true
	}
	return "", false
}

// match reports whether the pattern covers the segments.
func (p pattern) match(segments []string) bool {
	if len(segments) != len(p.segments) {
		return false
	}
	for i, want := range p.segments {
		if _, is := parameter(want); is {
			if segments[i] == "" {
				return false
			}
		} else if want != segments[i] {
			return false
		}
	}
	return true
}

// target is what a request is for.
type target struct {
	*pattern
	path     string // decoded
	segments []string
	object   string // one that the request names outside its path, or ""
}

// target finds the pattern that covers the path. A path that none covers is refused (S53).
func (g *Guard) target(r *Request) (target, error) {
	path, err := url.PathUnescape(r.path())
	if err != nil {
		return target{}, errPath
	}
	t := target{path: path, segments: segmentsOf(path)}
	for i := range g.patterns {
		if g.patterns[i].match(t.segments) {
			t.pattern = &g.patterns[i]
			return t, nil
		}
	}
	return target{}, errResource
}

// id is the object's that the request names outside its path, the segment at {id}, or the pattern itself.
func (t target) id() string {
	if t.object != "" {
		return t.object
	}
	if id, ok := t.param("id"); ok {
		return id
	}
	return t.Pattern
}

func (t target) param(name string) (string, bool) {
	for i := len(t.pattern.segments) - 1; i >= 0; i-- {
		if p, is := parameter(t.pattern.segments[i]); is && p == name {
			return t.segments[i], true
		}
	}
	return "", false
}

func (t target) resource(route string) authzen.Resource {
	params := map[string]any{}
	for i, s := range t.pattern.segments {
		if name, is := parameter(s); is {
			params[name] = t.segments[i]
		}
	}
	return authzen.Resource{Type: t.Type, ID: t.id(), Properties: map[string]any{
		"path": t.path, "segments": t.segments, "route": route, "params": params,
	}}
}

// evaluation is the question that the decision point is asked.
func evaluation(r Request, action string, res authzen.Resource, p principal.Principal, traceID string) authzen.Request {
	who := authzen.Subject{Type: "user", ID: p.Subject, Properties: map[string]any{
		"roles": list(p.Roles), "groups": list(p.Groups), "tenant": p.Tenant, "attributes": object(p.Attributes), "session": p.SessionID,
		"claims": map[string]any{"iss": p.Issuer, "client_id": p.ClientID, "scope": list(p.Scope), "acr": p.ACR, "amr": list(p.AMR)},
	}}
	if p.Anonymous() {
		who = authzen.Subject{Type: "anonymous", ID: "anonymous", Properties: map[string]any{"roles": []string{}}}
	}
	agent, _ := r.header("user-agent")
	context := map[string]any{"ip": r.Addr.Unmap().String(), "user_agent": agent, "request_id": traceID, "acr": p.ACR}
	if !p.AuthTime.IsZero() {
		context["auth_time"] = p.AuthTime.Unix()
	}
	do := authzen.Action{Name: action}
	if method := r.action(); method != action { // by which the decision point knows what changes an object
		do.Properties = map[string]any{"method": method}
	}
	return authzen.Request{Subject: who, Action: do, Resource: res, Context: context}
}

// list keeps an empty list from becoming null, which a policy would have to expect.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func object(m map[string]any) map[string]any {
	if m == nil {
		return map[string]any{}
	}
	return m
}
