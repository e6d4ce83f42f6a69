package kongfile

import (
	"errors"
	"fmt"
	"slices"
)

// Guarded is a route with its service and the plugin that runs for it.
type Guarded struct {
	Route   Route
	Service *Service
	Plugin  *Plugin // nil for none; the same where several routes share one
	Outcome *Plugin // the one that is told of answers; nil for none
}

// Outcome is the name of the plugin that is told of answers, beside the one that guards.
const Outcome = "gatehouse-outcome"

// Strips reports whether the upstream gets the path without what the route matched, which is Kong's default.
func (r Route) Strips() bool { return r.StripPath == nil || *r.StripPath }

// place notes where each plugin stands, for errors that name it, and the route or service that it stands in.
func (d *Document) place() error {
	var errs []error
	note := func(list []Plugin, at, route, service string) {
		for i := range list {
			p := &list[i]
			p.At = fmt.Sprintf("%splugins[%d]", at, i)
			if at == "" {
				continue
			}
			if p.Route != "" || p.Service != "" {
				errs = append(errs, fmt.Errorf("%s: it stands in a route or service and can name none", p.At))
			}
			p.Route, p.Service = route, service
		}
	}
	note(d.Plugins, "", "", "")
	for i, s := range d.Services {
		note(s.Plugins, fmt.Sprintf("services[%d].", i), "", s.Name)
		for j, r := range s.Routes {
			note(r.Plugins, fmt.Sprintf("services[%d].routes[%d].", i, j), r.Name, "")
		}
	}
	for i, r := range d.Routes {
		note(r.Plugins, fmt.Sprintf("routes[%d].", i), r.Name, "")
	}
	return errors.Join(errs...)
}

// AllPlugins lists every plugin in the file, whether or not a route comes to run it.
func (d *Document) AllPlugins() []*Plugin {
	var all []*Plugin
	add := func(list []Plugin) {
		for i := range list {
			all = append(all, &list[i])
		}
	}
	add(d.Plugins)
	for _, s := range d.Services {
		add(s.Plugins)
		for _, r := range s.Routes {
			add(r.Plugins)
		}
	}
	for _, r := range d.Routes {
		add(r.Plugins)
	}
	return all
}

// only leaves out the plugins of other names.
func (d *Document) only(names []string) {
	others := func(p Plugin) bool { return !slices.Contains(names, p.Name) }
	drop := func(list *[]Plugin) { *list = slices.DeleteFunc(*list, others) }
	drop(&d.Plugins)
	for i := range d.Services {
		drop(&d.Services[i].Plugins)
		for j := range d.Services[i].Routes {
			drop(&d.Services[i].Routes[j].Plugins)
		}
	}
	for i := range d.Routes {
		drop(&d.Routes[i].Plugins)
	}
}

// Guarded lists all routes. The plugin that runs for one is the closest: its own, one at the top that names it, its service's,
// one at the top that names the service, or the one for all. One that is disabled does not count. It refuses a file in which
// two are equally close, or in which a plugin points to nothing: it would guard nothing, without a word.
func (d *Document) Guarded() ([]Guarded, error) {
	services := map[string]*Service{}
	if err := d.twice(); err != nil {
		return nil, err
	}
	var all []Guarded
	add := func(r Route, s *Service) error {
		g := Guarded{Route: r, Service: s}
		var err error
		if g.Plugin, err = d.running(guarding, r, s); err != nil {
			return err
		}
		g.Outcome, err = d.running(listening, r, s)
		all = append(all, g)
		return err
	}
	for i := range d.Services {
		s := &d.Services[i]
		if services[s.Name] != nil {
			return nil, fmt.Errorf("services[%d].name: not unique", i)
		}
		services[s.Name] = s
		for _, r := range s.Routes {
			if err := add(r, s); err != nil {
				return nil, err
			}
		}
	}
	for i, r := range d.Routes {
		s := services[r.Service]
		if s == nil {
			return nil, fmt.Errorf("routes[%d].service: no service of this name", i)
		}
		if err := add(r, s); err != nil {
			return nil, err
		}
	}
	return all, d.references(all, services)
}

func (d *Document) references(routes []Guarded, services map[string]*Service) error {
	names := map[string]bool{}
	for _, r := range routes {
		names[r.Route.Name] = true
	}
	for _, p := range d.Plugins {
		switch {
		case p.Route != "" && p.Service != "":
			return fmt.Errorf("%s: expected a route or a service, not both", p.At)
		case p.Route != "" && !names[p.Route]:
			return fmt.Errorf("%s.route: no route of this name", p.At)
		case p.Service != "" && services[p.Service] == nil:
			return fmt.Errorf("%s.service: no service of this name", p.At)
		}
	}
	return nil
}

// kind is what a plugin is for. One of each kind runs for a route.
type kind bool

const (
	guarding  kind = false
	listening kind = true
)

// twice refuses two equally close plugins also where no route comes to run either.
func (d *Document) twice() error {
	for _, of := range []kind{guarding, listening} {
		if _, err := pick(of, d.Plugins, "", ""); err != nil {
			return err
		}
		for _, s := range d.Services {
			for _, list := range [][]Plugin{s.Plugins, d.Plugins} {
				if _, err := pick(of, list, "", s.Name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// running finds the plugin of a kind that runs for a route.
func (d *Document) running(of kind, r Route, s *Service) (*Plugin, error) {
	for _, place := range []struct {
		list           []Plugin
		route, service string
	}{{r.Plugins, r.Name, ""}, {d.Plugins, r.Name, ""}, {s.Plugins, "", s.Name}, {d.Plugins, "", s.Name}, {d.Plugins, "", ""}} {
		if p, err := pick(of, place.list, place.route, place.service); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil //nolint:nilnil // none runs
}

// pick finds the plugin of a list that belongs to this very route or service, or (both empty) to all.
func pick(of kind, list []Plugin, route, service string) (*Plugin, error) {
	var found *Plugin
	for i := range list {
		p := &list[i]
		if kind(p.Name == Outcome) != of {
			continue
		}
		if p.Route != route || p.Service != service || (p.Enabled != nil && !*p.Enabled) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: the plugin is here twice", p.At)
		}
		found = p
	}
	return found, nil
}

// Rewrites reports whether the upstream may get another path than the client sent.
func (g Guarded) Rewrites() bool {
	base := g.Service.Path != "" && g.Service.Path != "/"
	return base || (g.Route.Strips() && slices.ContainsFunc(g.Route.Paths, func(p string) bool { return p != "/" }))
}
