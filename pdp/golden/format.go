package golden

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Of is the case of a request as the edge asks it. What no case can say, such as claims, is left out; decision and title are not
// filled in.
func Of(r authzen.Request, known map[string]any, at time.Time) (Case, error) {
	if r.Action.Name == "" || r.Resource.ID == "" {
		return Case{}, errors.New("a case needs a method and the resource's id")
	}
	c := Case{
		Who:  Who{ID: r.Subject.ID, Type: r.Subject.Type, Roles: words(r.Subject.Properties["roles"]), Groups: words(r.Subject.Properties["groups"])},
		Type: r.Resource.Type, Known: known, At: at.Truncate(time.Second), Context: map[string]any{},
	}
	if len(known) == 0 { // nothing was looked up, so what the request says of the object was believed
		c.Known = maps.Clone(r.Resource.Properties)
		maps.DeleteFunc(c.Known, func(name string, _ any) bool {
			return slices.Contains([]string{"path", "segments", "service", "route", "params"}, name)
		})
	}
	c.Who.Tenant, _ = r.Subject.Properties["tenant"].(string)
	attributes, _ := r.Subject.Properties["attributes"].(map[string]any)
	if attributes = maps.Clone(attributes); attributes != nil {
		if department, ok := attributes["department"].(string); ok {
			c.Who.Department = department
			delete(attributes, "department")
		}
		c.Who.Attributes = attributes
	}
	maps.Copy(c.Context, r.Context)
	c.From, _ = c.Context["ip"].(string)
	delete(c.Context, "ip")
	delete(c.Context, "time")
	c.Asks, c.Collection = asks(r)
	return c, nil
}

func words(v any) (all []string) {
	switch v := v.(type) {
	case []string:
		return v
	case []any:
		for _, one := range v {
			if s, ok := one.(string); ok {
				all = append(all, s)
			}
		}
	}
	return all
}

// asks is METHOD /path with the parameters that the edge found in it.
func asks(r authzen.Request) (text string, collection bool) {
	path, _ := r.Resource.Properties["path"].(string)
	params, _ := r.Resource.Properties["params"].(map[string]any)
	if strings.HasPrefix(r.Resource.ID, "/") && !strings.ContainsAny(r.Resource.ID, "{}") {
		return r.Action.Name + " " + r.Resource.ID, true
	}
	if path == "" || strings.HasPrefix(r.Resource.ID, "/") {
		if pattern := r.Resource.ID; strings.HasPrefix(pattern, "/") { // of an id that is not there
			for name, v := range params {
				pattern = strings.ReplaceAll(pattern, "{"+name+"}", fmt.Sprintf("{%s=%v}", name, v))
			}
			return r.Action.Name + " " + unnamed(pattern), false
		}
		return fmt.Sprintf("%s /%ss/{id=%s}", r.Action.Name, r.Resource.Type, r.Resource.ID), false
	}
	params = maps.Clone(params)
	if params == nil {
		params = map[string]any{}
	}
	params["id"] = r.Resource.ID
	segments := strings.Split(strings.Trim(path, "/"), "/")
	for i, s := range segments {
		for _, name := range slices.Sorted(maps.Keys(params)) {
			if params[name] == s && s != "" {
				segments[i] = "{" + name + "=" + s + "}"
				delete(params, name)
				break
			}
		}
	}
	return r.Action.Name + " /" + strings.Join(segments, "/"), false
}

// unnamed gives what is left of a pattern's parameters some value.
func unnamed(pattern string) string {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") && strings.HasSuffix(s, "}") && !strings.Contains(s, "=") {
			segments[i] = strings.TrimSuffix(s, "}") + "=x}"
		}
	}
	return strings.Join(segments, "/")
}

// Format is a case as a file of cases has it. What it says is what Parse reads.
func Format(c Case) ([]byte, error) {
	who := struct {
		ID         string         `yaml:"id,omitempty"`
		Type       string         `yaml:"type,omitempty"`
		Roles      []string       `yaml:"roles,omitempty,flow"`
		Groups     []string       `yaml:"groups,omitempty,flow"`
		Tenant     string         `yaml:"tenant,omitempty"`
		Department string         `yaml:"department,omitempty"`
		Attributes map[string]any `yaml:"attributes,omitempty,flow"`
	}{c.Who.ID, c.Who.Type, c.Who.Roles, c.Who.Groups, c.Who.Tenant, c.Who.Department, c.Who.Attributes}
	if who.Type == "user" {
		who.Type = ""
	}
	body := struct {
		Who        any            `yaml:"who,flow"`
		Asks       string         `yaml:"asks"`
		Collection bool           `yaml:"collection,omitempty"`
		Type       string         `yaml:"type,omitempty"`
		Known      map[string]any `yaml:"known,omitempty,flow"`
		At         string         `yaml:"at,omitempty"`
		From       string         `yaml:"from,omitempty"`
		Context    map[string]any `yaml:"context,omitempty,flow"`
		Decision   string         `yaml:"decision"`
		Reasons    []string       `yaml:"reasons,omitempty,flow"`
	}{who, c.Asks, c.Collection, c.Type, c.Known, "", c.From, c.Context, c.Decision, c.Reasons}
	if !c.At.IsZero() {
		body.At = c.At.UTC().Format(time.RFC3339)
	}
	var b strings.Builder
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(map[string]any{c.Title: body}); err != nil {
		return nil, err
	}
	// A time in quotes is read as one, too.
	if _, err := Parse("case", []byte(b.String())); err != nil {
		return nil, fmt.Errorf("what was decided cannot be written as a case: %w", err)
	}
	return []byte(b.String()), nil
}
