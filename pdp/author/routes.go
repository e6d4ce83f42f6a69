package author

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
)

// Operation is something that an API offers: a method on a path pattern, such as GET /orders/{id}.
type Operation struct {
	Method  string `json:"method"`
	Pattern string `json:"pattern"`
	Type    string `json:"type"` // of the resource, as policies know it
}

// object reports whether an operation is on one object, not on a collection.
func (o Operation) object() bool { return strings.Contains(o.Pattern, "{id}") }

// Routes are what a gateway or an API offers.
type Routes struct {
	Gateway    bool        `json:"gateway"` // read from a kong.yml
	Operations []Operation `json:"operations"`
	Open       []string    `json:"open"`    // what no policy is asked about
	Nowhere    []string    `json:"nowhere"` // routes that a policy is asked about, with no resource that it could know: all is denied
}

// Methods that are taken where nothing says which there are.
var (
	onCollections = []string{"GET", "POST"}
	onObjects     = []string{"GET", "PUT", "PATCH", "DELETE"}
)

// What can stand in YAML as it is.
var (
	plainPattern = regexp.MustCompile(`^(/([A-Za-z0-9._~-]+|\{[A-Za-z0-9_]+\}))+$`)
	plainWord    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`)
)

// ParseRoutes reads a kong.yml or an OpenAPI 3 document, as YAML or JSON.
func ParseRoutes(file string, text []byte) (Routes, error) {
	var head struct {
		Kong    string `yaml:"_format_version"`
		OpenAPI string `yaml:"openapi"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return Routes{}, yamldoc.Error(file, err)
	}
	var r Routes
	var err error
	switch {
	case head.Kong != "":
		r, err = kongRoutes(text)
		r.Gateway = true
	case strings.HasPrefix(head.OpenAPI, "3."):
		r, err = openAPIRoutes(file, text)
	default:
		err = errors.New("neither a kong.yml (_format_version) nor OpenAPI 3 (openapi)")
	}
	if err != nil {
		return Routes{}, fmt.Errorf("%s: %w", file, err)
	}
	seen := map[Operation]bool{}
	r.Operations = slices.DeleteFunc(r.Operations, func(o Operation) bool {
		if !plainPattern.MatchString(o.Pattern) || !plainWord.MatchString(o.Type) || !plainWord.MatchString(o.Method) {
			r.Nowhere = append(r.Nowhere, fmt.Sprintf("%q, type %q, which is spelt in an unusual way", o.Method+" "+o.Pattern, o.Type))
			return true
		}
		twice := seen[o]
		seen[o] = true
		return twice
	})
	return r, nil
}

func kongRoutes(text []byte) (r Routes, err error) {
	doc, err := kongfile.Parse(text)
	if err != nil {
		return r, err
	}
	guarded, err := doc.Guarded()
	if err != nil {
		return r, err
	}
	for _, g := range guarded {
		name := fmt.Sprintf("route %s (%s)", g.Route.Name, strings.Join(g.Route.Paths, ", "))
		if g.Plugin == nil || g.Plugin.Name != "gatehouse" || g.Plugin.Config["authorize"] == false {
			r.Open = append(r.Open, name)
			continue
		}
		resources, _ := g.Plugin.Config["resources"].([]any)
		if len(resources) == 0 {
			r.Nowhere = append(r.Nowhere, name)
		}
		for _, one := range resources {
			resource, _ := one.(map[string]any)
			pattern, _ := resource["pattern"].(string)
			kind, _ := resource["type"].(string)
			if pattern == "" || kind == "" {
				return r, fmt.Errorf("%s: a resource needs pattern and type", name)
			}
			o := Operation{Pattern: pattern, Type: kind}
			if strings.Contains(pattern, "{") && !o.object() {
				r.Nowhere = append(r.Nowhere, fmt.Sprintf("%s of %s, which has parameters and none is {id}", pattern, name))
				continue
			}
			ids, _ := resource["ids"].(map[string]any)
			action, _ := resource["action"].(string)
			if in := ids["in"]; in == "query" || in == "body" { // to the policy, one object at a time
				r.add(Operation{Pattern: strings.TrimSuffix(pattern, "/") + "/{id}", Type: kind}, action, g.Route.Methods)
				if ids["optional"] != true {
					continue
				}
			}
			r.add(o, action, g.Route.Methods)
		}
	}
	return r, nil
}

// add adds o with the action that the policy sees, or else with each method.
func (r *Routes) add(o Operation, action string, methods []string) {
	switch {
	case action != "":
		methods = []string{action}
	case len(methods) > 0:
	case o.object():
		methods = onObjects
	default:
		methods = onCollections
	}
	for _, o.Method = range methods {
		r.Operations = append(r.Operations, o)
	}
}

func openAPIRoutes(file string, text []byte) (r Routes, err error) {
	type operation struct {
		Security *[]map[string][]string `yaml:"security"`
	}
	var doc struct {
		Security []map[string][]string           `yaml:"security"`
		Paths    map[string]map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return r, yamldoc.Error(file, err)
	}
	for _, pattern := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range []string{"get", "post", "put", "patch", "delete"} {
			node, ok := doc.Paths[pattern][method]
			if !ok {
				continue
			}
			var o operation
			if err := node.Decode(&o); err != nil {
				return r, yamldoc.Error(file, err)
			}
			security := doc.Security
			if o.Security != nil {
				security = *o.Security
			}
			name := strings.ToUpper(method)
			if len(security) == 0 {
				r.Open = append(r.Open, name+" "+pattern)
				continue
			}
			kind := kindOf(pattern)
			if kind == "" {
				r.Nowhere = append(r.Nowhere, name+" "+pattern)
				continue
			}
			r.Operations = append(r.Operations, Operation{name, withID(pattern), kind})
		}
	}
	return r, nil
}

// withID calls the last parameter of a pattern {id}, as the edge needs it.
func withID(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range slices.Backward(segments) {
		if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") {
			segments[i] = "{id}"
			break
		}
	}
	return strings.Join(segments, "/")
}

// kindOf is what /v1/orders/{id} is about: an order.
func kindOf(pattern string) string {
	segments := strings.Split(strings.Trim(pattern, "/"), "/")
	for _, s := range slices.Backward(segments) {
		switch {
		case s == "" || strings.HasPrefix(s, "{"):
			continue
		case strings.HasSuffix(s, "ies"):
			return strings.TrimSuffix(s, "ies") + "y"
		case strings.HasSuffix(s, "s") && !strings.HasSuffix(s, "ss"):
			return strings.TrimSuffix(s, "s")
		}
		return s
	}
	return ""
}
