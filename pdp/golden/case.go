// Package golden holds decisions as people write them down: cases, and tables of role × route × condition. The author's tools test
// policies by them, and the engine puts no policy in force that decides one otherwise.
//
// It knows neither policies nor engines: a case is asked as the edge asks, with what a look-up would have found.
package golden

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Dir is where cases lie in a policy folder. Nothing there is data for rules.
const (
	Dir          = "cases"
	matrixSuffix = ".matrix.yaml"
)

// Who asks.
type Who struct {
	ID, Type, Tenant, Department string
	Roles, Groups                []string
	Attributes                   map[string]any // beside the department
}

// Case is a decision as a person writes it down.
type Case struct {
	Title string `yaml:"-"`
	File  string `yaml:"-"` // with the folder
	Line  int    `yaml:"-"`

	Who        Who
	Asks       string         // METHOD /path; {id=17} in the path is 17, where the pattern of the gateway has {id}
	Collection bool           // the path names a collection, though it has two segments or more and no {id}
	Type       string         // of the resource; default order
	Known      map[string]any // what the API says of the object
	At         time.Time      // default a Tuesday, 10:00 UTC
	From       string         // address; default a private one
	Context    map[string]any // what else is known of the request, such as risk or acr
	Decision   string         // allow or deny
	Reasons    []string       // not looked at where there are none
}

// Complete fills in what the head of policies/cases/orders.yaml promises, and refuses what says nothing.
func (c *Case) Complete() error {
	if c.At.IsZero() {
		c.At = time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)
	}
	if c.From == "" {
		c.From = "10.1.2.3"
	}
	if c.Who.Type == "" {
		c.Who.Type = "user"
	}
	if c.Type == "" {
		c.Type = "order"
	}
	if method, rest, ok := strings.Cut(c.Asks, " "); !ok || method == "" || !strings.HasPrefix(rest, "/") {
		return fmt.Errorf("asks: %q is not METHOD /path", c.Asks)
	}
	for segment := range strings.SplitSeq(c.Asks, "/") {
		if _, _, ok := parameter(segment); !ok && strings.ContainsAny(segment, "{}") {
			return fmt.Errorf("asks: %q is not {name=value}", segment)
		}
	}
	if c.Decision != "allow" && c.Decision != "deny" {
		return fmt.Errorf("decision: %q is neither allow nor deny", c.Decision)
	}
	return nil
}

// parameter is {id=17}.
func parameter(segment string) (name, value string, ok bool) {
	inner, ok := strings.CutPrefix(segment, "{")
	if !ok || !strings.HasSuffix(inner, "}") {
		return "", "", false
	}
	name, value, ok = strings.Cut(strings.TrimSuffix(inner, "}"), "=")
	return name, value, ok && name != "" && value != ""
}

// target is the path that is asked for, with the id and the parameters that the edge would find in it: an object is what its
// pattern has {id} for, all else is named by the pattern. A path that says nothing of its pattern is /collection/id.
func (c *Case) target() (path, id string, segments []string, params map[string]any) {
	_, text, _ := strings.Cut(c.Asks, " ")
	params = map[string]any{}
	segments = strings.Split(strings.Trim(text, "/"), "/")
	if !strings.ContainsAny(text, "{}") {
		if len(segments) < 2 || c.Collection {
			return text, text, segments, params
		}
		params["id"] = segments[1]
		return text, segments[1], segments, params
	}
	pattern := slices.Clone(segments)
	for i, s := range segments {
		if name, value, ok := parameter(s); ok {
			segments[i], pattern[i], params[name] = value, "{"+name+"}", value
		}
	}
	if id, _ = params["id"].(string); id == "" {
		id = "/" + strings.Join(pattern, "/")
	}
	return "/" + strings.Join(segments, "/"), id, segments, params
}

// Pattern is the path's, as /orders/{id}.
func (c *Case) Pattern() string {
	_, text, _ := strings.Cut(c.Asks, " ")
	segments := strings.Split(strings.Trim(text, "/"), "/")
	for i, s := range segments {
		if name, _, ok := parameter(s); ok {
			segments[i] = "{" + name + "}"
		}
	}
	if !strings.ContainsAny(text, "{}") && len(segments) > 1 && !c.Collection {
		segments[1] = "{id}"
	}
	return "/" + strings.Join(segments, "/")
}

// Request asks as the edge does.
func (c *Case) Request() authzen.Request {
	method, _, _ := strings.Cut(c.Asks, " ")
	target, id, segments, params := c.target()
	attributes := map[string]any{}
	for name, v := range c.Who.Attributes {
		attributes[name] = v
	}
	if c.Who.Department != "" {
		attributes["department"] = c.Who.Department
	}
	context := map[string]any{}
	for name, v := range c.Context {
		context[name] = v
	}
	context["ip"] = c.From
	return authzen.Request{
		Subject: authzen.Subject{Type: c.Who.Type, ID: c.Who.ID, Properties: map[string]any{
			"roles": listOf(c.Who.Roles), "groups": listOf(c.Who.Groups), "tenant": c.Who.Tenant, "attributes": attributes,
		}},
		Action: authzen.Action{Name: method},
		Resource: authzen.Resource{Type: c.Type, ID: id, Properties: map[string]any{
			"path": target, "segments": segments, "params": params,
		}},
		Context: context,
	}
}

