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

func (p pattern) match(segments []string) (params map[string]any, ok bool) {
	if len(segments) != len(p.segments) {
		return nil, false
	}
	params = map[string]any{}
	for i, want := range p.segments {
		if name, is := parameter(want); is {
			if segments[i] == "" {
				return nil, false
			}
			params[name] = segments[i]
		} else if want != segments[i] {
			return nil, false
		}
	}
	return params, true
}

// resource names what the request is for. A path that no pattern covers is refused (S53).
func (g *Guard) resource(r Request) (authzen.Resource, error) {
	path, err := url.PathUnescape(r.path())
	if err != nil {
		return authzen.Resource{}, errPath
	}
	segments := segmentsOf(path)
	for _, p := range g.patterns {
		params, ok := p.match(segments)
		if !ok {
			continue
		}
		id, _ := params["id"].(string)
		if id == "" {
			id = p.Pattern
		}
		return authzen.Resource{Type: p.Type, ID: id, Properties: map[string]any{
			"path": path, "segments": segments, "route": r.Route, "params": params,
		}}, nil
	}
	return authzen.Resource{}, errResource
}

// evaluation is the question that the decision point is asked.
func evaluation(r Request, res authzen.Resource, p principal.Principal, traceID string) authzen.Request {
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
	return authzen.Request{Subject: who, Action: authzen.Action{Name: r.action()}, Resource: res, Context: context}
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
