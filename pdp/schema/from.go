package schema

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

// Sources are what is known of an API and its callers. What they say closes what Base leaves open.
type Sources struct {
	types, routes, params map[string]bool
	attributes            map[string]*Schema
	claims                map[string]*Schema
	properties            map[string]bool // of looked-up objects
	lookedUp              map[string]bool // types that have a look-up

	gateway  bool // a kong.yml was read: what the edge sends is known
	allAttrs bool // attributes has all there are
}

// Add reads a kong.yml, an OpenAPI 3 document, or a list of claims:
//
//	attributes: {department: string, clearance: integer} # all that tokens of any issuer can have
//	claims: {iss: string, amr: [string]}
//
// A list of names in place of a map does not say their types.
func (f *Sources) Add(file string, text []byte) error {
	var head struct {
		Kong       string    `yaml:"_format_version"`
		OpenAPI    string    `yaml:"openapi"`
		Attributes yaml.Node `yaml:"attributes"`
		Claims     yaml.Node `yaml:"claims"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return yamldoc.Error(file, err)
	}
	switch {
	case head.Kong != "":
		if err := f.kong(text); err != nil {
			return yamldoc.In(file, err)
		}
		return nil
	case strings.HasPrefix(head.OpenAPI, "3."):
		return f.openAPI(file, text)
	case head.Attributes.IsZero() && head.Claims.IsZero():
		return fmt.Errorf("%s: neither a kong.yml (_format_version), OpenAPI 3 (openapi) nor a list of claims (attributes, claims)", file)
	}
	var names struct{ Attributes, Claims yaml.Node }
	if _, err := yamldoc.Decode(file, text, &names); err != nil {
		return err
	}
	if !head.Attributes.IsZero() {
		all, err := members(file, &head.Attributes)
		if err != nil {
			return err
		}
		maps.Copy(at(&f.attributes), all)
		f.allAttrs = true
	}
	if !head.Claims.IsZero() {
		all, err := members(file, &head.Claims)
		if err != nil {
			return err
		}
		maps.Copy(at(&f.claims), all)
	}
	return nil
}

// Lookups notes what is fetched of objects: what stands in a policy folder as data.gatehouse.lookups.
func (f *Sources) Lookups(declared any) {
	kinds, _ := declared.(map[string]any)
	for kind, one := range kinds {
		at(&f.lookedUp)[kind] = true
		spec, _ := one.(map[string]any)
		names, _ := spec["properties"].(map[string]any)
		for name := range names {
			at(&f.properties)[name] = true
		}
	}
}

func at[V any](m *map[string]V) map[string]V {
	if *m == nil {
		*m = map[string]V{}
	}
	return *m
}

// members reads {name: type}, or a list of names.
func members(file string, n *yaml.Node) (map[string]*Schema, error) {
	all := map[string]*Schema{}
	n = yamldoc.Meant(n)
	switch n.Kind {
	case yaml.SequenceNode:
		for _, one := range n.Content {
			all[one.Value] = &Schema{}
		}
		return all, nil
	case yaml.MappingNode:
	default:
		return nil, fmt.Errorf("%s:%d: expected {name: type} or a list of names", file, n.Line)
	}
	for _, e := range yamldoc.Entries(n) {
		v := yamldoc.Meant(e.Value)
		one := &Schema{}
		if v.Kind == yaml.SequenceNode && len(v.Content) == 1 {
			all[e.Key.Value] = &Schema{Type: types{"array"}, Items: one}
			v = v.Content[0]
		} else {
			all[e.Key.Value] = one
		}
		if one.Type = (types{v.Value}); v.Kind != yaml.ScalarNode || one.Type.check() != nil {
			return nil, fmt.Errorf("%s:%d: %s: expected string, number, integer, boolean, object, or one of these in [ ]", file, v.Line, e.Key.Value)
		}
	}
	return all, nil
}

// kong reads what the edge sends: it runs as the plugin gatehouse.
func (f *Sources) kong(text []byte) error {
	doc, err := kongfile.Survey(text, "gatehouse")
	if err != nil {
		return err
	}
	guarded, err := doc.Guarded()
	if err != nil {
		return err
	}
	f.gateway = true
	for _, g := range guarded {
		if g.Plugin == nil || g.Plugin.Config["authorize"] == false {
			continue
		}
		at(&f.routes)[g.Route.Name] = true
		resources, _ := g.Plugin.Config["resources"].([]any)
		for _, one := range resources {
			resource, _ := one.(map[string]any)
			kind, _ := resource["type"].(string)
			pattern, _ := resource["pattern"].(string)
			if kind == "" || pattern == "" {
				return fmt.Errorf("route %s: a resource needs pattern and type", g.Route.Name)
			}
			at(&f.types)[kind] = true
			f.pattern(pattern)
		}
		issuers, _ := g.Plugin.Config["issuers"].([]any)
		for _, one := range issuers {
			issuer, _ := one.(map[string]any)
			claims, _ := issuer["claims"].(map[string]any)
			named, _ := claims["attribute_claims"].(map[string]any)
			for name := range named {
				at(&f.attributes)[name] = &Schema{}
			}
		}
	}
	return nil
}

func (f *Sources) pattern(pattern string) {
	for s := range strings.SplitSeq(pattern, "/") {
		if name, ok := strings.CutPrefix(s, "{"); ok && strings.HasSuffix(name, "}") {
			at(&f.params)[strings.TrimSuffix(name, "}")] = true
		}
	}
}

// openAPI reads the parameters of paths. They are called as the document calls them; with a kong.yml, its patterns say how the edge
// does, and both are known.
func (f *Sources) openAPI(file string, text []byte) error {
	var doc struct {
		Paths map[string]yaml.Node `yaml:"paths"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return yamldoc.Error(file, err)
	}
	if len(doc.Paths) == 0 {
		return errors.New(file + ": there are no paths")
	}
	at(&f.params)["id"] = true // what the edge calls the object's own
	for pattern := range doc.Paths {
		f.pattern(pattern)
	}
	return nil
}

