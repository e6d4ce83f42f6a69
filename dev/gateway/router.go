package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// route is a route of kong.yml together with its service.
type route struct {
	spec    routeSpec
	service *service
	plugin  *instance // nil: no plugin
	id      string
}

type service struct {
	spec serviceSpec
	id   string
	pool *pool
}

// entry is one path of one route; a route without paths has one entry with an empty prefix.
type entry struct {
	route   *route
	methods []string
	hosts   []string
	prefix  string
	regex   *regexp.Regexp
	kinds   int
	order   int
}

// router finds the route of a request as Kong's traditional_compatible flavour does: more kinds of condition first, then
// exact hosts, then regular expressions by regex_priority, then the longest prefix, then the order of the file.
type router struct{ entries []entry }

func newRouter(routes []*route) (*router, error) {
	r := &router{}
	names := map[string]bool{}
	for _, rt := range routes {
		s := rt.spec
		if s.Name == "" {
			return nil, errors.New("route: name: required")
		}
		if names[s.Name] {
			return nil, fmt.Errorf("route %s: name: not unique", s.Name)
		}
		names[s.Name] = true
		base := entry{route: rt, methods: s.Methods, hosts: s.Hosts}
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
		cmp.Compare(b.route.spec.RegexPriority, a.route.spec.RegexPriority),
		cmp.Compare(len(b.prefix), len(a.prefix)),
		cmp.Compare(a.order, b.order),
	)
}

func (e entry) plainHosts() bool {
	return len(e.hosts) > 0 && !slices.ContainsFunc(e.hosts, func(h string) bool { return strings.Contains(h, "*") })
}

// match answers the route and the path that its service will get (before the query), or nil. The path is compared as
// the client sent it.
func (r *router) match(method, host, path string) (*route, string) {
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
		return e.route, e.route.upstreamPath(path, matched)
	}
	return nil, ""
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
func (rt *route) upstreamPath(path, matched string) string {
	if rt.spec.StripPath == nil || *rt.spec.StripPath {
		path = strings.TrimPrefix(path, matched)
	}
	base := rt.service.spec.Path
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
