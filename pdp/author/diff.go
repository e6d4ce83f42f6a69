package author

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
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
	When      []string `json:"when,omitempty"`   // conditions, in words; without them and Unless: all that it could be
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
	groups, could := map[string]*Change{}, map[string]map[string]int{} // of who and what: condition → requests that could change so
	decided, err := twice(ctx, requests, was, is)
	if err != nil {
		return Diff{}, err
	}
	for i, a := range requests {
		c := a.change()
		subject := c.Who + "\x00" + c.Action + "\x00" + c.Resource
		old, now := decided[i][0], decided[i][1]
		c.Before, c.After = old.String(), now.String()
		if c.Direction = Gains; old.allows() {
			c.Direction = Loses
		}
		subject = c.Direction + "\x00" + subject
		if could[subject] == nil {
			could[subject] = map[string]int{}
		}
		could[subject][a.when]++
		if old.allows() == now.allows() {
			if c.Before != c.After {
				d.OtherReasons++
			}
			continue
		}
		key := strings.Join([]string{subject, c.Before, c.After}, "\x00")
		if groups[key] == nil {
			c.changed = map[string]int{}
			groups[key] = &c
		}
		g := groups[key]
		g.Requests, g.Logged = g.Requests+1, g.Logged+a.times
		g.changed[a.when]++
	}
	for _, g := range groups {
		g.say(could[g.Direction+"\x00"+g.Who+"\x00"+g.Action+"\x00"+g.Resource])
		d.Changes = append(d.Changes, *g)
	}
	slices.SortFunc(d.Changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Who, b.Who), cmp.Compare(a.Resource, b.Resource),
			cmp.Compare(a.Action, b.Action), cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After))
	})
	return d, nil
}

// twice decides each request by both policies, as many at a time as there are processors.
func twice(ctx context.Context, requests []asked, policies ...*program) ([][2]Decision, error) {
	decided, errs := make([][2]Decision, len(requests)), make([]error, len(requests))
	parallel(ctx, len(requests), func(i int) {
		var input ast.Value
		if input, errs[i] = requests[i].value(); errs[i] != nil {
			return
		}
		for j, p := range policies {
			decided[i][j] = p.decide(ctx, input)
		}
	})
	return decided, errors.Join(append(errs, ctx.Err())...)
}

// parallel does things 0 to n-1 until ctx ends.
func parallel(ctx context.Context, n int, do func(int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	workers.Wait()
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
	c.When = c.shorter(all)
}

// shorter leaves out conditions that say more than another: "owner {who.id}" stands for all that adds to it, but for those that it
// names after "unless".
func (c *Change) shorter(all map[string]int) (short []string) {
	left := slices.Clone(c.When)
	slices.SortStableFunc(left, func(a, b string) int { return cmp.Compare(len(facts(a)), len(facts(b))) })
	for len(left) > 0 {
		least, covered := left[0], []string(nil)
		var except []string
		partly := false
		for _, condition := range sorted(all) {
			more, ok := beyond(condition, least)
			switch {
			case !ok || condition == least || condition == "":
			case c.changed[condition] == 0:
				except = append(except, strings.Join(more, ", "))
			case c.changed[condition] < all[condition]:
				partly = true
			case slices.Contains(left, condition):
				covered = append(covered, condition)
			}
		}
		left = left[1:]
		if partly || len(covered) <= len(except) {
			short = append(short, least)
			continue
		}
		if len(except) > 0 {
			least += ", unless " + strings.Join(except, " or ")
		}
		short = append(short, least)
		left = slices.DeleteFunc(left, func(w string) bool { return slices.Contains(covered, w) })
	}
	return short
}

func facts(condition string) []string {
	if condition == nothingElse {
		return nil
	}
	return strings.Split(condition, ", ")
}

// beyond is what condition says beside all that least says; false where it does not say all of that.
func beyond(condition, least string) (more []string, ok bool) {
	have := facts(condition)
	for _, f := range facts(least) {
		if !slices.Contains(have, f) {
			return nil, false
		}
	}
	return slices.DeleteFunc(have, func(f string) bool { return slices.Contains(facts(least), f) }), true
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