func listOf(words []string) []string {
	if words == nil {
		return []string{}
	}
	return words
}

// Found is what a look-up would have found of the object: what the case knows.
func (c *Case) Found() map[string]any {
	if c.Known == nil {
		return map[string]any{}
	}
	return c.Known
}

// Place is "file:line: title".
func (c *Case) Place() string { return fmt.Sprintf("%s:%d: %s", c.File, c.Line, c.Title) }

// Cell reports whether the case is one of a matrix.
func (c *Case) Cell() bool { return strings.HasSuffix(c.File, matrixSuffix) }

// Decision is what a policy said, or why it said nothing.
type Decision struct {
	Allow   bool
	Reasons []string
	Rules   []string // ids of those that a denial came to be by; no case asks for them
	Err     error    // no decision: a denial, though not by any rule
}

// String is "allow granted_to_x" or "deny not_owner".
func (d Decision) String() string {
	word := "deny"
	switch {
	case d.Err != nil:
		return "no decision (" + strings.Join(strings.Fields(d.Err.Error()), " ") + ")"
	case d.Allow:
		word = "allow"
	}
	return strings.TrimSpace(word + " " + strings.Join(d.Reasons, " "))
}

// Met answers "" where d is what the case wants, else what differs.
func (c *Case) Met(d Decision) string {
	want := Decision{Allow: c.Decision == "allow", Reasons: c.Reasons}
	if d.Err == nil && d.Allow == want.Allow && (len(c.Reasons) == 0 || slices.Equal(d.Reasons, c.Reasons)) {
		return ""
	}
	return fmt.Sprintf("decided %s, want %s", d, want)
}

// Read reads the cases and matrices of a policy folder; dir is what its files are shown under.
func Read(files fs.FS, dir string) ([]Case, error) {
	var names []string
	err := fs.WalkDir(files, Dir, func(name string, d fs.DirEntry, err error) error {
		switch hidden := err == nil && strings.HasPrefix(d.Name(), "."); {
		case err != nil:
			return err
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir() || hidden || path.Ext(name) == ".md":
		case path.Ext(name) != ".yaml":
			return fmt.Errorf("%s: is no file of cases; they end in .yaml", path.Join(dir, name))
		default:
			names = append(names, name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var all []Case
	var errs []error
	titles := map[string]bool{}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		some, err := Parse(path.Join(dir, name), text)
		if err != nil {
			errs = append(errs, err)
		}
		for _, c := range some {
			if titles[c.Title] {
				errs = append(errs, fmt.Errorf("%s:%d: a second case %q", c.File, c.Line, c.Title))
			}
			titles[c.Title] = true
		}
		all = append(all, some...)
	}
	return all, errors.Join(errs...)
}

// Parse reads one file of cases, or one matrix where file's name ends in .matrix.yaml. Errors are "file:line: what", one a line.
func Parse(file string, text []byte) ([]Case, error) {
	if strings.HasSuffix(file, matrixSuffix) {
		return parseMatrix(file, text)
	}
	known := map[string]Case{}
	entries, err := yamldoc.Decode(file, text, &known)
	if err != nil {
		return nil, cmp.Or(untimely(file, text), err)
	}
	var errs []error
	all := make([]Case, 0, len(entries))
	for _, e := range entries {
		c := known[e.Key.Value]
		c.Title, c.File, c.Line = e.Key.Value, file, e.Key.Line
		if err := c.Complete(); err != nil {
			errs = append(errs, fmt.Errorf("%s:%d: %s: %w", file, c.Line, c.Title, err))
			continue
		}
		all = append(all, c)
	}
	return all, errors.Join(errs...)
}

// untimely says where a time is that cannot be read, which the decoder does not; nil where there is none.
func untimely(file string, text []byte) error {
	var doc yaml.Node
	if _ = yaml.Unmarshal(text, &doc); len(doc.Content) == 0 { // what is wrong with it is told already
		return nil
	}
	var errs []error
	look := func(n *yaml.Node) {
		if at := yamldoc.Member(n, "at"); at != nil && at.Decode(new(time.Time)) != nil {
			errs = append(errs, fmt.Errorf("%s:%d: at: %q is no time, such as 2026-03-03T10:00:00Z", file, at.Line, at.Value))
		}
	}
	for _, e := range yamldoc.Entries(doc.Content[0]) {
		look(e.Value)
		for _, column := range yamldoc.Entries(yamldoc.Member(e.Value, "when")) {
			look(column.Value)
		}
	}
	return errors.Join(errs...)
}
