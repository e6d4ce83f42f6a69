package guard_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// tried is a door that asks for a challenge after ten failed log-ins, of which so many have been counted.
func tried(t *testing.T, failed *int64, change func(*guard.Config)) *door {
	t.Helper()
	d := challenged(t, func(c *guard.Config) {
		c.Challenge.When = guard.Risky
		c.Challenge.Risk = guard.Risk{Threshold: 100, Logins: 10, Weights: guard.Weights{Logins: 100}}
		if change != nil {
			change(c)
		}
	})
	d.world.take = func(keys []limit.Key) (limit.Result, error) {
		res := limit.Result{Allowed: true}
		for _, k := range keys {
			s := limit.State{Name: k.Name, Rate: k.Rate, Remaining: 3}
			if k.Cost == limit.Peek {
				s.Remaining = k.Rate.Limit - *failed
			}
			res.States = append(res.States, s)
		}
		return res, nil
	}
	return d
}

// S73: once enough log-ins of a network have failed, whoever logs in from there has a challenge to solve.
func TestFailedLoginsBringAChallenge(t *testing.T) {
	t.Parallel()
	failed := int64(0)
	d := tried(t, &failed, nil)
	for _, c := range []struct {
		failed int64
		status int
	}{{0, 0}, {9, 0}, {10, 403}, {1000, 403}} {
		failed = c.failed
		if v := d.Check(t.Context(), visit()); v.Status != c.status || v.Forward != (c.status == 0) {
			t.Errorf("after %d failed log-ins: status %d", c.failed, v.Status)
		}
	}
	if v := d.Check(t.Context(), visit("x-gatehouse-challenge", "solved")); !v.Forward {
		t.Errorf("with a solution: status %d", v.Status)
	}
}

// What is asked for goes along with the limits, once, and shows nowhere.
func TestFailedLoginsAreAskedForWithTheLimits(t *testing.T) {
	t.Parallel()
	failed := int64(10)
	limits := func(c *guard.Config) {
		c.Limits = []guard.Limit{{Name: "address", Key: guard.ByAddress, Rate: limit.Rate{Limit: 10, Period: time.Minute}}}
	}
	d := tried(t, &failed, limits)
	r := visit()
	r.Addr = netip.MustParseAddr("2001:db8:1:2:3::4")
	d.Check(t.Context(), r)
	if len(d.world.taken) != 1 || len(d.world.taken[0]) != 2 {
		t.Fatalf("asked %v", d.world.taken)
	}
	want := challenge.FailedLogins(netip.MustParseAddr("2001:db8:1:2::"))
	if got := d.world.taken[0][1]; got != want || got.Value != "failed-logins:2001:db8:1:2::/64" {
		t.Errorf("asked for %+v", got)
	}
	for name, change := range map[string]func(*guard.Config){
		"no weight":    func(c *guard.Config) { c.Challenge.Risk.Weights = guard.Weights{Client: 100} },
		"always":       func(c *guard.Config) { c.Challenge.When = guard.Always },
		"no challenge": func(c *guard.Config) { c.Challenge.When = guard.Never },
	} {
		d := tried(t, &failed, func(c *guard.Config) { limits(c); change(c) })
		d.Check(t.Context(), visit())
		if slices.ContainsFunc(d.world.taken, func(keys []limit.Key) bool { return len(keys) != 1 }) {
			t.Errorf("%s: asked %v", name, d.world.taken)
		}
	}
	refusing := tried(t, &failed, limits)
	refusing.world.take = func(keys []limit.Key) (limit.Result, error) {
		return limit.Result{States: []limit.State{{Name: "address", Rate: keys[0].Rate, Exceeded: true}, {Name: keys[1].Name, Rate: keys[1].Rate, Remaining: keys[1].Rate.Limit}}}, nil
	}
	if v := refusing.Check(t.Context(), visit()); v.Status != 429 || v.Header["RateLimit-Policy"] != `"address";q=10;w=60` {
		t.Errorf("status %d, %q", v.Status, v.Header["RateLimit-Policy"])
	}
}

// S56: where a strict limit cannot be counted, the log-in is refused, whatever is known of others that failed.
func TestAStrictLimitDeniesWhereFailedLoginsAreNotKnown(t *testing.T) {
	t.Parallel()
	failed := int64(0)
	d := tried(t, &failed, nil)
	d.world.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, limit.ErrAway }
	if v := d.Check(t.Context(), visit()); v.Status != 503 || problem(t, v).Code != "limits_unavailable" {
		t.Errorf("status %d: %s", v.Status, v.Body)
	}
	d.world.take = func([]limit.Key) (limit.Result, error) { return limit.Result{Allowed: true, Repeated: true}, nil }
	if v := d.Check(t.Context(), visit()); !v.Forward {
		t.Errorf("a request that Kong runs again: status %d", v.Status)
	}
}
