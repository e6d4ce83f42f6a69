package revocation_test

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

// apart is a follower behind a network that can fail, and a client that needs none of it.
type apart struct {
	network *toxic.Proxy
	direct  redis.UniversalClient
	*revocation.Follower
}

func (a apart) revoked(sid string) func() bool {
	return func() bool { return a.Revoked(principal.Principal{Subject: "u", SessionID: sid, IssuedAt: time.Now()}) }
}

func client(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisx.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func startApart(t *testing.T, url string, now func() time.Time) apart {
	t.Helper()
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	network := toxic.New(t, opts.Addr)
	a := apart{network: network, direct: client(t, url)}
	patient, err := redisx.OpenFor(network.Through(url), revocation.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { patient.Close() })
	a.Follower = start(t, patient, now)
	await.That(t, "the stream has been read", func() bool { return a.Known() == nil })
	return a
}

func eachApart(t *testing.T, test func(t *testing.T, a apart)) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, startApart(t, open(t), time.Now))
		})
	}
}

func session(sid string) redisx.Revocation { return redisx.Revocation{Kind: "sid", Value: sid} }

// S25, S56: whatever the network does between edge and Redis, what was published meanwhile is known once it works again.
func TestNothingIsMissedThroughABadNetwork(t *testing.T) {
	eachApart(t, func(t *testing.T, a apart) {
		ctx, stop := context.WithCancel(t.Context())
		published := make(chan int)
		go func() {
			n := 0
			defer func() { published <- n }()
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				r := session("s" + strconv.Itoa(n))
				r.ExpiresAt = time.Now().Add(time.Hour)
				if err := redisx.PublishRevocation(context.WithoutCancel(ctx), a.direct, r, time.Now()); err != nil {
					t.Errorf("publish: %v", err)
					return
				}
				n++
			}
		}()
		more := func() {
			n := a.Len()
			await.That(t, "news comes through", func() bool { return a.Len() > n })
		}
		for _, harm := range []struct {
			kind       string
			attributes map[string]any
		}{
			{"timeout", map[string]any{"timeout": 0}},
			{"limit_data", map[string]any{"bytes": 700}},
			{"reset_peer", map[string]any{"timeout": 20}},
			{"slicer", map[string]any{"average_size": 20, "size_variation": 10, "delay": 50}},
			{"latency", map[string]any{"latency": 300}},
		} {
			more()
			a.network.Add(harm.kind, harm.attributes)
			await.That(t, "the edge notices "+harm.kind, func() bool { return a.Lag() > 400*time.Millisecond || harm.kind == "slicer" || harm.kind == "latency" })
			a.network.Heal()
			more()
			a.network.Cut()
			await.That(t, "the edge notices the cut", func() bool { return a.Lag() > 400*time.Millisecond })
			a.network.Join()
		}
		more()
		stop()
		n := <-published
		await.That(t, "all are known", func() bool { return a.Len() == n })
		for i := range n {
			if !a.revoked("s" + strconv.Itoa(i))() {
				t.Errorf("s%d is alive", i)
			}
		}
		await.That(t, "the set is ready", func() bool { return a.Ready() == nil })
		if a.Gaps() != 0 {
			t.Errorf("%d gaps", a.Gaps())
		}
	})
}

// S25, S56: a Redis whose every answer is 300 ms late refuses nobody: the set is as current as that allows, by a new connection too.
func TestASlowRedisKeepsTheSetCurrent(t *testing.T) {
	eachApart(t, func(t *testing.T, a apart) {
		a.network.Cut()
		a.network.Add("latency", map[string]any{"latency": 300})
		await.That(t, "the edge is behind", func() bool { return a.Lag() > 2*time.Second })
		a.network.Join()
		publish(t, a.direct, session("s1"))
		await.That(t, "s1 is revoked", a.revoked("s1"))
		await.That(t, "nothing is missing", func() bool { return a.Lag() < 1500*time.Millisecond && a.Ready() == nil })
		a.network.Heal()
	})
}

// S25, S56: entries that were trimmed while the edge was away are not passed over in silence: the lag grows until the
// snapshot brings them. miniredis does not say what it deleted.
func TestWhatWasTrimmedUnreadIsMissedUntilTheSnapshotHoldsIt(t *testing.T) {
	t.Parallel()
	a := startApart(t, testenv.Redis(t), time.Now)
	publish(t, a.direct, session("s0"))
	await.That(t, "s0 is revoked", a.revoked("s0"))
	a.network.Cut()
	publish(t, a.direct, session("s1"))
	trim(t, a.direct)
	publish(t, a.direct, session("s2"))
	a.network.Join()
	await.That(t, "s2 is revoked", a.revoked("s2"))
	await.That(t, "the gap is noticed", func() bool { return a.Gaps() == 1 })
	lag := a.Lag()
	await.That(t, "the lag grows", func() bool { return a.Lag() > lag+500*time.Millisecond })

	// A snapshot that is too old to hold what is missing changes nothing.
	old := session("s0")
	old.ExpiresAt = time.Now().Add(time.Hour)
	snapshot(t, a.direct, redisx.Cursor{ID: "1-1", Added: 1}, old)
	lag = a.Lag()
	await.That(t, "the lag grows on", func() bool { return a.Lag() > lag+1500*time.Millisecond })

	cursor, err := redisx.RevocationCursor(t.Context(), a.direct)
	if err != nil {
		t.Fatal(err)
	}
	missed := session("s1")
	missed.ExpiresAt = time.Now().Add(time.Hour)
	snapshot(t, a.direct, cursor, old, missed)
	await.That(t, "s1 is revoked", a.revoked("s1"))
	await.That(t, "nothing is missing", func() bool { return a.Lag() < time.Second })
}

