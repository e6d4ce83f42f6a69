package kongfile

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// entry is one path of one route; a route without paths has one entry with an empty prefix.
type entry struct {
	guarded int // its place among what NewRouter was given
	route   Route
	service *Service
	methods []string
	hosts   []string
	prefix  string
	regex   *regexp.Regexp
	kinds   int
	order   int
}

// Router finds the route of a request as Kong's traditional_compatible flavour does: more kinds of condition first, then
// exact hosts, then regular expressions by regex_priority, then the longest prefix, then the order of the file.
type Router struct{ entries []entry }

// NewRouter refuses routes that could not be told apart or that match nothing.
func NewRouter(routes []Guarded) (*Router, error) {
	r := &Router{}
	names := map[string]bool{}
	for n, rt := range routes {
		s := rt.Route
		if s.Name == "" {
			return nil, errors.New("route: name: required")
		}
		if names[s.Name] {
			return nil, fmt.Errorf("route %s: name: not unique", s.Name)
		}
		names[s.Name] = true
		base := entry{guarded: n, route: s, service: rt.Service, methods: s.Methods, hosts: s.Hosts}
		for _, given := range []int{len(s.Methods), len(s.Hosts), len(s.Paths)} {
			if given > 0 {
				base.kinds++
			}
		}
		if base.kinds == 0 {
			return nil, fmt.Errorf("route %s: must set one of 'methods', 'hosts', 'paths'", s.Name)
		}
		paths := s.Paths
		if len(paths) == 0 {
			paths = []string{""}
		}
		for i, p := range paths {
			e := base
			e.order = len(r.entries)
			switch {
			case strings.HasPrefix(p, "~"):
				re, err := regexp.Compile("^(?:" + p[1:] + ")")
				if err != nil {
					return nil, fmt.Errorf("route %s: paths[%d]: %w", s.Name, i, err)
				}
				e.regex = re
			case p == "" && len(s.Paths) == 0, strings.HasPrefix(p, "/"):
				e.prefix = p
			default:
				return nil, fmt.Errorf("route %s: paths[%d]: should start with: / (fixed path) or ~/ (regex path)", s.Name, i)
			}
			r.entries = append(r.entries, e)
		}
	}
	slices.SortStableFunc(r.entries, before)
	return r, nil
}

func before(a, b entry) int {
	rank := func(yes bool) int {
		if yes {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(b.kinds, a.kinds),
		cmp.Compare(rank(a.plainHosts()), rank(b.plainHosts())),
		cmp.Compare(rank(a.regex != nil), rank(b.regex != nil)),
		cmp.Compare(b.route.RegexPriority, a.route.RegexPriority),
		cmp.Compare(len(b.prefix), len(a.prefix)),
		cmp.Compare(a.order, b.order),
	)
}

func (e entry) plainHosts() bool {
	return len(e.hosts) > 0 && !slices.ContainsFunc(e.hosts, func(h string) bool { return strings.Contains(h, "*") })
}

// Match answers the place of the route among those of NewRouter, and the path that its service will get (before the query);
// -1 for no route. The path is compared as the client sent it.
func (r *Router) Match(method, host, path string) (place int, upstreamPath string) {
	for _, e := range r.entries {
		if len(e.methods) > 0 && !slices.Contains(e.methods, method) {
			continue
		}
		if len(e.hosts) > 0 && !slices.ContainsFunc(e.hosts, func(pattern string) bool { return hostMatches(pattern, host) }) {
			continue
		}
		matched := e.prefix
		if e.regex != nil {
			loc := e.regex.FindStringIndex(path)
			if loc == nil {
				continue
			}
			matched = path[:loc[1]]
		} else if !strings.HasPrefix(path, e.prefix) {
			continue
		}
		return e.guarded, e.upstreamPath(path, matched)
	}
	return -1, ""
}

func hostMatches(pattern, host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil && !strings.Contains(pattern, ":") {
		host = h
	}
	pattern, host = strings.ToLower(pattern), strings.ToLower(host)
	switch {
	case strings.HasPrefix(pattern, "*."):
		return strings.HasSuffix(host, pattern[1:])
	case strings.HasSuffix(pattern, ".*"):
		return strings.HasPrefix(host, pattern[:len(pattern)-1])
	}
	return pattern == host
}

// upstreamPath joins the service's path with the request's (path_handling v0). strip_path is true by default, as in Kong.
func (e entry) upstreamPath(path, matched string) string {
	if e.route.Strips() {
		path = strings.TrimPrefix(path, matched)
	}
	base := e.service.Path
	if base == "" || base == "/" {
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		return path
	}
	if path == "" {
		return base
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.TrimPrefix(path, "/")
}
