package author

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// States of an operation.
const (
	Protected   = "protected"   // somebody may, by a rule, or a case says that nobody may
	Denied      = "denied"      // nobody may, and nothing says that there is such a method
	LeftOpen    = "open"        // whoever wrote the file says that no policy is asked
	Unprotected = "unprotected" // no guard, one that only observes, or no rule
)

// Protection is which operations of some routes a policy protects.
type Protection struct {
	Operations  []Stand `json:"operations"`
	Percent     float64 `json:"percent"` // of those that are protected or not
	Protected   int     `json:"protected"`
	Unprotected int     `json:"unprotected"`
	Open        int     `json:"open"`
	Requests    int     `json:"requests"` // that were decided
}

// Stand is how one operation is protected, or why not.
type Stand struct {
	Offer
	State string `json:"state"`
	Why   string `json:"why"`
}

// Protection says of each operation whether something guards it and whether a rule speaks of it: whether somebody may, of the
// subjects and under the conditions that the cases and tables speak of, or a case says that nobody may.
func (p *Policy) Protection(ctx context.Context, routes Routes) (Protection, error) {
	if len(routes.Offers) == 0 {
		return Protection{}, errors.New("there is no operation")
	}
	on, err := p.program(ctx)
	if err != nil {
		return Protection{}, err
	}
	u, err := universeOf(p)
	if err != nil {
		return Protection{}, err
	}
	if len(u.subjects) == 0 {
		return Protection{}, fmt.Errorf("no case and no table of %s speaks of anybody, so that there is nobody to ask for", p.Dir)
	}
	if len(u.conditions) == 0 {
		c := Case{Asks: "GET /", Decision: "deny"}
		if q, err := AsQuestion(completed(c)); err == nil {
			u.conditions = append(u.conditions, conditionOf(q))
		}
	}
	var all Protection
	seen := map[string]bool{}
	for _, o := range routes.Offers {
		if key := o.Route + "\x00" + o.Method + " " + o.Pattern + "\x00" + o.Type; !seen[key] {
			seen[key] = true
			all.Operations = append(all.Operations, p.stand(o))
		}
	}
	tried, errs := make([]int, len(all.Operations)), make([]error, len(all.Operations))
	parallel(ctx, len(all.Operations), func(i int) {
		if s := &all.Operations[i]; s.State == "" {
			tried[i], errs[i] = u.rules(ctx, on, s)
		}
	})
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return Protection{}, err
	}
	for i, s := range all.Operations {
		all.Requests += tried[i]
		switch s.State {
		case Protected:
			all.Protected++
		case Unprotected:
			all.Unprotected++
		case LeftOpen:
			all.Open++
		}
	}
	all.Percent = percent(all.Protected, all.Protected+all.Unprotected)
	return all, nil
}

// Closed is the same where what is open counts as unprotected.
func (p Protection) Closed() Protection {
	p.Operations = slices.Clone(p.Operations)
	for i := range p.Operations {
		if p.Operations[i].State == LeftOpen {
			p.Operations[i].State = Unprotected
		}
	}
	p.Unprotected, p.Open = p.Unprotected+p.Open, 0
	p.Percent = percent(p.Protected, p.Protected+p.Unprotected)
	return p
}

// stand is what can be said without asking the rules; its state is "" where they must be.
func (p *Policy) stand(o Offer) Stand {
	switch {
	case o.Guard == Unguarded:
		return Stand{o, Unprotected, "no guard: no gatehouse plugin runs for the route"}
	case o.Guard == Observed || o.Guard == Idle:
		return Stand{o, Unprotected, "only observed: with mode observe what is denied goes on"}
	case o.Guard == Unasked && o.Route == "":
		return Stand{o, LeftOpen, "its security is empty, or one of its alternatives"}
	case o.Guard == Unasked && o.anybody:
		return Stand{o, LeftOpen, "authorize is false, and whoever comes may"}
	case o.Guard == Unasked:
		return Stand{o, LeftOpen, "authorize is false, and whoever has a token may"}
	case o.Type == "":
		return Stand{o, Unprotected, "no rule: no resource stands for it, and all is denied"}
	}
	for i := range p.Cases {
		c := &p.Cases[i]
		method, _, _ := strings.Cut(c.Asks, " ")
		if method == o.Method && c.Type == o.Type && c.Pattern() == o.Pattern {
			return Stand{o, "", fmt.Sprintf("nobody may, as %s:%d says", c.File, c.Line)}
		}
	}
	return Stand{Offer: o}
}

// rules asks them for everybody, until somebody may, and answers how many requests that took.
func (u *universe) rules(ctx context.Context, on *program, s *Stand) (tried int, err error) {
	q, err := AsQuestion(completed(Case{Asks: s.Method + " " + example(s.Pattern), Type: s.Type, Collection: !s.object(), Decision: "deny"}))
	if err != nil {
		return 0, err
	}
	resource, _ := q.input["resource"].(map[string]any)
	if s.named != "" {
		resource = put(resource, []string{"route"}, s.named, false)
	}
	what := map[string]any{"action": q.input["action"], "resource": put(resource, []string{"properties"}, nil, true)}
	for _, c := range u.conditions {
		if known(c) && collection(what) {
			continue
		}
		for _, who := range u.subjects {
			if err := ctx.Err(); err != nil {
				return tried, err
			}
			var input ast.Value
			if input, err = assemble(who, what, c).value(); err != nil {
				return tried, err
			}
			tried++
			if allows(on.decide(ctx, input)) {
				s.State, s.Why = Protected, "by a rule"
				return tried, nil
			}
		}
	}
	switch {
	case s.Why != "":
		s.State = Protected
	case s.guessed:
		s.State, s.Why = Denied, "nobody may, and its route names no methods"
	default:
		s.State, s.Why = Unprotected, "no rule: nobody may, and no case says so"
	}
	return tried, nil
}

func completed(c Case) Case {
	_ = c.Complete() // what there is to it was checked by plainPattern
	return c
}