func trim(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	if err := c.XTrimMaxLen(t.Context(), redisx.RevocationStream, 0).Err(); err != nil {
		t.Fatal(err)
	}
}

func snapshot(t *testing.T, c redis.UniversalClient, cursor redisx.Cursor, all ...redisx.Revocation) {
	t.Helper()
	if err := redisx.WriteRevocationSnapshot(t.Context(), c, cursor, slices.Values(all)); err != nil {
		t.Fatal(err)
	}
}

// S56: an edge that starts when entries after the snapshot are already gone knows that it knows too little.
func TestAnEdgeThatStartsAfterATrimIsBehind(t *testing.T) {
	t.Parallel()
	c := client(t, testenv.Redis(t))
	publish(t, c, session("s0"))
	cursor, err := redisx.RevocationCursor(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	snapshot(t, c, cursor)
	publish(t, c, session("s1"))
	trim(t, c)
	var ahead atomic.Int64
	f := start(t, c, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
	if f.Lag() < 24*time.Hour || f.Ready() == nil || f.Gaps() != 1 {
		t.Errorf("lag %v, ready %v, %d gaps", f.Lag(), f.Ready(), f.Gaps())
	}
	// No token that the lost entry could have ended is alive any more.
	ahead.Store(int64(24*time.Hour + time.Minute))
	await.That(t, "the loss no longer matters", func() bool { return f.Lag() < time.Second })
}

// A publisher that keeps the stream short loses nothing for whoever reads along.
func TestAShortStreamHidesNothingFromWhoReadsAlong(t *testing.T) {
	t.Parallel()
	c := client(t, testenv.Redis(t))
	f := start(t, c, time.Now)
	await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
	for i := range 200 {
		r := session("s" + strconv.Itoa(i))
		r.ExpiresAt = time.Now().Add(time.Hour)
		if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, MaxLen: 1, Values: r.Values()}).Err(); err != nil {
			t.Fatal(err)
		}
		await.That(t, r.Value+" is held", func() bool { return f.Len() == i+1 })
	}
	await.That(t, "the set is complete", func() bool { return f.Lag() < time.Second })
	if f.Gaps() != 0 {
		t.Errorf("%d gaps", f.Gaps())
	}
}

// S25: what only the snapshot holds is known from the start, and what came after it too.
func TestASnapshotAndTheStreamAfterItAreEnough(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		now := time.Now()
		publish(t, c, session("s0"))
		cursor, err := redisx.RevocationCursor(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		var all []redisx.Revocation
		for i := range 2500 {
			all = append(all, redisx.Revocation{Kind: "sid", Value: "s" + strconv.Itoa(i), ExpiresAt: now.Add(time.Hour)})
		}
		all = append(all, redisx.Revocation{Kind: "sub", Value: "u:1", NotBefore: now, ExpiresAt: now.Add(time.Hour)})
		snapshot(t, c, cursor, all...)
		trim(t, c)
		if err := c.HSet(t.Context(), redisx.RevocationSnapshot, "nonsense", "x").Err(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, session("later"))
		f := follow(time.Now)
		await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
		if f.Len() != len(all)+1 || f.Lag() > time.Minute || f.Gaps() != 0 {
			t.Errorf("%d entries, lag %v, %d gaps", f.Len(), f.Lag(), f.Gaps())
		}
		if !f.Revoked(principal.Principal{Subject: "u:1", IssuedAt: now.Add(-time.Hour)}) || f.Revoked(principal.Principal{Subject: "u:1", IssuedAt: now.Add(time.Minute)}) {
			t.Error("the subject's not-before was not read")
		}
	})
}

// What lies where the snapshot should, and is none, keeps nobody from reading the stream.
func TestABrokenSnapshotIsPassedOver(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		if err := c.Set(t.Context(), redisx.RevocationSnapshot, strings.Repeat("x", 100), 0).Err(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, session("s1"))
		f := follow(time.Now)
		await.That(t, "s1 is revoked", func() bool { return f.Revoked(principal.Principal{SessionID: "s1"}) })
		await.That(t, "the set is complete", func() bool { return f.Lag() < time.Minute })
	})
}

// Nothing is held longer than a token can live, whatever the entry says; a withdrawn key stays withdrawn.
func TestNoEntryOutlivesTheLongestToken(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_772_000_000, 0)
	s := revocation.New(func() time.Time { return now }, time.Hour)
	for _, kind := range []string{"sid", "sub", "jti", "client_id", "kid"} {
		s.Add(redisx.Revocation{Kind: kind, Value: "v", NotBefore: now, ExpiresAt: now.AddDate(200, 0, 0)})
	}
	now = now.Add(time.Hour + time.Second)
	if s.Sweep(); s.Len() != 1 || !s.Revoked(principal.Principal{KeyID: "v", IssuedAt: now}) {
		t.Errorf("%d entries held", s.Len())
	}
}
