package author

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
)

// What stands before an operation.
const (
	Enforced  = "enforced"  // a policy is asked, and what it says counts
	Observed  = "observed"  // a policy is asked, and what it denies goes on
	Unasked   = "unasked"   // whoever wrote the file says that no policy is asked
	Idle      = "idle"      // that, and nothing else that the guard finds counts either
	Unguarded = "unguarded" // nothing
)

// Offer is an operation as a file has it. Its type is "" where no resource stands for it, its pattern a path of the route where no
// policy is asked, and its method "any" where neither says which.
type Offer struct {
	Operation
	Route string `json:"route,omitempty"` // of a gateway, with its paths
	File  string `json:"file"`
	Line  int    `json:"line,omitempty"`
	Guard string `json:"guard"`

	guessed bool   // nothing says which methods there are
	named   string // the route's name alone, as policies see it
	anybody bool   // no token is needed
}

const anyMethod = "any"

func kongOffers(file string, text []byte) (all []Offer, err error) {
	doc, err := kongfile.Survey(text, "gatehouse")
	if err != nil {
		return nil, yamldoc.In(file, err)
	}
	guarded, err := doc.Guarded()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	where, err := placesOf(file, text)
	if err != nil {
		return nil, err
	}
	for i, g := range guarded {
		o := Offer{File: file, Line: where.route(i, len(guarded)), Guard: Enforced, named: g.Route.Name,
			Route: fmt.Sprintf("route %s (%s)", g.Route.Name, strings.Join(g.Route.Paths, ", "))}
		o.anybody = g.Plugin != nil && g.Plugin.Config["identify"] != nil && g.Plugin.Config["identify"] != "required"
		asked := g.Plugin != nil && g.Plugin.Config["authorize"] != false
		switch {
		case g.Plugin == nil:
			o.Guard = Unguarded
		case g.Plugin.Config["mode"] == "observe" && (asked || g.Plugin.Config["identify"] != "none"):
			if o.Guard = Observed; !asked {
				o.Guard = Idle
			}
		case !asked:
			o.Guard = Unasked
		}
		if !asked {
			all = append(all, o.paths(g.Route)...)
			continue
		}
		resources, _ := g.Plugin.Config["resources"].([]any)
		if len(resources) == 0 {
			o.Method = anyMethod
			all = append(all, o)
		}
		for j, one := range resources {
			some, err := o.resource(one, g.Route.Methods)
			if err != nil {
				return nil, fmt.Errorf("%s:%d: %s: %w", file, o.Line, o.Route, err)
			}
			if line := where.resource(g.Plugin.At, j); line > 0 {
				for k := range some {
					some[k].Line = line
				}
			}
			all = append(all, some...)
		}
	}
	return all, nil
}

// paths are those of a route that no policy is asked about.
func (o Offer) paths(r kongfile.Route) (all []Offer) {
	for _, o.Pattern = range orOne(r.Paths, "/") {
		for _, o.Method = range orOne(r.Methods, anyMethod) {
			all = append(all, o)
		}
	}
	return all
}

func orOne(words []string, one string) []string {
	if len(words) == 0 {
		return []string{one}
	}
	return words
}

// resource is what a policy is asked about one of the plugin's resources.
func (o Offer) resource(one any, methods []string) (all []Offer, err error) {
	resource, _ := one.(map[string]any)
	o.Pattern, _ = resource["pattern"].(string)
	o.Type, _ = resource["type"].(string)
	if o.Pattern == "" || o.Type == "" {
		return nil, errors.New("a resource needs pattern and type")
	}
	if strings.Contains(o.Pattern, "{") && !o.object() {
		o.Method, o.Type = anyMethod, ""
		return []Offer{o}, nil
	}
	ids, _ := resource["ids"].(map[string]any)
	action, _ := resource["action"].(string)
	if in := ids["in"]; in == "query" || in == "body" { // to the policy, one object at a time
		each := o
		each.Pattern = strings.TrimSuffix(o.Pattern, "/") + "/{id}"
		all = each.by(action, methods)
		if ids["optional"] != true {
			return all, nil
		}
	}
	return append(all, o.by(action, methods)...), nil
}

