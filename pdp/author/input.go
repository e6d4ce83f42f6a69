package author

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Question is something to decide.
type Question struct {
	Title string // where it comes from
	input map[string]any
}

// AsQuestion is what a case asks.
func AsQuestion(c Case) (Question, error) {
	v, err := inputOf(c)
	if err != nil {
		return Question{}, err
	}
	return questionOf(c.Place(), v)
}

// inputOf is what the policy sees of a case.
func inputOf(c Case) (ast.Value, error) {
	v, err := engine.Input(c.Request(), c.Found(), c.At)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Place(), err)
	}
	return v, nil
}

func questionOf(title string, v ast.Value) (Question, error) {
	plain, err := ast.JSON(v)
	if err != nil {
		return Question{}, fmt.Errorf("%s: %w", title, err)
	}
	input, ok := plain.(map[string]any)
	if !ok {
		return Question{}, fmt.Errorf("%s: the input is not an object", title)
	}
	return Question{title, input}, nil
}

// ParseQuestion reads a JSON document: an AuthZEN evaluation request, the input that a policy sees, or something that holds either
// as its member "input", such as an entry of a decision log. A request that does not say when it was made was made now.
func ParseQuestion(title string, text []byte, now time.Time) (Question, error) {
	return (&Policy{}).ParseQuestion(title, text, now)
}

// ParseQuestion is the same for a policy with a directory: the subject of a request has what that says of it.
func (p *Policy) ParseQuestion(title string, text []byte, now time.Time) (Question, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v map[string]any
	if err := dec.Decode(&v); err != nil {
		return Question{}, jsonPlace(title, text, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Question{}, fmt.Errorf("%s: more than one JSON document; --id says which decision of a log", title)
	}
	if inner, ok := v["input"].(map[string]any); ok {
		v = inner
	}
	subject, okSubject := v["subject"].(map[string]any)
	resource, okResource := v["resource"].(map[string]any)
	action, okAction := v["action"].(map[string]any)
	if !okSubject || !okResource || !okAction {
		return Question{}, fmt.Errorf("%s: neither an AuthZEN request nor a policy's input: subject, action and resource must be objects", title)
	}
	if !onlyHas(subject, "type", "id", "properties") || !onlyHas(resource, "type", "id", "properties") || !onlyHas(action, "name", "properties") {
		return Question{title, v}, nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return Question{}, fmt.Errorf("%s: %w", title, err)
	}
	var r authzen.Request
	dec = json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&r); err != nil {
		return Question{}, fmt.Errorf("%s: %w", title, err)
	}
	if at, ok := r.Context["time"].(string); ok {
		if now, err = time.Parse(time.RFC3339, at); err != nil {
			return Question{}, fmt.Errorf("%s: context.time is not a time (RFC 3339)", title)
		}
	}
	input, err := engine.Input(p.Asked(r, now), nil, now)
	if err != nil {
		return Question{}, fmt.Errorf("%s: %w", title, err)
	}
	return questionOf(title, input)
}

func onlyHas(m map[string]any, names ...string) bool {
	for name := range m {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// jsonPlace is "file:line: what" for what is no JSON; the last line where it breaks off.
func jsonPlace(file string, text []byte, err error) error {
	at := len(bytes.TrimSpace(text))
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		at = int(syntax.Offset)
	case errors.As(err, &kind):
		at, err = int(kind.Offset), errors.New("something else stands where an object is wanted")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("the document breaks off")
	}
	return fmt.Errorf("%s:%d: %w", file, 1+bytes.Count(text[:min(at, len(text))], []byte{'\n'}), err)
}

// value is the input as OPA's.
func (q Question) value() (ast.Value, error) {
	v, err := ast.InterfaceToValue(q.input)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q.Title, err)
	}
	return v, nil
}

// at is the value at a path of names.
func (q Question) at(path []string) (any, bool) {
	var v any = q.input
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// with is the question with another value at path, or with none.
func (q Question) with(path []string, v any, drop bool) Question {
	q.input = put(q.input, path, v, drop)
	return q
}

func put(m map[string]any, path []string, v any, drop bool) map[string]any {
	c := make(map[string]any, len(m)+1)
	for k, x := range m {
		c[k] = x
	}
	if len(path) == 0 {
		return c
	}
	name, below := path[0], path[1:]
	switch inner, _ := c[name].(map[string]any); {
	case len(below) > 0:
		c[name] = put(inner, below, v, drop)
	case drop:
		delete(c, name)
	default:
		c[name] = v
	}
	return c
}

// String is "DELETE order 17 by sam (support)".
func (q Question) String() string {
	text := func(path ...string) string {
		v, _ := q.at(path)
		s, ok := v.(string)
		if !ok || s == "" {
			return "?"
		}
		return s
	}
	who := text("subject", "id")
	if roles := q.roles(); len(roles) > 0 {
		who += " (" + strings.Join(roles, ", ") + ")"
	}
	if kind := text("subject", "type"); kind != "user" {
		who = kind + " " + who
	}
	return fmt.Sprintf("%s %s %s by %s", text("action", "name"), text("resource", "type"), text("resource", "id"), who)
}

func (q Question) roles() []string {
	list, _ := q.at([]string{"subject", "roles"})
	var roles []string
	if items, ok := list.([]any); ok {
		for _, item := range items {
			if s, ok := item.(string); ok {
				roles = append(roles, s)
			}
		}
	}
	return roles
}
