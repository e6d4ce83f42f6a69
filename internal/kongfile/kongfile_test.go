package kongfile

import (
	"strings"
	"testing"
)

// S53: which plugin guards a route is never a guess.
func TestTheClosestPluginGuardsARoute(t *testing.T) {
	t.Parallel()
	d, err := Parse([]byte(`
_format_version: "3.0"
services:
  - name: a
    url: https://a.test/base
    plugins: [{name: g, config: {n: service}}]
    routes:
      - {name: own, paths: [/own], plugins: [{name: g, config: {n: own}}]}
      - {name: inherits, paths: [/inherits]}
      - {name: disabled, paths: [/disabled], plugins: [{name: g, enabled: false}]}
  - {name: b, url: "http://b.test", routes: [{name: global, paths: [/global]}]}
  - {name: c, url: "http://c.test:81", routes: [{name: by-service, paths: [/by-service]}]}
routes:
  - {name: named, service: b, paths: [/named]}
plugins:
  - {name: g, config: {n: everywhere}}
  - {name: g, route: named, config: {n: named}}
  - {name: g, service: c, config: {n: of c}}
`))
	if err != nil {
		t.Fatal(err)
	}
	routes, err := d.Guarded()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"own": "own", "inherits": "service", "disabled": "service", "global": "everywhere", "by-service": "of c", "named": "named"}
	for _, r := range routes {
		if got := r.Plugin.Config["n"]; got != want[r.Route.Name] {
			t.Errorf("%s is guarded by %v, want %s", r.Route.Name, got, want[r.Route.Name])
		}
		delete(want, r.Route.Name)
	}
	if len(want) > 0 {
		t.Errorf("routes that are missing: %v", want)
	}
	if s := routes[0].Service; s.Protocol != "https" || s.Port != 443 || s.Path != "/base" {
		t.Errorf("service %+v", s)
	}
	if p := routes[0].Plugin; p.At != "services[0].routes[0].plugins[0]" || p.Route != "own" || p.Service != "" || routes[1].Plugin.Service != "a" {
		t.Errorf("plugins %+v, %+v", p, routes[1].Plugin)
	}
}

// surveyed answers what a survey sees that looks for the plugin g.
func surveyed(t *testing.T, file string) (Document, []Guarded) {
	t.Helper()
	d, err := Survey([]byte(file), "g")
	if err != nil {
		t.Fatal(err)
	}
	routes, err := d.Guarded()
	if err != nil {
		t.Fatal(err)
	}
	return d, routes
}

// Two of other plugins on one route are no mistake to who looks at the guard alone, and stand where they stood.
func TestOnlySomePlugins(t *testing.T) {
	t.Parallel()
	d, routes := surveyed(t, `
_format_version: "3.0"
services:
  - name: a
    url: http://a.test
    plugins: [{name: cors}, {name: acl}]
    routes:
      - {name: guarded, paths: [/guarded], plugins: [{name: cors}, {name: g}, {name: acl}]}
      - {name: bare, paths: [/bare], plugins: [{name: cors}, {name: acl}]}
routes: [{name: third, service: a, paths: [/third], plugins: [{name: acl}, {name: g}]}]
plugins: [{name: cors}, {name: acl}]
`)
	if routes[0].Plugin.At != "services[0].routes[0].plugins[1]" || routes[1].Plugin != nil || routes[2].Plugin.At != "routes[0].plugins[1]" || len(d.AllPlugins()) != 2 {
		t.Errorf("routes %+v", routes)
	}
}

