package challenge_test

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func clearances(t testing.TB, s telemetry.Secret, now func() time.Time) *challenge.Clearances {
	t.Helper()
	c, err := challenge.NewClearances(s, 5*time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var solver = challenge.Client{Bind: bind, UserAgent: "browser", Risk: 30}

// S14: a clearance is good for the action, the route, the network and the user agent that solved, and not for long.
func TestAClearanceIsGoodForOneClient(t *testing.T) {
	t.Parallel()
	at := &clock{time.Unix(1_800_000_000, 0)}
	c := clearances(t, secret, at.now)
	token := c.Grant(solver)
	other := func(change func(*challenge.Client)) challenge.Client {
		client := solver
		change(&client)
		return client
	}
	for name, client := range map[string]challenge.Client{
		"another action":     other(func(c *challenge.Client) { c.Action = "login" }),
		"another route":      other(func(c *challenge.Client) { c.Route = "auth-login" }),
		"another network":    other(func(c *challenge.Client) { c.Addr = netip.MustParseAddr("192.0.3.7") }),
		"IPv6":               other(func(c *challenge.Client) { c.Addr = netip.MustParseAddr("2001:db8::1") }),
		"another user agent": other(func(c *challenge.Client) { c.UserAgent = "robot" }),
		"a higher risk":      other(func(c *challenge.Client) { c.Risk = 50 }),
		"moved boundaries":   other(func(c *challenge.Client) { c.Action, c.Route = c.Action+"a", c.Route[1:] }),
	} {
		if c.Clears(token, client) {
			t.Errorf("%s is cleared", name)
		}
	}
	for name, client := range map[string]challenge.Client{
		"the same":                       solver,
		"another address of the network": other(func(c *challenge.Client) { c.Addr = netip.MustParseAddr("::ffff:192.0.2.200") }),
		"a risk of the same quarter":     other(func(c *challenge.Client) { c.Risk = 49 }),
		"less risk":                      other(func(c *challenge.Client) { c.Risk = 0 }),
	} {
		if !clearances(t, secret, at.now).Clears(token, client) { // by another process
			t.Errorf("%s is not cleared", name)
		}
	}
	at.at = at.at.Add(5 * time.Minute)
	if c.Clears(token, solver) || c.Unexpired(token) {
		t.Error("it does not expire")
	}
}

func TestAnIPv6ClearanceHoldsForTheHousehold(t *testing.T) {
	t.Parallel()
	c := clearances(t, secret, time.Now)
	home := solver
	home.Addr = netip.MustParseAddr("2001:db8:1:2::1")
	token := c.Grant(home)
	if home.Addr = netip.MustParseAddr("2001:db8:1:2:ffff::9"); !c.Clears(token, home) {
		t.Error("another address of the /64 is not cleared")
	}
	if home.Addr = netip.MustParseAddr("2001:db8:1:3::1"); c.Clears(token, home) {
		t.Error("another /64 is cleared")
	}
}

func TestAForgedClearanceIsRefused(t *testing.T) {
	t.Parallel()
	c := clearances(t, secret, time.Now)
	good, err := base64.RawURLEncoding.DecodeString(c.Grant(solver))
	if err != nil {
		t.Fatal(err)
	}
	for i := range good { // expiry, risk, code: each byte counts
		bad := append([]byte(nil), good...)
		bad[i] ^= 1
		if c.Clears(base64.RawURLEncoding.EncodeToString(bad), solver) {
			t.Errorf("byte %d changed, and cleared", i)
		}
	}
	for name, token := range map[string]string{
		"empty": "", "too short": base64.RawURLEncoding.EncodeToString(good[:40]), "not base64": strings.Repeat("*", 55),
		"another secret": clearances(t, secret+"x", time.Now).Grant(solver), "a solution": solve(t, open(t, "redis://127.0.0.1:1", time.Now), bind),
	} {
		if c.Clears(token, solver) {
			t.Errorf("%s is cleared", name)
		}
	}
}

func TestClearancesNeedASecretAndATime(t *testing.T) {
	t.Parallel()
	if _, err := challenge.NewClearances("canary", time.Minute, time.Now); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
	if _, err := challenge.NewClearances(secret, 0, time.Now); err == nil {
		t.Error("no time is taken")
	}
}

func FuzzClears(f *testing.F) {
	c := clearances(f, secret, time.Now)
	f.Add(c.Grant(challenge.Client{}))
	f.Fuzz(func(t *testing.T, token string) {
		if c.Clears(token, solver) {
			t.Errorf("%q clears", token)
		}
	})
}
