package forwardauth

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// Routes is what is guarded.
type Routes struct {
	router *kongfile.Router
	routes []route

	// Rewritten lists the routes whose upstream gets another path than the client sent, and Unguarded those without the plugin,
	// by name, for the log: the proxy has to rewrite the former likewise, and is refused the latter.
	Rewritten, Unguarded []string
	// Unheard lists the routes whose failed log-ins Kong would have told, and no proxy does.
	Unheard []string
	// Unshown lists the routes some of whose requests name their objects in a body. The proxy shows none, and they are refused.
	Unshown []string
}

type route struct {
	name  string
	guard kong.Handler // nil for none
}

// Load reads kong.yml and makes a guard of each configuration in it. It refuses what Kong would do and we, or the proxy, could
// not.
func Load(text []byte, proxy Proxy, vault kong.Vault, make kong.Factory) (*Routes, error) {
	d, err := kongfile.Parse(text)
	if err != nil {
		return nil, err
	}
	guarded, err := d.Guarded()
	if err != nil {
		return nil, err
	}
	guards, unshown := map[*kongfile.Plugin]kong.Handler{}, map[*kongfile.Plugin]bool{}
	for _, p := range d.AllPlugins() {
		if p.Name == kong.OutcomeName { // the proxy asks before the upstream answers, and tells nothing of the answer
			continue
		}
		if p.Name != kong.Name {
			return nil, fmt.Errorf("%s.name: %q runs under Kong only; what it does is the proxy's task here", p.At, p.Name)
		}
		cfg, err := kong.ReadConfig(p.Config, vault)
		if err != nil {
			return nil, fmt.Errorf("%s.%w", p.At, err)
		}
		if err := proxy.serves(cfg); err != nil {
			return nil, fmt.Errorf("%s.%w", p.At, err)
		}
		unshown[p] = proxy != EnvoyGRPC && slices.ContainsFunc(cfg.Resources, func(r guard.Resource) bool { return r.IDs.In == guard.InBody })
		if guards[p], err = make(cfg); err != nil {
			return nil, fmt.Errorf("%s.%w", p.At, err)
		}
	}
	if len(guarded) == 0 {
		return nil, errors.New("routes: there is none, so that every request would be refused")
	}
	r := &Routes{}
	if r.router, err = kongfile.NewRouter(guarded); err != nil {
		return nil, err
	}
	for _, g := range guarded {
		r.routes = append(r.routes, route{g.Route.Name, guards[g.Plugin]})
		if g.Outcome != nil {
			r.Unheard = append(r.Unheard, g.Route.Name)
		}
		if unshown[g.Plugin] {
			r.Unshown = append(r.Unshown, g.Route.Name)
		}
		if g.Plugin == nil {
			r.Unguarded = append(r.Unguarded, g.Route.Name)
		} else if g.Rewrites() {
			r.Rewritten = append(r.Rewritten, g.Route.Name)
		}
	}
	return r, nil
}

// serves refuses a configuration that obliges the proxy to what it cannot do.
func (p Proxy) serves(cfg guard.Config) error {
	o := cfg.Obligations
	if len(o.ResponseHeaders) > 0 && (p == Traefik || p == Caddy) {
		return fmt.Errorf("config.obligations.response_headers: %s cannot set headers of the client's answer", p)
	}
	for i, name := range o.ResponseHeaders {
		if slices.ContainsFunc(o.UpstreamHeaders, func(other string) bool { return strings.EqualFold(name, other) }) {
			return fmt.Errorf("config.obligations.response_headers[%d]: the proxy could not tell it from the upstream header of this name", i+1)
		}
	}
	if len(cfg.CORS.Origins) > 0 && !cfg.CORS.Upstream {
		return errors.New("config.cors.answered_by: a proxy takes no answer to a preflight from whom it asks; expected upstream")
	}
	if cfg.Cookie.Name != "" && !cfg.Cookie.Keep && p != EnvoyGRPC {
		return fmt.Errorf("config.token_cookie.strip: %s passes cookies on as they came; expected false", p)
	}
	return nil
}

var (
	errRoute     = fault.New(fault.Forbidden, "No route covers this request.").Named("route_unknown")
	errUnguarded = fault.New(fault.Forbidden, "No rule covers this route.").Named("route_unguarded")
)

// find answers who decides on the request, with its route and the path that the upstream gets filled in (S53).
func (rs *Routes) find(r *guard.Request) (kong.Handler, error) {
	place, upstream := rs.router.Match(r.Method, r.Host, r.Path)
	found, err := route{}, errRoute
	if place >= 0 {
		found, err = rs.routes[place], errUnguarded
		r.Route, r.UpstreamPath = found.name, upstream
	}
	if found.guard == nil {
		if ambiguous := guard.Ambiguous(r.Path); ambiguous != nil { // the guard says it of its own requests
			return nil, ambiguous
		}
		return nil, err
	}
	return found.guard, nil
}
