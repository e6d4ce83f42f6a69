package guard_test

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

var perMinute = limit.Rate{Limit: 60, Period: time.Minute}

// limited is a guard with the given limits, and the keys that it counts a request by.
func limited(t *testing.T, w *world, limits ...guard.Limit) *guard.Guard {
	t.Helper()
	return build(t, w, func(c *guard.Config) { c.Limits = limits })
}

func counted(t *testing.T, w *world, g *guard.Guard, change func(*guard.Request)) []limit.Key {
	t.Helper()
	w.taken = nil
	g.Check(t.Context(), request(change))
	switch len(w.taken) {
	case 0:
		return nil
	case 1:
		return w.taken[0]
	}
	t.Fatalf("asked %d times for one request", len(w.taken))
	return nil
}

func values(keys []limit.Key) []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.Value)
	}
	return out
}

func as(p principal.Principal) *world {
	w := calm()
	p.ExpiresAt = now.Add(time.Minute)
	w.verify = func(string) (principal.Principal, error) { return p, nil }
	return w
}

var ada = principal.Principal{
	Issuer: "https://a.test", Subject: "u1", ClientID: "web", Tenant: "t1", SessionID: "s1",
	Claims: map[string]any{"plan": "gold", "org": "x y", "team": []any{"a", 1.0}},
}

// S63: what is counted by is read from the verified token, the address, the route or, where that is asked for, a header.
func TestALimitCountsByWhatItsKeySays(t *testing.T) {
	t.Parallel()
	for key, want := range map[guard.LimitKey]string{
		"ip":                  "orders:l:192.0.2.1",
		"route":               "orders:l:",
		"subject":             "orders:l:https://a.test,u1",
		"client":              "orders:l:https://a.test,web",
		"tenant":              "orders:l:https://a.test,t1",
		"session":             "orders:l:https://a.test,s1",
		"ip+subject":          "orders:l:192.0.2.1+https://a.test,u1",
		"tenant+client":       "orders:l:https://a.test,t1+https://a.test,web",
		"claim:plan":          "orders:l:https://a.test,#",
		"claim:nothing":       "orders:l:https://a.test,#",
		"header:X-Api-Key":    "orders:l:#",
		"ip+header:x-api-key": "orders:l:192.0.2.1+#",
	} {
		w := as(ada)
		g := limited(t, w, guard.Limit{Name: "l", Key: key, Rate: perMinute})
		got := counted(t, w, g, func(r *guard.Request) { r.Header["x-api-key"] = []string{"secret-canary"} })
		if len(got) != 1 || !strings.HasPrefix(got[0].Value, want) || strings.HasSuffix(want, "#") != (len(got[0].Value) == len(want)+22) || strings.Contains(got[0].Value, "canary") {
			t.Errorf("%s: counted by %q, want %q", key, values(got), want)
		}
	}
}

// S63: no two callers share a key but by intent, whatever their names hold.
func TestDifferentCallersAreCountedApart(t *testing.T) {
	t.Parallel()
	people := []principal.Principal{
		{Issuer: "i", Subject: "u"}, {Issuer: "i", Subject: "u+v"}, {Issuer: "i,u", Subject: "v"}, {Issuer: "i", Subject: "u,v"}, {Issuer: "j", Subject: "u"},
		{Issuer: "i", Subject: "#u"}, {Issuer: "i", Subject: "}u{"}, {Issuer: "i", Subject: strings.Repeat("u", 81)}, {Issuer: "i", Subject: strings.Repeat("u", 82)}, {Issuer: "i", Subject: "é"},
	}
	for _, v := range []any{nil, "", "1", 1.0, true, "true", []any{"a"}, []any{"a", "b"}, map[string]any{"a": "b"}} {
		people = append(people, principal.Principal{Issuer: "i", Subject: "c", Claims: map[string]any{"c": v}})
	}
	seen := map[string]int{}
	for i, p := range people {
		w := as(p)
		got := counted(t, w, limited(t, w, guard.Limit{Name: "l", Key: "subject+claim:c", Rate: perMinute}), nil)
		if len(got) != 1 || len(got[0].Value) > 200 || strings.ContainsAny(got[0].Value, "{} \n") {
			t.Fatalf("%+v: %q", p, values(got))
		}
		if j, same := seen[got[0].Value]; same {
			t.Errorf("%+v and %+v are counted by %s", people[j], p, got[0].Value)
		}
		seen[got[0].Value] = i
	}
	// IPv6 by /64, IPv4 by address however it is written.
	w := calm()
	g := limited(t, w, guard.Limit{Name: "l", Key: "ip", Rate: perMinute})
	at := func(a string) string {
		return values(counted(t, w, g, func(r *guard.Request) { r.Addr = netip.MustParseAddr(a) }))[0]
	}
	if at("2001:db8:1:2::1") != at("2001:db8:1:2:ffff::9") || at("2001:db8:1:2::1") == at("2001:db8:1:3::1") || at("::ffff:192.0.2.1") != at("192.0.2.1") || at("fe80::1%eth0") != at("fe80::2%eth1") {
		t.Error("addresses are not counted by their network")
	}
}

