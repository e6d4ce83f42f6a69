package shadow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

// masks are those for a decision.
func (s *Shadow) masks(ctx context.Context, e decisionlog.Event) *decisionlog.Masks {
	if s.opts.Masks != nil {
		if m := s.opts.Masks(ctx, e); m != nil {
			return m
		}
	}
	m, err := decisionlog.NewMasks(nil)
	if err != nil {
		panic(err) // there is nothing that could be wrong with them
	}
	return m
}

// record is what is left of a decision behind masks.
type record struct {
	Input  authzen.Request `json:"input"`
	Result struct {
		Reasons any `json:"reasons"`
	} `json:"result"`
	Masked    []string `json:"masked"`
	Erased    []string `json:"erased"`
	Gatehouse struct {
		LookedUp map[string]any `json:"looked_up"`
		Rules    any            `json:"rules"`
	} `json:"gatehouse"`
}

// reasons are those that nothing hides.
func (r record) reasons() []string { return texts(r.Result.Reasons) }

func texts(v any) (all []string) {
	list, _ := v.([]any)
	for _, one := range list {
		if text, ok := one.(string); ok {
			all = append(all, text)
		}
	}
	return all
}

// read writes the record of a decision as the decision log would, and reads it. Where a mask has left no request of a request, nothing
// of it is kept.
func read(e decisionlog.Event, masks *decisionlog.Masks) record {
	var r record
	if err := json.Unmarshal(decisionlog.Encode(e, masks, 1), &r); err != nil {
		return record{Erased: []string{"/input"}}
	}
	return r
}

// hides reports whether something at a place, or within it, is hidden.
func (r record) hides(place string) bool {
	return slices.ContainsFunc(append(slices.Clone(r.Masked), r.Erased...), func(hidden string) bool {
		return strings.HasPrefix(place+"/", hidden+"/") || strings.HasPrefix(hidden, place+"/")
	})
}

// who names a subject as whoIs does, if its roles may be known.
func (r record) who() string {
	if r.hides("/input/subject/properties/roles") {
		return masked
	}
	return whoIs(r.Input)
}

// masked stands for what is hidden.
const masked = "(masked)"

func orMasked(text string) string {
	if text == "" {
		return masked
	}
	return text
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
	c, err := golden.Of(d.Example, d.Known, d.First.UTC())
	if err != nil {
		return Case{}, err
	}
	out := Case{Disagreement: d, Hidden: d.hidden}
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
