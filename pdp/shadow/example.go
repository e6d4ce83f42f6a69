package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

// somebody stands for the subject's id, wherever it was.
const somebody = "somebody"

// example keeps of a request what one of the policies can look at.
func example(it item, by ...engine.Reads) (authzen.Request, map[string]any) {
	matters := func(pointer string) bool {
		for _, r := range by {
			if r.Matters(pointer, true) {
				return true
			}
		}
		return false
	}
	id := it.request.Subject.ID
	keep := func(m map[string]any, at string) map[string]any {
		kept, _ := prune(m, at, id, matters).(map[string]any)
		return kept
	}
	r := it.request
	r.Subject.Properties = keep(r.Subject.Properties, "/input/subject/properties")
	r.Resource.Properties = keep(r.Resource.Properties, "/input/resource/properties")
	r.Action.Properties = keep(r.Action.Properties, "/input/action/properties")
	r.Context = keep(r.Context, "/input/context")
	r.Resource.ID, _ = alias(r.Resource.ID, id).(string)
	r.Subject.ID, _ = alias(id, id).(string)
	return r, keep(it.known, "/gatehouse/looked_up")
}

// prune copies what matters of a value, with the subject's id replaced.
func prune(v any, at, id string, matters func(string) bool) any {
	switch v := v.(type) {
	case map[string]any:
		kept := map[string]any{}
		for name, one := range v {
			here := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name)
			if matters(here) {
				kept[name] = prune(one, here, id, matters)
			}
		}
		return kept
	case []any:
		kept := make([]any, len(v))
		for i, one := range v {
			kept[i] = prune(one, at, id, matters)
		}
		return kept
	}
	return alias(v, id)
}

func alias(v any, id string) any {
	if v == id && id != "" {
		return somebody
	}
	return v
}

// masked is the example as the decision log's masks leave it, and what they hid.
func (s *Shadow) masked(d Disagreement) (r authzen.Request, known map[string]any, hidden []string, err error) {
	masks := s.opts.Masks
	if masks == nil {
		if masks, err = decisionlog.NewMasks(nil); err != nil {
			return r, nil, nil, err
		}
	}
	line := decisionlog.Encode(decisionlog.Event{Time: d.First, Outcome: decisionlog.Deny, Input: d.Example, LookedUp: d.Known}, masks, 1)
	var out struct {
		Input     authzen.Request `json:"input"`
		Masked    []string        `json:"masked"`
		Erased    []string        `json:"erased"`
		Gatehouse struct {
			LookedUp map[string]any `json:"looked_up"`
		} `json:"gatehouse"`
	}
	if err := json.Unmarshal(line, &out); err != nil {
		return r, nil, nil, err
	}
	return out.Input, out.Gatehouse.LookedUp, append(out.Masked, out.Erased...), nil
}

// Case is a disagreement as a case of a policy folder.
type Case struct {
	Disagreement
	Case   string   `json:"case"` // YAML, for a file in cases/
	Hidden []string `json:"hidden,omitempty"`
	Active string   `json:"active"` // what each of the policies decides of the case
	Now    string   `json:"candidate"`
	Shows  bool     `json:"shows"` // whether the case shows the disagreement; else the policies looked at what no case has, or what is masked
}

// Wants of a case.
const (
	Active    = "active"
	Candidate = "candidate"
)

// Case turns a disagreement into a case that wants what one of the policies decides.
func (s *Shadow) Case(ctx context.Context, id, want string) (Case, error) {
	d, err := s.Find(id)
	if err != nil {
		return Case{}, err
	}
	candidate := s.candidate.Load()
	if candidate == nil {
		return Case{}, errors.New("there is no candidate")
	}
	r, known, hidden, err := s.masked(d)
	if err != nil {
		return Case{}, err
	}
	c, err := golden.Of(r, known, d.First.UTC())
	if err != nil {
		return Case{}, err
	}
	out := Case{Disagreement: d, Hidden: hidden}
	decide := func(e *engine.Engine) (golden.Decision, error) {
		allow, about, err := e.Try(ctx, c.Request(), c.Found(), c.At)
		return golden.Decision{Allow: allow, Reasons: about.Reasons, Err: err}, nil
	}
	was, err := decide(s.opts.Active)
	if err != nil {
		return Case{}, err
	}
	now, err := decide(candidate)
	if err != nil {
		return Case{}, err
	}
	wanted := was
	switch want {
	case Active:
	case Candidate:
		wanted = now
	default:
		return Case{}, fmt.Errorf("want is %s or %s, not %q", Active, Candidate, want)
	}
	c.Title = fmt.Sprintf("%s asks %s of %s, from shadow %s", d.Who, d.Action, d.Resource, d.ID)
	c.Decision, c.Reasons = "deny", wanted.Reasons
	if wanted.Allow && wanted.Err == nil {
		c.Decision = "allow"
	}
	text, err := golden.Format(c)
	if err != nil {
		return Case{}, err
	}
	out.Case, out.Active, out.Now = string(text), was.String(), now.String()
	out.Shows = was.Allow != now.Allow
	return out, nil
}
