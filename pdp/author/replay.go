package author

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Replay is what a policy decides of what was decided before.
type Replay struct {
	Read         int            `json:"read"`    // entries of the log
	Decided      int            `json:"decided"` // again
	Skipped      map[string]int `json:"skipped"` // by why
	From         *time.Time     `json:"from,omitempty"`
	To           *time.Time     `json:"to,omitempty"`
	OtherReasons int            `json:"other_reasons"` // decided alike, for other reasons
	Changes      []Replayed     `json:"changes"`
}

// Replayed are decisions that come out otherwise, in the same way and for the same reasons.
type Replayed struct {
	Direction string   `json:"direction"` // gains or loses
	Who       string   `json:"who"`       // roles
	Action    string   `json:"action"`
	Resource  string   `json:"resource"`
	Before    string   `json:"before"` // what the log says
	After     string   `json:"after"`
	Rule      string   `json:"rule,omitempty"`  // of the candidate, that says so
	Rules     []string `json:"rules,omitempty"` // of the candidate, that its denial came to be by
	File      string   `json:"file,omitempty"`
	Line      int      `json:"line,omitempty"`
	Times     int      `json:"times"`        // in the log
	About     float64  `json:"about"`        // in all, as far as the rates of the samples tell
	Decisions []string `json:"decision_ids"` // the first of them
	example   Question
}

// Gained are the changes that allow more than before.
func (r Replay) Gained() []Replayed {
	return slices.DeleteFunc(slices.Clone(r.Changes), func(c Replayed) bool { return c.Direction != Gains })
}

// shown is how many decision ids stand for a change.
const shown = 3

// Replay decides records again: each with its own clock, and with what was known of its object then. records calls its argument
// for each, with why it is not to be decided, if it is not.
func (p *Policy) Replay(ctx context.Context, records func(yield func(r Record, skip string) error) error) (Replay, error) {
	is, err := p.again(ctx)
	if err != nil {
		return Replay{}, err
	}
	all := &replaying{Replay: Replay{Skipped: map[string]int{}, Changes: []Replayed{}}, on: is.program, groups: map[string]*Replayed{}}
	const atOnce = 1024
	var some []replayed
	err = records(func(r Record, skip string) error {
		all.Read++
		var q Question
		if skip == "" && !r.Decided {
			skip = SkipUndecided
		}
		if skip == "" {
			q, skip = is.question(r)
		}
		if skip != "" {
			all.Skipped[skip]++
			return ctx.Err()
		}
		if some = append(some, replayed{record: r, question: q}); len(some) < atOnce {
			return ctx.Err()
		}
		err := all.decide(ctx, some)
		some = some[:0]
		return err
	})
	if err == nil {
		err = all.decide(ctx, some)
	}
	if err != nil {
		return Replay{}, err
	}
	return all.Replay, all.name(ctx, p)
}

type replayed struct {
	record   Record
	question Question
	now      Decision
}

type replaying struct {
	Replay
	on     *program
	groups map[string]*Replayed
}

func (a *replaying) decide(ctx context.Context, some []replayed) error {
	parallel(ctx, len(some), func(i int) {
		input, err := ast.InterfaceToValue(some[i].question.input)
		if err != nil {
			some[i].now = Decision{Err: err}
			return
		}
		some[i].now = a.on.explained(ctx, input)
	})
	for _, one := range some {
		a.add(one)
	}
	return ctx.Err()
}

func (a *replaying) add(one replayed) {
	a.Decided++
	if at := one.record.Time; !at.IsZero() {
		if a.From == nil || at.Before(*a.From) {
			a.From = &at
		}
		if a.To == nil || at.After(*a.To) {
			a.To = &at
		}
	}
	was, now := one.record.Was, one.now
	if allows(was) == allows(now) {
		if one.record.Reasoned && was.String() != now.String() {
			a.OtherReasons++
		}
		return
	}
	about := asked{Question: one.question}.change()
	c := Replayed{Direction: Gains, Who: about.Who, Action: about.Action, Resource: about.Resource, Before: was.String(), After: now.String(), Rules: now.Rules, example: one.question}
	if allows(was) {
		c.Direction = Loses
	}
	key := strings.Join([]string{c.Direction, c.Who, c.Action, c.Resource, c.Before, c.After}, "\x00")
	g := a.groups[key]
	if g == nil {
		g = &c
		a.groups[key] = g
	}
	g.Times++
	g.About += 1 / one.record.Rate
	if len(g.Decisions) < shown {
		g.Decisions = append(g.Decisions, cmp.Or(one.record.ID, one.record.Title))
	}
}

// name finds the rule that decides each change, by one example.
func (a *replaying) name(ctx context.Context, p *Policy) error {
	names := p.names()
	for _, g := range a.groups {
		_, held, _, err := trace(ctx, a.on, names, g.example)
		if err != nil {
			return fmt.Errorf("%s: %w", g.example.Title, err)
		}
		for _, h := range held {
			if h.ID == entryID || strings.HasPrefix(h.ID, entryID+"#") {
				g.Rule, g.File, g.Line = h.ID, h.File, h.Line
			}
		}
		g.About = math.Round(g.About)
		a.Changes = append(a.Changes, *g)
	}
	slices.SortFunc(a.Changes, func(x, y Replayed) int {
		return cmp.Or(cmp.Compare(x.Direction, y.Direction), cmp.Compare(y.Times, x.Times), cmp.Compare(x.Who, y.Who), cmp.Compare(x.Resource, y.Resource),
			cmp.Compare(x.Action, y.Action), cmp.Compare(x.Before, y.Before), cmp.Compare(x.After, y.After))
	})
	return nil
}

var entryID = strings.ReplaceAll(entryPath, "/", ".")

// Questions are those of records that all policies can decide as they were asked, and how many were left out, by why. What does not
// say when it was asked is asked now.
func Questions(ctx context.Context, now time.Time, records func(yield func(r Record, skip string) error) error, policies ...*Policy) ([]Question, map[string]int, error) {
	var on []*again
	for _, p := range policies {
		is, err := p.again(ctx)
		if err != nil {
			return nil, nil, err
		}
		on = append(on, is)
	}
	var all []Question
	skipped := map[string]int{}
	err := records(func(r Record, skip string) error {
		var q Question
		if r.Time.IsZero() {
			r.Time = now
		}
		for _, is := range on {
			if skip == "" {
				q, skip = is.question(r)
			}
		}
		if skip != "" {
			skipped[skip]++
		} else {
			all = append(all, q)
		}
		return ctx.Err()
	})
	return all, skipped, err
}