// S63: a request without a verified caller is not counted by one.
func TestACallerWhoIsNotKnownIsCountedByAddressAlone(t *testing.T) {
	t.Parallel()
	w := as(ada)
	g := build(t, w, func(c *guard.Config) {
		c.Identify = guard.Optional
		c.Limits = []guard.Limit{{Name: "a", Key: "ip", Rate: perMinute}, {Name: "b", Key: "ip+subject", Rate: perMinute}, {Name: "c", Key: "claim:plan", Rate: perMinute}}
	})
	got := counted(t, w, g, func(r *guard.Request) { delete(r.Header, "authorization") })
	if diff := cmp.Diff([]string{"orders:a:192.0.2.1"}, values(got)); diff != "" {
		t.Error(diff)
	}
}

func TestATierHasARateOfItsOwn(t *testing.T) {
	t.Parallel()
	l := guard.Limit{Name: "l", Key: "ip", Rate: perMinute, Tiers: guard.Tiers{Claim: "plan", Rates: map[string]limit.Rate{"gold": {Limit: 1000, Period: time.Minute}}}}
	for plan, want := range map[any]int64{"gold": 1000, "silver": 60, nil: 60, 5.0: 60} {
		w := as(principal.Principal{Issuer: "i", Subject: "u", Claims: map[string]any{"plan": plan}})
		if got := counted(t, w, limited(t, w, l), nil); len(got) != 1 || got[0].Rate.Limit != want {
			t.Errorf("plan %v: %+v, want %d", plan, got, want)
		}
	}
	// A tier is known only once the caller is, so nothing is refused before.
	w := as(ada)
	w.spent = func(keys []limit.Key) []limit.State { t.Errorf("asked for %q", values(keys)); return nil }
	counted(t, w, limited(t, w, l), nil)
}

func TestAMethodHasItsCost(t *testing.T) {
	t.Parallel()
	w := calm()
	l := guard.Limit{Name: "l", Key: "ip", Rate: perMinute, Fixed: true, Strict: true, Cost: map[string]int64{"POST": 5, "OPTIONS": 0}}
	g := limited(t, w, l)
	for method, want := range map[string]int64{"GET": 0, "POST": 5} { // 0: what a Limiter takes as 1
		got := counted(t, w, g, func(r *guard.Request) { r.Method = method })
		if len(got) != 1 || got[0].Cost != want || !got[0].Fixed || !got[0].Strict {
			t.Errorf("%s: %+v", method, got)
		}
	}
	if got := counted(t, w, g, func(r *guard.Request) { r.Method = "OPTIONS" }); got != nil {
		t.Errorf("a free method is counted: %+v", got)
	}
}

func TestTheExemptAreNotCounted(t *testing.T) {
	t.Parallel()
	w := as(ada)
	l := guard.Limit{Name: "l", Key: "ip", Rate: perMinute, Exempt: guard.Exempt{
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}, Subjects: []string{"robot", "https://b.test u1"},
	}}
	for address, exempt := range map[string]bool{"10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8::7": true, "11.0.0.1": false, "2001:db9::7": false} {
		if got := counted(t, w, limited(t, w, l), func(r *guard.Request) { r.Addr = netip.MustParseAddr(address) }); (got == nil) != exempt {
			t.Errorf("%s: %+v", address, got)
		}
	}
	for _, c := range []struct {
		issuer, subject string
		exempt          bool
	}{{"https://a.test", "robot", true}, {"https://b.test", "u1", true}, {"https://a.test", "u1", false}, {"https://a.test", "https://b.test u1", false}} {
		w := as(principal.Principal{Issuer: c.issuer, Subject: c.subject})
		if got := counted(t, w, limited(t, w, l), nil); (got == nil) != c.exempt {
			t.Errorf("%s %s: %+v", c.issuer, c.subject, got)
		}
	}
}

// All limits of a request are counted together, once, and by the gateway's id.
func TestARequestIsCountedOnce(t *testing.T) {
	t.Parallel()
	w := calm()
	g := build(t, w, nil)
	got := counted(t, w, g, func(r *guard.Request) { r.ID = "r1"; r.Header["x-request-id"] = []string{"chosen by the client"} })
	if len(got) != 2 || w.ids[0] != "r1" {
		t.Errorf("keys %q, ids %q", values(got), w.ids)
	}
	// A flood of bad tokens is a flood too, and so is one of tokens that have ended.
	for name, change := range map[string]func(*world){
		"bad": func(w *world) {
			w.verify = func(string) (principal.Principal, error) {
				return principal.Principal{}, fault.New(fault.Unauthenticated, "x").Named("token_invalid")
			}
		},
		"ended": func(w *world) { w.revoked = true },
	} {
		for _, mode := range []guard.Mode{guard.Enforce, guard.Observe} {
			w := calm()
			change(w)
			g := build(t, w, func(c *guard.Config) { c.Mode = mode })
			if got := counted(t, w, g, nil); len(got) != 1 || got[0].Name != "per-address" {
				t.Errorf("%s, %s: %q", name, mode, values(got))
			}
			w.take = func(keys []limit.Key) (limit.Result, error) {
				return limit.Result{States: []limit.State{{Name: keys[0].Name, Rate: keys[0].Rate, Exceeded: true, Reset: time.Second}}}, nil
			}
			if v := g.Check(t.Context(), request(nil)); mode == guard.Enforce && v.Status != 429 {
				t.Errorf("%s: status %d", name, v.Status)
			}
		}
	}
}

