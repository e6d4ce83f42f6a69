package challenge_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	altcha "github.com/altcha-org/altcha-lib-go"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

const secret = telemetry.Secret("0123456789abcdef0123456789abcdef")

var bind = challenge.Bind{Action: "register", Route: "auth-register", Addr: netip.MustParseAddr("192.0.2.7")}

func open(t testing.TB, url string, now func() time.Time) *challenge.Challenger {
	t.Helper()
	client, err := redisx.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := challenge.New(challenge.Options{Secret: secret, MaxNumber: 100, TTL: 5 * time.Minute, Redis: client, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func solve(t testing.TB, c *challenge.Challenger, b challenge.Bind) string {
	t.Helper()
	issued, err := c.Issue(t.Context(), b, 0)
	if err != nil {
		t.Fatal(err)
	}
	given := issued.(challenge.Challenge)
	s, err := altcha.SolveChallenge(given.Challenge, given.Salt, altcha.SHA256, int(given.MaxNumber), 0, nil)
	if err != nil || s == nil {
		t.Fatalf("solution %v, error %v", s, err)
	}
	return encode(t, altcha.Payload{Algorithm: given.Algorithm, Challenge: given.Challenge, Number: int64(s.Number), Salt: given.Salt, Signature: given.Signature})
}

func encode(t testing.TB, p altcha.Payload) string {
	t.Helper()
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// S14, S72: of many who send the same solution at once, to two processes, one passes.
func TestASolutionIsSpentOnce(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]func() string{
		"redis":     func() string { return testenv.Redis(t) },
		"miniredis": func() string { return "redis://" + miniredis.RunT(t).Addr() },
	} {
		address := url()
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			edges := []*challenge.Challenger{open(t, address, time.Now), open(t, address, time.Now)}
			payload := solve(t, edges[0], bind)
			var passed atomic.Int64
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					switch err := edges[i%2].Spend(t.Context(), payload, bind, ""); {
					case err == nil:
						passed.Add(1)
					case !errors.Is(err, challenge.ErrInvalid):
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if n := passed.Load(); n != 1 {
				t.Errorf("%d passed, want 1", n)
			}
		})
	}
}

// S14: a solution is good for the action, the route and the network that it was given for, and until it expires.
func TestASolutionIsGoodForOneThing(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	c := open(t, testenv.Redis(t), now)
	other := func(change func(*challenge.Bind)) challenge.Bind {
		b := bind
		change(&b)
		return b
	}
	for name, b := range map[string]challenge.Bind{
		"another action":  other(func(b *challenge.Bind) { b.Action = "login" }),
		"another route":   other(func(b *challenge.Bind) { b.Route = "auth-login" }),
		"another network": other(func(b *challenge.Bind) { b.Addr = netip.MustParseAddr("192.0.3.7") }),
		"no address":      other(func(b *challenge.Bind) { b.Addr = netip.Addr{} }),
	} {
		if err := c.Spend(t.Context(), solve(t, c, bind), b, ""); !errors.Is(err, challenge.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	near := other(func(b *challenge.Bind) { b.Addr = netip.MustParseAddr("::ffff:192.0.2.99") })
	if err := c.Spend(t.Context(), solve(t, c, bind), near, ""); err != nil {
		t.Errorf("another address of the same network: %v", err)
	}
	late := solve(t, c, bind)
	ahead.Store(int64(5 * time.Minute))
	if err := c.Spend(t.Context(), late, bind, ""); !errors.Is(err, challenge.ErrInvalid) {
		t.Errorf("expired: %v", err)
	}
}

func TestAForgedSolutionIsRefused(t *testing.T) {
	t.Parallel()
	c := open(t, testenv.Redis(t), time.Now)
	data, err := base64.StdEncoding.DecodeString(solve(t, c, bind))
	if err != nil {
		t.Fatal(err)
	}
	var good altcha.Payload
	if err := json.Unmarshal(data, &good); err != nil {
		t.Fatal(err)
	}
	spoil := func(change func(*altcha.Payload)) string {
		p := good
		change(&p)
		return encode(t, p)
	}
	for name, bad := range map[string]string{
		"empty": "", "not base64": "%%%", "not JSON": "AAAA", "too long": strings.Repeat("A", 5000),
		"another number":    spoil(func(p *altcha.Payload) { p.Number++ }),
		"another signature": spoil(func(p *altcha.Payload) { p.Signature = strings.Repeat("0", 64) }),
		"a later expiry":    spoil(func(p *altcha.Payload) { p.Salt = strings.Replace(p.Salt, "expires=1", "expires=9", 1) }),
		"another algorithm": spoil(func(p *altcha.Payload) { p.Algorithm = "SHA-1" }),
	} {
		if err := c.Spend(t.Context(), bad, bind, ""); !errors.Is(err, challenge.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Spend(t.Context(), encode(t, good), bind, ""); err != nil {
		t.Errorf("the same unspoiled: %v", err)
	}
}

// S14: digits moved from the number to the signed text hash alike; they must buy neither time nor a second use.
func TestASplicedSolutionBuysNothing(t *testing.T) {
	t.Parallel()
	c := open(t, testenv.Redis(t), time.Now)
	var good altcha.Payload
	for good.Number < 10 { // it takes two digits
		data, err := base64.StdEncoding.DecodeString(solve(t, c, bind))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &good); err != nil {
			t.Fatal(err)
		}
	}
	digits := strconv.FormatInt(good.Number, 10)
	if digits[1] == '0' {
		t.Skip("a number with a leading zero is another number")
	}
	spliced := good
	spliced.Salt += digits[:1]
	spliced.Number, _ = strconv.ParseInt(digits[1:], 10, 64)
	passed := 0
	for _, p := range []altcha.Payload{spliced, good} {
		if c.Spend(t.Context(), encode(t, p), bind, "") == nil {
			passed++
		}
	}
	if passed != 1 {
		t.Errorf("%d uses, want 1", passed)
	}
}

// The work follows the risk, between two bounds.
func TestTheWorkFollowsTheRisk(t *testing.T) {
	t.Parallel()
	o := challenge.Options{Secret: secret, MaxNumber: 1000, RiskyWork: 11000, TTL: time.Minute, Now: time.Now}
	c, err := challenge.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for risk, want := range map[int]int64{-5: 1000, 0: 1000, 50: 6000, 100: 11000, 1000: 11000} {
		issued, err := c.Issue(t.Context(), bind, risk)
		if err != nil {
			t.Fatal(err)
		}
		if got := issued.(challenge.Challenge).MaxNumber; got != want {
			t.Errorf("risk %d: work %d, want %d", risk, got, want)
		}
	}
	o.RiskyWork = 999
	if _, err := challenge.New(o); err == nil || !strings.Contains(err.Error(), "risk.max_number") {
		t.Errorf("less work for more risk: %v", err)
	}
}

// S56: when nobody can say whether a solution is spent, it does not pass.
func TestWithoutRedisNoSolutionPasses(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	c := open(t, "redis://"+m.Addr(), time.Now)
	payload := solve(t, c, bind)
	m.Close()
	if err := c.Spend(t.Context(), payload, bind, ""); !errors.Is(err, challenge.ErrUnavailable) {
		t.Errorf("error %v, want challenge_unavailable", err)
	}
}

func TestAWeakSecretIsRefused(t *testing.T) {
	t.Parallel()
	_, err := challenge.New(challenge.Options{Secret: "canary", MaxNumber: 1, TTL: time.Minute, Now: time.Now})
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func FuzzSpend(f *testing.F) {
	c := open(f, "redis://127.0.0.1:1", time.Now)
	f.Add("eyJhbGdvcml0aG0iOiJTSEEtMjU2In0=")
	f.Fuzz(func(t *testing.T, payload string) {
		if err := c.Spend(t.Context(), payload, bind, ""); err == nil {
			t.Errorf("%q passed", payload)
		}
	})
}