// by is o with the action that the policy sees, or else with each method.
func (o Offer) by(action string, methods []string) (all []Offer) {
	switch {
	case action != "":
		methods = []string{action}
	case len(methods) > 0:
	case o.object():
		methods, o.guessed = onObjects, true
	default:
		methods, o.guessed = onCollections, true
	}
	for _, o.Method = range methods {
		all = append(all, o)
	}
	return all
}

func openAPIOffers(file string, text []byte) (all []Offer, err error) {
	type operation struct {
		Security *[]map[string][]string `yaml:"security"`
	}
	var doc struct {
		Security []map[string][]string           `yaml:"security"`
		Paths    map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, yamldoc.Error(file, err)
	}
	where, err := placesOf(file, text)
	if err != nil {
		return nil, err
	}
	for _, pattern := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			node, ok := doc.Paths[pattern][method]
			if !ok {
				continue
			}
			var said operation
			if err := node.Decode(&said); err != nil {
				return nil, yamldoc.Error(file, err)
			}
			security := doc.Security
			if said.Security != nil {
				security = *said.Security
			}
			o := Offer{Operation: Operation{strings.ToUpper(method), pattern, ""}, File: file, Line: where.operation(pattern, method), Guard: Enforced}
			if anonymous(security) {
				o.Guard = Unasked
			} else if o.Type = kindOf(pattern); o.Type != "" {
				o.Pattern = withID(pattern)
			}
			all = append(all, o)
		}
	}
	return all, nil
}

// anonymous reports whether nobody has to say who they are: there are no requirements, or one of the alternatives is empty.
func anonymous(security []map[string][]string) bool {
	return len(security) == 0 || slices.ContainsFunc(security, func(one map[string][]string) bool { return len(one) == 0 })
}

// places knows the lines of a file. Where a thing is not written as usual (merged into a mapping, say) there is none.
type places struct{ root *yaml.Node }

func placesOf(file string, text []byte) (places, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return places{}, yamldoc.Error(file, err)
	}
	if len(doc.Content) == 0 {
		return places{}, nil
	}
	return places{doc.Content[0]}, nil
}

func items(n *yaml.Node) []*yaml.Node {
	if n = yamldoc.Meant(n); n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

// route is the line of the i-th of n routes, in the order of kongfile.
func (p places) route(i, n int) int {
	var all []*yaml.Node
	for _, s := range items(yamldoc.Member(p.root, "services")) {
		all = append(all, items(yamldoc.Member(s, "routes"))...)
	}
	all = append(all, items(yamldoc.Member(p.root, "routes"))...)
	if len(all) != n {
		return 0
	}
	return all[i].Line
}

// resource is the line of the j-th resource of a plugin, which stands at services[0].routes[1].plugins[2].
func (p places) resource(plugin string, j int) int {
	at := p.root
	for step := range strings.SplitSeq(plugin, ".") {
		var name string
		var i int
		if _, err := fmt.Sscanf(strings.NewReplacer("[", " ", "]", "").Replace(step), "%s %d", &name, &i); err != nil {
			return 0
		}
		list := items(yamldoc.Member(at, name))
		if i >= len(list) {
			return 0
		}
		at = list[i]
	}
	if list := items(yamldoc.Member(yamldoc.Member(at, "config"), "resources")); j < len(list) {
		return list[j].Line
	}
	return 0
}

// operation is the line of a method of an OpenAPI document.
func (p places) operation(pattern, method string) int {
	for _, e := range yamldoc.Entries(yamldoc.Member(yamldoc.Member(p.root, "paths"), pattern)) {
		if e.Key.Value == method {
			return e.Key.Line
		}
	}
	return 0
}