// A flood to a limit that is known to be spent costs neither a signature check nor a question.
func TestAFloodIsStoppedBeforeAnythingDear(t *testing.T) {
	t.Parallel()
	w := calm()
	w.verify = func(string) (principal.Principal, error) {
		t.Error("the token was verified")
		return principal.Principal{}, errors.New("x")
	}
	w.spent = func(keys []limit.Key) []limit.State {
		return []limit.State{{Name: keys[0].Name, Rate: keys[0].Rate, Exceeded: true, Reset: 90 * time.Second}}
	}
	g := build(t, w, nil)
	v := g.Check(t.Context(), request(nil))
	if v.Status != 429 || v.Header["Retry-After"] != "90" || len(w.taken) != 0 || v.Header["RateLimit"] != `"per-address";r=0;t=90` {
		t.Errorf("status %d, header %v, asked %d times", v.Status, v.Header, len(w.taken))
	}
}

// S56: nobody to count by, and a limit that must be counted.
func TestAStrictLimitThatCannotBeCountedDenies(t *testing.T) {
	t.Parallel()
	w := calm()
	w.take = func([]limit.Key) (limit.Result, error) { return limit.Result{}, limit.ErrAway }
	v := build(t, w, nil).Check(t.Context(), request(nil))
	if p := problem(t, v); v.Status != 503 || p.Code != "limits_unavailable" {
		t.Errorf("status %d, problem %+v", v.Status, p)
	}
}

func TestALimitThatMakesNoSenseIsRefusedWithThePath(t *testing.T) {
	t.Parallel()
	gold := map[string]limit.Rate{"gold": {Limit: 5, Period: time.Minute}}
	for want, change := range map[string]func(*guard.Config){
		"config.limits[1].key: expected":                  func(c *guard.Config) { c.Limits[0].Key = "ip+ip" },
		"config.limits[1].key: claim:plan needs identify": func(c *guard.Config) { c.Identify, c.Limits[0].Key = guard.None, "claim:plan" },
		"config.limits[1].tiers: expected a claim":        func(c *guard.Config) { c.Limits[0].Tiers.Rates = gold },
		"config.limits[1].tiers.claim: needs identify": func(c *guard.Config) {
			c.Identify, c.Limits[0].Tiers = guard.None, guard.Tiers{Claim: "plan", Rates: gold}
		},
		"config.limits[1].tiers.rates.gold: expected the": func(c *guard.Config) {
			c.Limits[0].Tiers = guard.Tiers{Claim: "plan", Rates: map[string]limit.Rate{"gold": {Limit: 5, Period: time.Hour}}}
		},
		"config.limits[1].cost.POST: expected 0 to 5": func(c *guard.Config) {
			c.Limits[0].Tiers, c.Limits[0].Cost = guard.Tiers{Claim: "plan", Rates: gold}, map[string]int64{"POST": 6}
		},
		"config.limits[1].exempt.subjects[1]: expected": func(c *guard.Config) {
			c.Issuers = append(c.Issuers, guard.Issuer{Issuer: "j"})
			c.Limits[0].Exempt.Subjects = []string{"u1"}
		},
		"config.limits[1].rate: expected a number":         func(c *guard.Config) { c.Limits[0].Rate.Limit = 1 << 60 },
		"config.revocation.when_behind: expected deny":     func(c *guard.Config) { c.Alive.Behind = "hope" },
		"config.revocation.when_behind: introspect needs":  func(c *guard.Config) { c.Identify, c.Alive.Behind = guard.None, guard.Introspect },
		"config.revocation.max_lag_seconds: expected a ti": func(c *guard.Config) { c.Alive.MaxLag = -1 },
	} {
		cfg := config()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	for _, key := range []guard.LimitKey{"", "+", "ip+", "user", "claim:", "claim", "header:", "header:a b", "ip+subject+client", "IP"} {
		cfg := config()
		cfg.Limits[0].Key = key
		if cfg.Validate() == nil {
			t.Errorf("key %q is taken", key)
		}
	}
}

func BenchmarkLimitKeys(b *testing.B) {
	for _, n := range []int{1, 4} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			limits := []guard.Limit{{Name: "a", Key: "ip", Rate: perMinute}, {Name: "b", Key: "subject", Rate: perMinute}, {Name: "c", Key: "ip+header:x-api-key", Rate: perMinute}, {Name: "d", Key: "claim:plan", Rate: perMinute}}
			g := build(b, as(ada), func(c *guard.Config) { c.Limits, c.Authorize = limits[:n], false })
			r := request(nil)
			b.ReportAllocs()
			for b.Loop() {
				g.Check(b.Context(), r)
			}
		})
	}
}
