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
	decided, err := twice(ctx, requests, was, is)
	if err != nil {
		return Diff{}, err
	}
	d := gather(requests, decided)
	d.Logged = len(logged)
	return d, nil
}

// Access is who may do what: the difference from a policy that denies all.
func (p *Policy) Access(ctx context.Context) (Diff, error) {
	is, err := p.program(ctx)
	if err != nil {
		return Diff{}, err
	}
	u, err := universeOf(p)
	if err != nil {
		return Diff{}, err
	}
	decided, err := twice(ctx, u.requests, nil, is)
	if err != nil {
		return Diff{}, err
	}
	for i := range decided {
		decided[i][1].Reasons = nil // one way in is as good as another
	}
	return gather(u.requests, decided), nil
}

// gather puts decisions that differ alike together.
func gather(requests []asked, decided [][2]Decision) Diff {
	d := Diff{Requests: len(requests), Changes: []Change{}}
	groups, could := map[string]*Change{}, map[string]map[string]int{} // of who and what: condition → requests that could change so
	for i, a := range requests {
		c := a.change()
		subject := c.Who + "\x00" + c.Action + "\x00" + c.Resource
		old, now := decided[i][0], decided[i][1]
		c.Before, c.After = old.String(), now.String()
		if c.Direction = Gains; allows(old) {
			c.Direction = Loses
		}
		subject = c.Direction + "\x00" + subject
		if could[subject] == nil {
			could[subject] = map[string]int{}
		}
		could[subject][a.when]++
		if allows(old) == allows(now) {
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
	return d
}

// twice decides each request by both policies, as many at a time as there are processors. No policy denies all.
func twice(ctx context.Context, requests []asked, policies ...*program) ([][2]Decision, error) {
	decided, errs := make([][2]Decision, len(requests)), make([]error, len(requests))
	parallel(ctx, len(requests), func(i int) {
		var input ast.Value
		if input, errs[i] = requests[i].value(); errs[i] != nil {
			return
		}
		for j, p := range policies {
			if p != nil {
				decided[i][j] = p.decide(ctx, input)
			}
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
	partly, not := false, 0
	for _, condition := range sorted(all) {
		switch n := c.changed[condition]; {
		case condition == "": // of a log
		case n == 0:
			not++
		default:
			c.When = append(c.When, condition)
			partly = partly || n < all[condition]
		}
	}
	if except, ok := c.except(all, nothingElse); ok && !partly && not < len(c.When) {
		c.When, c.Unless = nil, except
		return
	}
	c.When = c.shorter(all)
}

// shorter leaves out conditions that say more than another: "owner {who.id}" stands for all that adds to it, but for those that it
// names after "unless". One that stands for nothing but itself, where others add to it, is "just" that.
func (c *Change) shorter(all map[string]int) (short []string) {
	left := slices.Clone(c.When)
	slices.SortStableFunc(left, func(a, b string) int { return cmp.Compare(len(facts(a)), len(facts(b))) })
	for len(left) > 0 {
		least, covered := left[0], []string(nil)
		partly := false
		for condition, n := range all {
			if _, ok := beyond(condition, least); ok && condition != "" && c.changed[condition] > 0 {
				partly = partly || c.changed[condition] < n
				if slices.Contains(left, condition) {
					covered = append(covered, condition)
				}
			}
		}
		except, ok := c.except(all, least)
		words := least
		if least == nothingElse {
			words = "whatever is known"
		}
		switch {
		case ok && !partly && len(except) == 0: // so it is, whatever is added
		case ok && !partly && len(covered) > len(except):
			words += ", unless " + strings.Join(except, " or ")
		default:
			words, covered = "just "+least, left[:1]
			if least == nothingElse {
				words = least
			}
			if c.changed[least] < all[least] {
				words += " (for some)"
			}
		}
		short = append(short, words)
		left = slices.DeleteFunc(slices.Clone(left), func(w string) bool { return slices.Contains(covered, w) })
	}
	return short
}

// except is what conditions that change nothing say beside least; a fact stands for all conditions that it is in. It answers false
// where that cannot be said, because one that does change says all of it and more.
func (c *Change) except(all map[string]int, least string) (short []string, ok bool) {
	excluded := map[string][]string{} // what they say → facts
	var changing [][]string
	for condition := range all {
		more, ok := beyond(condition, least)
		switch {
		case !ok || condition == "":
		case c.changed[condition] == 0:
			excluded[strings.Join(more, ", ")] = more
		default:
			changing = append(changing, more)
		}
	}
	for _, more := range excluded {
		if slices.ContainsFunc(changing, func(have []string) bool { return holds(have, more) }) {
			return nil, false
		}
	}
	for len(excluded) > 0 {
		best, most := "", 1
		for _, text := range sorted(excluded) {
			for _, fact := range excluded[text] {
				if slices.ContainsFunc(changing, func(have []string) bool { return slices.Contains(have, fact) }) {
					continue
				}
				n := 0
				for _, other := range excluded {
					if slices.Contains(other, fact) {
						n++
					}
				}
				if n > most {
					best, most = fact, n
				}
			}
		}
		if best == "" {
			return append(short, sorted(excluded)...), true
		}
		short = append(short, best)
		for text, have := range excluded {
			if slices.Contains(have, best) {
				delete(excluded, text)
			}
		}
	}
	return short, true
}

// holds reports whether all of some are among have.
func holds(have, some []string) bool {
	return !slices.ContainsFunc(some, func(f string) bool { return !slices.Contains(have, f) })
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
	if !holds(have, facts(least)) {
		return nil, false
	}
	return slices.DeleteFunc(have, func(f string) bool { return slices.Contains(facts(least), f) }), true
}

// allows reports whether the caller gets in; no decision is a denial.
func allows(d Decision) bool { return d.Allow && d.Err == nil }

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
	if a.who != "" {
		c.Who = a.who
	}
	if id := text("resource", "id"); strings.HasPrefix(id, "/") {
		c.Resource = id
	}
	return c
}
