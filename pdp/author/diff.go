package author

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// Directions of a Change.
const (
	Gains = "gains"
	Loses = "loses"
)

// Diff is who gains and who loses what between two policies.
type Diff struct {
	Requests     int      `json:"requests"`      // decided by both
	Logged       int      `json:"logged"`        // of a log, each as often as it is there
	OtherReasons int      `json:"other_reasons"` // decided alike, for other reasons
	Changes      []Change `json:"changes"`
}

// Change is one kind of access that is gained or lost.
type Change struct {
	Direction string   `json:"direction"` // gains or loses
	Who       string   `json:"who"`       // roles
	Action    string   `json:"action"`
	Resource  string   `json:"resource"`         // its type, or its path where that is all it has
	When      []string `json:"when,omitempty"`   // conditions, in words; without them and Unless: always
	Unless    []string `json:"unless,omitempty"` // the conditions of no change, where they are fewer
	Before    string   `json:"before"`           // the old decision with its reasons
	After     string   `json:"after"`            // the new
	Requests  int      `json:"requests"`         // that this is seen by
	Logged    int      `json:"logged,omitempty"` // of a log
	Example   any      `json:"example"`          // the policy's input

	changed map[string]int // condition → requests
}

// Gained are the changes that allow more than before.
func (d Diff) Gained() []Change {
	return slices.DeleteFunc(slices.Clone(d.Changes), func(c Change) bool { return c.Direction != Gains })
}

// Compare decides everything that the cases and tables of both speak of, and what was logged, by both.
func Compare(ctx context.Context, before, after *Policy, logged []Question) (Diff, error) {
	was, err := before.program(ctx)
	if err != nil {
		return Diff{}, err
	}
	is, err := after.program(ctx)
	if err != nil {
		return Diff{}, err
	}
	u, err := universeOf(before, after)
	if err != nil {
		return Diff{}, err
	}
	requests := append(u.requests, repeated(logged)...)
	d := Diff{Requests: len(requests), Logged: len(logged), Changes: []Change{}}
	groups, conditions := map[string]*Change{}, map[string]map[string]int{} // of each who and what: condition → requests
	for _, a := range requests {
		if err := ctx.Err(); err != nil {
			return Diff{}, err
		}
		input, err := a.value()
		if err != nil {
			return Diff{}, err
		}
		c := a.change()
		subject := c.Who + "\x00" + c.Action + "\x00" + c.Resource
		if conditions[subject] == nil {
			conditions[subject] = map[string]int{}
		}
		conditions[subject][a.when]++
		old, now := was.decide(ctx, input), is.decide(ctx, input)
		c.Before, c.After = old.String(), now.String()
		switch {
		case old.allows() == now.allows():
			if c.Before != c.After {
				d.OtherReasons++
			}
			continue
		case now.allows():
			c.Direction = Gains
		default:
			c.Direction = Loses
		}
		key := strings.Join([]string{c.Direction, subject, c.Before, c.After}, "\x00")
		if groups[key] == nil {
			c.changed = map[string]int{}
			groups[key] = &c
		}
		g := groups[key]
		g.Requests, g.Logged = g.Requests+1, g.Logged+a.times
		g.changed[a.when]++
	}
	for _, g := range groups {
		g.say(conditions[g.Who+"\x00"+g.Action+"\x00"+g.Resource])
		d.Changes = append(d.Changes, *g)
	}
	slices.SortFunc(d.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Who, b.Who), cmp.Compare(a.Resource, b.Resource),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After))
	})
	return d, nil
}

// say puts the conditions of a change into words: all that are there, or all but those.
func (c *Change) say(all map[string]int) {
	partly := false
	for _, condition := range sorted(all) {
		switch n := c.changed[condition]; {
		case condition == "": // of a log
		case n == 0:
			c.Unless = append(c.Unless, condition)
		default:
			c.When = append(c.When, condition)
			partly = partly || n < all[condition]
		}
	}
	if partly || len(c.Unless) >= len(c.When) {
		c.Unless = nil
	} else {
		c.When = nil
	}
}

// allows reports whether the caller gets in; no decision is a denial.
func (d Decision) allows() bool { return d.Allow && d.Err == nil }

// repeated is each question once, with how often it was asked.
func repeated(logged []Question) []asked {
	at := map[string]int{}
	var all []asked
	for _, q := range logged {
		b, err := json.Marshal(q.input)
		if err != nil {
			continue // it came from JSON
		}
		i, ok := at[string(b)]
		if !ok {
			i = len(all)
			at[string(b)], all = i, append(all, asked{Question: q})
		}
		all[i].times++
	}
	return all
}

// change is what a request is about.
func (a asked) change() Change {
	text := func(path ...string) string {
		v, _ := a.at(path)
		return fmt.Sprint(v)
	}
	roles := a.roles()
	slices.Sort(roles)
	c := Change{Who: strings.Join(roles, " + "), Action: text("action", "name"), Resource: text("resource", "type"), Example: a.input}
	if kind := text("subject", "type"); kind != "user" {
		c.Who = kind
	} else if c.Who == "" {
		c.Who = "nobody's role"
	}
	if id := text("resource", "id"); strings.HasPrefix(id, "/") {
		c.Resource = id
	}
	return c
}
