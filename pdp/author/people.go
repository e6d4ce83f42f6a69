package author

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// People is who of a directory may do what.
type People struct {
	Subjects int   `json:"subjects"` // that were looked at
	LeftOut  int   `json:"left_out"` // that would have been too many: kinds of subjects times what is asked
	Kinds    int   `json:"kinds"`    // of subjects, whom the rules cannot tell apart
	Requests int   `json:"requests"` // decided
	May      []May `json:"may"`
}

// May is what some may do, and when.
type May struct {
	Who      []string `json:"who"` // ids
	Action   string   `json:"action"`
	Resource string   `json:"resource"`
	When     []string `json:"when,omitempty"` // as in Change
	Unless   []string `json:"unless,omitempty"`
}

// kind is subjects whom the rules cannot tell apart.
type kind struct {
	subject map[string]any
	ids     []string
}

// People says who of the directory may do what of all that the cases and tables speak of and that is wanted: conditions and
// requests are those of Access, and subjects are as a decision point with this directory sees them now. An id leaves but one.
func (p *Policy) People(ctx context.Context, id string, wanted func(action, resource string) bool) (People, error) {
	if p.known == nil {
		return People{}, errors.New("there is no directory")
	}
	on, err := p.program(ctx)
	if err != nil {
		return People{}, err
	}
	on.now = time.Now()
	u, err := universeOf(p)
	if err != nil {
		return People{}, err
	}
	var asks []map[string]any
	for _, a := range u.asks {
		if c := (asked{Question: assemble(nil, a, map[string]any{})}).change(); wanted(c.Action, c.Resource) {
			asks = append(asks, a)
		}
	}
	kinds, err := p.kinds(on, u, id)
	if err != nil {
		return People{}, err
	}
	out := People{Kinds: len(kinds), May: []May{}}
	var requests []asked
	byName := map[string]kind{}
	for i, k := range kinds {
		if len(requests) > 0 && len(requests)+len(asks)*len(u.conditions) > mostRequests {
			out.LeftOut += len(k.ids)
			continue
		}
		out.Subjects += len(k.ids)
		name := fmt.Sprint(i)
		byName[name] = k
		for _, a := range asks {
			for _, c := range u.conditions {
				if !known(c) || !collection(a) {
					q := assemble(k.subject, a, c)
					requests = append(requests, asked{Question: q, when: describe(conditionOf(q)), who: name})
				}
			}
		}
	}
	decided, err := twice(ctx, requests, nil, on)
	if err != nil {
		return People{}, err
	}
	for i := range decided {
		decided[i][1].Reasons = nil // one way in is as good as another
	}
	out.Requests = len(requests)
	alike := map[string]int{}
	for _, c := range gather(requests, decided).Changes {
		key := strings.Join(slices.Concat([]string{c.Action, c.Resource, "when"}, c.When, []string{"unless"}, c.Unless), "\x00")
		at, ok := alike[key]
		if !ok {
			at = len(out.May)
			alike[key], out.May = at, append(out.May, May{Action: c.Action, Resource: c.Resource, When: c.When, Unless: c.Unless})
		}
		out.May[at].Who = append(out.May[at].Who, byName[c.Who].ids...)
	}
	for i := range out.May {
		slices.Sort(out.May[i].Who)
	}
	slices.SortStableFunc(out.May, func(a, b May) int {
		return slices.Compare([]string{a.Resource, a.Action, a.Who[0]}, []string{b.Resource, b.Action, b.Who[0]})
	})
	return out, nil
}

// kinds are the subjects of the directory, or the one that is wanted.
func (p *Policy) kinds(on *program, u *universe, id string) ([]kind, error) {
	var said []any // what else can hold an id
	for _, c := range u.conditions {
		said = append(said, c)
	}
	for _, a := range u.asks {
		said = append(said, a)
	}
	if on.known != nil {
		for _, e := range p.known.All() {
			said = append(said, e.Attributes())
		}
	}
	ids := engine.SubjectIDsOf(on.compiler, p.Data, said...)
	by := map[string]*kind{}
	add := func(id string, e directory.Entry) error {
		facts := e.Facts("", on.now)
		s := map[string]any{"type": "user", "id": id, "roles": words(facts.Roles), "groups": words(facts.Groups), "attributes": e.Attributes(), "properties": map[string]any{}}
		if facts.Tenant != "" {
			s["tenant"] = facts.Tenant
		}
		alike := put(s, []string{"id"}, nil, true)
		if !ids.Alike(id) {
			alike = s
		}
		key, err := json.Marshal(alike)
		if err != nil {
			return err
		}
		k := by[string(key)]
		if k == nil {
			k = &kind{subject: s}
			by[string(key)] = k
		}
		k.ids = append(k.ids, id)
		return nil
	}
	if id != "" {
		e, ok := p.known.Find(id)
		if !ok {
			return nil, fmt.Errorf("the directory does not know %q", id)
		}
		if err := add(id, e); err != nil {
			return nil, err
		}
	} else {
		for id, e := range p.known.All() {
			if err := add(id, e); err != nil {
				return nil, err
			}
		}
	}
	var all []kind
	for _, key := range sorted(by) {
		all = append(all, *by[key])
	}
	return all, nil
}

func words(texts []string) []any {
	all := make([]any, len(texts))
	for i, s := range texts {
		all[i] = s
	}
	return all
}
