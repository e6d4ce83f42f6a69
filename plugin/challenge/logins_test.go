package challenge_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

func limiter(t *testing.T, address string) *limit.Limiter {
	t.Helper()
	o, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	o.MaxRetries, o.DialerRetries = -1, 1
	client := redis.NewClient(o)
	t.Cleanup(func() { _ = client.Close() })
	return limit.New(limit.Options{Redis: client, ID: t.Name(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
}

func failed(t *testing.T, l *limit.Limiter, address string) int {
	t.Helper()
	res, err := l.Take(t.Context(), "", []limit.Key{challenge.FailedLogins(netip.MustParseAddr(address))})
	if err != nil || !res.Allowed || len(res.States) != 1 {
		t.Fatalf("%+v, %v", res, err)
	}
	return challenge.Counted(res.States[0])
}

// S73: what an upstream calls a failed log-in counts against the client's network at every edge; a success takes nothing back.
func TestFailedLoginsAreCountedByTheUpstreamsAnswers(t *testing.T) {
	t.Parallel()
	url := testenv.Redis(t)
	here, there := limiter(t, url), limiter(t, url)
	var told []string
	l := &challenge.Logins{Statuses: []int{401, 422}, Limiter: here, Meter: func(route, result string) { told = append(told, route+" "+result) }}
	a := func(request, address string, status int, upstream bool) challenge.Answer {
		out := challenge.Answer{Request: request, Route: "login", Status: status, Upstream: upstream}
		if address != "" {
			out.Addr = netip.MustParseAddr(address)
		}
		return out
	}
	for _, answer := range []challenge.Answer{
		a("1", "192.0.2.7", 401, true), a("2", "192.0.2.200", 422, true), a("1", "192.0.2.7", 401, true), // the first once more
		a("", "192.0.2.7", 401, true), a("", "192.0.2.7", 401, true),
		a("3", "192.0.2.7", 401, false), // the gateway's own refusal, of a bad token or by a challenge
		a("4", "192.0.2.7", 403, true), a("5", "192.0.2.7", 200, true),
		a("6", "2001:db8:1:2::1", 401, true), a("7", "2001:db8:1:2:ffff::1", 401, true), a("8", "2001:db8:1:3::1", 401, true),
		a("9", "", 401, true),
	} {
		l.Told(t.Context(), answer)
	}
	for address, want := range map[string]int{"192.0.2.1": 4, "192.0.3.7": 0, "2001:db8:1:2::": 2, "2001:db8:1:3::9": 1} {
		if got := failed(t, there, address); got != want {
			t.Errorf("%s: %d failed log-ins, want %d", address, got, want)
		}
	}
	if got := failed(t, there, "192.0.2.1"); got != 4 {
		t.Errorf("looking counts: %d", got)
	}
	if last := told[len(told)-1]; last != "login unknown" || told[5] != "login passed" || slices.Contains(told[:5], "login passed") {
		t.Errorf("told %q", told)
	}
}

// While Redis is away each edge knows the failures that it saw itself.
func TestWithoutRedisAnEdgeKnowsItsOwnFailedLogins(t *testing.T) {
	t.Parallel()
	l := limiter(t, "redis://127.0.0.1:1")
	logins := &challenge.Logins{Statuses: []int{401}, Limiter: l, Meter: func(string, string) {}}
	for range 3 {
		logins.Told(t.Context(), challenge.Answer{Status: 401, Upstream: true, Addr: netip.MustParseAddr("192.0.2.7")})
	}
	for range 2 { // looking counts nothing
		if got := failed(t, l, "192.0.2.1"); got != 3 {
			t.Errorf("%d failed log-ins", got)
		}
	}
	away := &challenge.Logins{Statuses: []int{401}, Limiter: refusing{}, Meter: func(_, result string) {
		if result != challenge.AnswerUnknown {
			t.Errorf("told %q", result)
		}
	}}
	away.Told(t.Context(), challenge.Answer{Status: 401, Upstream: true, Addr: netip.MustParseAddr("192.0.2.7")})
}

type refusing struct{}

func (refusing) Take(context.Context, string, []limit.Key) (limit.Result, error) {
	return limit.Result{}, errors.New("away")
}
