package decide_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
)

var start = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// question looks at an evaluation request in the plainest way.
type question struct{ authzen.Request }

func (q question) Kind() (action, resourceType string) { return q.Action.Name, q.Resource.Type }

func (q question) Append(dst []byte, pointer string) ([]byte, bool) {
	tokens, err := authzen.ParsePointer(pointer)
	if err != nil {
		return dst, false
	}
	v, found := q.At(tokens)
	if !found {
		return append(dst, 0), true
	}
	text, err := json.Marshal(v)
	return append(append(dst, strconv.Itoa(len(text))+":"...), text...), err == nil
}

func asks(subject string, roles ...string) question {
	return question{authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: subject, Properties: map[string]any{"roles": roles}},
		Action:  authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "o1"},
	}}
}

func allow(ttl int, vary ...string) authzen.Response {
	return authzen.Response{Decision: true, Context: &authzen.ResponseContext{
		DecisionID: "d", Revision: "p1", DirectoryRevision: "d1", Cache: &authzen.Cache{TTL: ttl, Vary: vary},
	}}
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func known(c *decide.Cache, q decide.Question) bool {
	_, ok := c.Recall(q)
	return ok
}

// S58: an answer holds for those that are alike in what the policy looked at, and for nobody else.
func TestAnAnswerHoldsForWhoeverIsAlikeInWhatThePolicyLookedAt(t *testing.T) {
	t.Parallel()
	clock := &clock{now: start}
	c := decide.NewCache(10, time.Second, clock.Now)
	c.Keep(asks("u1", "clerk"), allow(500, "/subject/properties/roles", "/action/name"), start)
	for name, one := range map[string]struct {
		q    question
		want bool
	}{
		"the same":                    {asks("u1", "clerk"), true},
		"another with the same roles": {asks("u2", "clerk"), true},
		"a role less":                 {asks("u1"), false},
		"another role":                {asks("u1", "customer"), false},
		"a role more":                 {asks("u1", "clerk", "customer"), false},
		"a role that reads as two":    {asks("u1", "clerk,customer"), false},
		"no roles at all":             {question{authzen.Request{Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order"}}}, false},
		"another action":              {question{authzen.Request{Subject: asks("u1", "clerk").Subject, Action: authzen.Action{Name: "DELETE"}, Resource: authzen.Resource{Type: "order"}}}, false},
	} {
		if got := known(c, one.q); got != one.want {
			t.Errorf("%s: known %v", name, got)
		}
	}
}

func TestAnAnswerDiesAtItsTimeCountedFromTheQuestion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ttl   int
		lives time.Duration
	}{"the decision point's": {500, 500 * time.Millisecond}, "our own where it is shorter": {60_000, time.Second}} {
		clock := &clock{now: start}
		cache := decide.NewCache(10, time.Second, clock.Now)
		cache.Keep(asks("u1"), allow(c.ttl, "/subject/id"), start.Add(-10*time.Millisecond))
		clock.pass(c.lives - 11*time.Millisecond)
		if !known(cache, asks("u1")) {
			t.Errorf("%s: forgotten too early", name)
		}
		clock.pass(time.Millisecond)
		if known(cache, asks("u1")) {
			t.Errorf("%s: still known", name)
		}
	}
}

// S58: no answer outlives the revision that it was made by, of the policy or of the directory.
func TestEveryAnswerDiesWithItsRevision(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*authzen.ResponseContext){
		"policy":              func(c *authzen.ResponseContext) { c.Revision = "p2" },
		"directory":           func(c *authzen.ResponseContext) { c.DirectoryRevision = "d2" },
		"told without a time": func(c *authzen.ResponseContext) { c.DirectoryRevision, c.Cache = "d2", nil },
	} {
		clock := &clock{now: start}
		c := decide.NewCache(10, time.Second, clock.Now)
		c.Keep(asks("u1"), allow(500, "/subject/id"), start)
		newer := allow(500, "/subject/id")
		newer.Decision = false
		change(newer.Context)
		c.Keep(asks("u2"), newer, start)
		if known(c, asks("u1")) {
			t.Errorf("%s: an answer of the old revision is used", name)
		}
		if _, _, revised := c.Counts(); revised != 1 {
			t.Errorf("%s: revised %d times", name, revised)
		}
	}
}

func TestWhatMayNotBeKeptIsNot(t *testing.T) {
	t.Parallel()
	without := func(change func(*authzen.ResponseContext)) authzen.Response {
		a := allow(500, "/subject/id")
		change(a.Context)
		return a
	}
	for name, answer := range map[string]authzen.Response{
		"no context":         {Decision: true},
		"no cache":           without(func(c *authzen.ResponseContext) { c.Cache = nil }),
		"no revision":        without(func(c *authzen.ResponseContext) { c.Revision = "" }),
		"no time":            allow(0, "/subject/id"),
		"a time of the past": allow(-5, "/subject/id"),
		"nothing looked at":  allow(500),
		"no pointer":         allow(500, "subject.id"),
		"a broken pointer":   allow(500, "/subject/~2"),
		"too many pointers":  allow(500, strings.Split(strings.Repeat("/a,", 40)+"/b", ",")...),
		"a huge answer":      without(func(c *authzen.ResponseContext) { c.Reasons = []string{strings.Repeat("x", 5000)} }),
	} {
		c := decide.NewCache(10, time.Second, func() time.Time { return start })
		c.Keep(asks("u1"), answer, start)
		if known(c, asks("u1")) || c.Len() != 0 {
			t.Errorf("%s: kept", name)
		}
	}
}

func TestTheCacheStaysWithinItsBounds(t *testing.T) {
	t.Parallel()
	c := decide.NewCache(100, time.Second, func() time.Time { return start })
	for i := range 10_000 {
		q := asks(fmt.Sprint("u", i))
		q.Action.Name = fmt.Sprint("A", i)
		c.Keep(q, allow(500, "/subject/id", fmt.Sprint("/context/", i%50)), start)
		if !known(c, q) {
			t.Fatalf("%d: the newest is not known", i)
		}
	}
	if n := c.Len(); n > 100 {
		t.Errorf("%d answers", n)
	}
}

func TestTwoListsOfInputsLiveBesideEachOther(t *testing.T) {
	t.Parallel()
	c := decide.NewCache(100, time.Second, func() time.Time { return start })
	c.Keep(asks("admin", "root"), allow(500, "/subject/properties/roles"), start) // an admin's id was not looked at
	c.Keep(asks("u1", "clerk"), allow(500, "/subject/properties/roles", "/subject/id"), start)
	for name, one := range map[string]struct {
		q    question
		want bool
	}{"another admin": {asks("x", "root"), true}, "the clerk": {asks("u1", "clerk"), true}, "another clerk": {asks("u2", "clerk"), false}} {
		if known(c, one.q) != one.want {
			t.Errorf("%s: known %v", name, !one.want)
		}
	}
}

func TestTheCacheCanBeUsedByMany(t *testing.T) {
	t.Parallel()
	c := decide.NewCache(50, time.Second, func() time.Time { return start })
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				q := asks(fmt.Sprint("u", i%80), fmt.Sprint("r", g))
				if a, ok := c.Recall(q); ok && !a.Decision {
					t.Error("another answer than was kept")
				}
				a := allow(500, "/subject/id")
				a.Context.DirectoryRevision = fmt.Sprint("d", i/100)
				c.Keep(q, a, start)
			}
		})
	}
	wg.Wait()
}
