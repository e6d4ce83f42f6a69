package author

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

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
	Offers     []Offer     `json:"-"`       // all of these, as the file has them
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

// ParseRoutes reads a kong.yml or an OpenAPI 3 document, as YAML or JSON. Errors are "file:line: what", where there is a line.
func ParseRoutes(file string, text []byte) (Routes, error) {
	var head struct {
		Kong    string `yaml:"_format_version"`
		OpenAPI string `yaml:"openapi"`
	}
	if err := yaml.Unmarshal(text, &head); err != nil {
		return Routes{}, yamldoc.Error(file, err)
	}
	r := Routes{Gateway: head.Kong != ""}
	var err error
	switch {
	case r.Gateway:
		r.Offers, err = kongOffers(file, text)
	case strings.HasPrefix(head.OpenAPI, "3."):
		r.Offers, err = openAPIOffers(file, text)
	default:
		err = fmt.Errorf("%s: neither a kong.yml (_format_version) nor OpenAPI 3 (openapi)", file)
	}
	if err != nil {
		return Routes{}, err
	}
	r.gather()
	return r, nil
}

// gather sorts out what a policy can be asked about.
func (r *Routes) gather() {
	seen := map[Operation]bool{}
	for i := range r.Offers {
		o := &r.Offers[i]
		name := o.Route
		if name == "" {
			name = o.Method + " " + o.Pattern
		}
		switch {
		case o.Guard == Unguarded || o.Guard == Unasked || o.Guard == Idle:
			if !slices.Contains(r.Open, name) {
				r.Open = append(r.Open, name)
			}
		case o.Type == "" && o.Route != "" && o.Pattern != "":
			r.Nowhere = append(r.Nowhere, fmt.Sprintf("%s of %s, which has parameters and none is {id}", o.Pattern, name))
		case o.Type == "":
			r.Nowhere = append(r.Nowhere, name)
		case !plainPattern.MatchString(o.Pattern) || !plainWord.MatchString(o.Type) || !plainWord.MatchString(o.Method):
			r.Nowhere = append(r.Nowhere, fmt.Sprintf("%q, type %q, which is spelt in an unusual way", o.Method+" "+o.Pattern, o.Type))
			o.Type = ""
		case !seen[o.Operation]:
			seen[o.Operation] = true
			r.Operations = append(r.Operations, o.Operation)
		}
	}
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