// Schema is Base with all that the sources say.
func (f *Sources) Schema() *Schema {
	s := Base()
	subject, resource := s.at("subject"), s.at("resource")
	attributes := subject.at("attributes")
	if f.allAttrs {
		attributes.Properties, attributes.Additional = nil, Never()
	}
	attributes.add(f.attributes)
	subject.at("claims").add(f.claims)
	if f.gateway {
		subject.at("claims").Additional = Never()
		subject.at("properties").Additional = Never()
		s.at("context").Additional = Never()
		resource.Properties["service"] = Never()
		s.at("action", "properties").Additional = Never()
	}
	if len(f.types) > 0 {
		resource.at("type").Enum = words(f.types)
		if !slices.ContainsFunc(slices.Collect(maps.Keys(f.types)), func(kind string) bool { return !f.lookedUp[kind] }) {
			resource.at("properties").Additional = Never()
		}
	}
	if len(f.routes) > 0 {
		resource.at("route").Enum = words(f.routes)
	}
	if len(f.params) > 0 {
		params := resource.at("params")
		params.Properties, params.Additional = nil, Never()
		params.add(named(f.params, "string"))
	}
	resource.at("properties").add(named(f.properties))
	return s
}

// add names members.
func (s *Schema) add(members map[string]*Schema) {
	maps.Copy(at(&s.Properties), members)
}

func named(names map[string]bool, kind ...string) map[string]*Schema {
	all := map[string]*Schema{}
	for name := range names {
		all[name] = &Schema{Type: kind}
	}
	return all
}

func words(set map[string]bool) []any {
	var all []any
	for _, name := range slices.Sorted(maps.Keys(set)) {
		all = append(all, name)
	}
	return all
}
