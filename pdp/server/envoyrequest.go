package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/requestline"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Types of subjects and resources that nobody named.
const (
	anonymous  = "anonymous"
	serviceOf  = "service" // a peer with a certificate and without a token
	pathAsType = "path"
)

// maxName bounds the names in a request, in bytes, as the other doors do.
const maxName = 1024

// envoyPattern is an EnvoyResource cut in its segments.
type envoyPattern struct {
	EnvoyResource
	segments []string
}

func envoyPatterns(resources []EnvoyResource) ([]envoyPattern, error) {
	var all []envoyPattern
	for _, r := range resources {
		p := envoyPattern{r, segmentsAsSent(r.Pattern)}
		plain := strings.NewReplacer("{", "", "}", "").Replace(r.Pattern)
		if r.Type == "" || !requestline.Canonical(plain) {
			return nil, fmt.Errorf("resources: %q: must be a pattern such as /orders/{id}, and its type", r.Pattern)
		}
		for _, s := range p.segments {
			if name, is := parameter(s); strings.ContainsAny(s, "{}") && (!is || strings.ContainsAny(name, "{}")) {
				return nil, fmt.Errorf("resources: %q: a parameter is a whole segment, as {id}", r.Pattern)
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// segmentsAsSent keeps a slash at the end as an empty segment: to many an upstream that is another path.
func segmentsAsSent(path string) []string { return strings.Split(strings.TrimPrefix(path, "/"), "/") }

func parameter(segment string) (name string, ok bool) {
	if len(segment) > 2 && segment[0] == '{' && segment[len(segment)-1] == '}' {
		return segment[1 : len(segment)-1], true
	}
	return "", false
}

// match answers the parameters of a path that the pattern covers.
func (p envoyPattern) match(segments []string) (params map[string]any, ok bool) {
	if len(segments) != len(p.segments) {
		return nil, false
	}
	params = map[string]any{}
	for i, want := range p.segments {
		if name, is := parameter(want); is && segments[i] != "" {
			params[name] = segments[i]
		} else if is || want != segments[i] {
			return nil, false
		}
	}
	return params, true
}

// evaluation is what Envoy asks, in the words that the edge uses. The client's address is the one that Envoy believes (S15).
func (d *envoyDoor) evaluation(ctx context.Context, c *extauthz.Request) (r authzen.Request, err error) {
	refuse := func(what string) (authzen.Request, error) {
		return authzen.Request{}, errCheck.Because(errors.New(what))
	}
	address, err := netip.ParseAddr(c.Address)
	if err != nil || address.Zone() != "" {
		return refuse("source.address is not an address")
	}
	if !requestline.Method(c.Method) {
		return refuse("the method is malformed")
	}
	if !requestline.Host(c.Host) {
		return refuse("the host is malformed")
	}
	path, _, err := requestline.OriginForm(c.Path)
	if err != nil {
		return refuse(err.Error())
	}
	if !requestline.Canonical(path) {
		return r, errTwoWays
	}
	if r.Resource, err = d.resource(path, c.Extensions); err != nil {
		return r, err
	}
	agent := ""
	if values := c.Header["user-agent"]; len(values) == 1 && requestline.Plain(values[0]) {
		agent = values[0]
	}
	r.Context = map[string]any{"ip": address.Unmap().String(), "user_agent": agent, "request_id": web.TraceID(ctx), "host": c.Host}
	if c.Scheme != "" {
		r.Context["scheme"] = c.Scheme
	}
	if r.Subject, err = d.subject(c, r.Context); err != nil {
		return r, err
	}
	if r.Action.Name = c.Method; c.Method == http.MethodHead { // it asks for what GET does
		r.Action.Name = http.MethodGet
	}
	for _, name := range []string{r.Subject.ID, r.Resource.Type, r.Resource.ID} {
		if name == "" || len(name) > maxName || !requestline.Plain(name) {
			return refuse("a name is empty, too long or no text")
		}
	}
	return r, nil
}

// resource is what a path stands for. The route's own configuration in Envoy may name its type, and the route itself.
func (d *envoyDoor) resource(path string, extensions map[string]string) (authzen.Resource, error) {
	decoded, err := url.PathUnescape(path)
	if err != nil {
		return authzen.Resource{}, errTwoWays
	}
	segments := segmentsAsSent(decoded)
	properties := map[string]any{"path": decoded, "segments": segments, "params": map[string]any{}}
	for _, name := range []string{"route", "service"} {
		if v := extensions[name]; v != "" {
			properties[name] = v
		}
	}
	out := authzen.Resource{Type: pathAsType, ID: decoded, Properties: properties}
	covered := len(d.resources) == 0
	for _, p := range d.resources {
		params, ok := p.match(segments)
		if !ok {
			continue
		}
		properties["params"] = params
		if out.Type, out.ID = p.Type, p.Pattern; params["id"] != nil {
			out.ID, _ = params["id"].(string)
		}
		covered = true
		break
	}
	if !covered {
		return out, errUncovered
	}
	out.Type = cmp.Or(extensions["resource_type"], out.Type)
	return out, nil
}

// subject is who Envoy says that the caller is: by a verified token's claims, or else by its certificate. Headers are the client's
// own word.
func (d *envoyDoor) subject(c *extauthz.Request, about map[string]any) (authzen.Subject, error) {
	nobody := authzen.Subject{Type: anonymous, ID: anonymous, Properties: map[string]any{"roles": []string{}}}
	if c.Principal != "" {
		about["peer"] = c.Principal
		nobody.Type, nobody.ID = serviceOf, c.Principal
	}
	if d.filter == "" {
		return nobody, nil
	}
	told, err := c.Metadata(d.filter)
	if err != nil {
		return nobody, errCheck.Because(fmt.Errorf("metadata of %s: %w", d.filter, err))
	}
	found, there := told[d.claims]
	if !there {
		return nobody, nil
	}
	claims, ok := found.(map[string]any)
	id, named := claims["sub"].(string)
	if !ok || !named || id == "" {
		return nobody, errCheck.Because(errors.New("the token's claims name no subject"))
	}
	text := func(name string) string { s, _ := claims[name].(string); return s }
	scope := strings.Fields(text("scope"))
	if scope == nil {
		scope = []string{}
	}
	attributes, _ := claims["attributes"].(map[string]any)
	if attributes == nil {
		attributes = map[string]any{}
	}
	about["acr"] = text("acr")
	if at, ok := claims["auth_time"].(float64); ok && at > 0 && at < 1<<40 {
		about["auth_time"] = int64(at)
	}
	return authzen.Subject{Type: "user", ID: id, Properties: map[string]any{
		"roles": listed(claims["roles"]), "groups": listed(claims["groups"]), "tenant": text("tenant"), "session": text("sid"), "attributes": attributes,
		"claims": map[string]any{"iss": text("iss"), "client_id": text("client_id"), "scope": scope, "acr": text("acr"), "amr": listed(claims["amr"])},
	}}, nil
}

// listed are the texts of a claim that is a list; what is no text is left out.
func listed(v any) []string {
	out := []string{}
	items, _ := v.([]any)
	for _, item := range items {
		if s, ok := item.(string); ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}