// What a gateway has beside routes and guards is no reason not to look at these, and a guard before some consumers guards no route.
func TestASurveyPassesOverWhatIsNoneOfItsBusiness(t *testing.T) {
	t.Parallel()
	_, routes := surveyed(t, `
_format_version: "1.1"
_info: {select_tags: [a]}
consumers: [{username: ann, plugins: [{name: rate-limiting}]}]
certificates: [{cert: x, key: y}]
upstreams: [{name: u, targets: [{target: u.test}]}]
services:
  - name: a
    url: http://a.test
    tls_verify: true
    plugins: [{name: g, consumer: ann, config: {n: some}}, {name: g, config: {n: all}}]
    routes:
      - {name: own, paths: [/own], path_handling: v1, plugins: [{name: g, consumer_group: {name: gold}}]}
  - {name: b, url: "http://b.test", routes: [{name: bare, paths: [/bare]}]}
plugins: [{name: g, consumer: {username: ann}}]
`)
	if len(routes) != 2 || routes[0].Plugin == nil || routes[0].Plugin.Config["n"] != "all" || routes[1].Plugin != nil {
		t.Errorf("routes %+v", routes)
	}
	for file, want := range map[string]string{
		"_format_version: \"3.0\"\nservices: [{url: \"http://h\"}]": "services[0].name: required",
		"_format_version: \"2.0\"":                                  "_format_version: expected 3.0, 2.1 or 1.1",
	} {
		if _, err := Survey([]byte(file)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", file, err, want)
		}
	}
}

func TestAFileThatGuardsNothingIsRefused(t *testing.T) {
	t.Parallel()
	const head = "_format_version: \"3.0\"\nservices: [{name: s, url: \"http://h\", routes: [{name: r, paths: [/r]}]}]\n"
	for _, c := range []struct{ file, want string }{
		{head + "plugins: [{name: g, route: typo}]", "plugins[0].route: no route of this name"},
		{head + "plugins: [{name: g, service: typo}]", "plugins[0].service: no service of this name"},
		{head + "plugins: [{name: g, service: s, route: r}]", "not both"},
		{head + "plugins: [{name: g}, {name: g}]", "plugins[1]: the plugin is here twice"},
		{head + "routes: [{name: x, service: typo, paths: [/x]}]", "routes[0].service: no service of this name"},
		{strings.Replace(head, "paths: [/r]", "paths: [/r], plugins: [{name: g, route: x}]", 1), "services[0].routes[0].plugins[0]: it stands in a route"},
		{head + "consumers: []", "consumers"},
		{head + "plugins: [{name: g, consumer: ann}]", "plugins[0]: consumers are not known here"},
		{strings.Replace(head, "paths: [/r]", "paths: [/r], plugins: [{name: g, consumer_group: {name: gold}}]", 1), "services[0].routes[0].plugins[0]: consumers"},
	} {
		d, err := Parse([]byte(c.file))
		if err == nil {
			_, err = d.Guarded()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// The plugin that is told of answers stands beside the one that guards, and neither for the other.
func TestAnswersAreToldToAPluginOfTheirOwn(t *testing.T) {
	t.Parallel()
	const head = "_format_version: \"3.0\"\nservices: [{name: s, url: \"http://h\", routes: [{name: r, paths: [/r], plugins: [{name: g}, {name: gatehouse-outcome, config: {n: own}}]}, {name: x, paths: [/x]}]}]\n"
	d, err := Parse([]byte(head + "plugins: [{name: gatehouse-outcome, service: s, config: {n: of s}}]"))
	if err != nil {
		t.Fatal(err)
	}
	routes, err := d.Guarded()
	if err != nil {
		t.Fatal(err)
	}
	if r := routes[0]; r.Plugin.Name != "g" || r.Outcome.Config["n"] != "own" {
		t.Errorf("%+v, %+v", r.Plugin, r.Outcome)
	}
	if x := routes[1]; x.Plugin != nil || x.Outcome.Config["n"] != "of s" {
		t.Errorf("%+v, %+v", x.Plugin, x.Outcome)
	}
	if d, err = Parse([]byte(head + "plugins: [{name: gatehouse-outcome}, {name: gatehouse-outcome}]")); err == nil {
		_, err = d.Guarded()
	}
	if err == nil || !strings.Contains(err.Error(), "plugins[1]: the plugin is here twice") {
		t.Errorf("two of them: %v", err)
	}
}
