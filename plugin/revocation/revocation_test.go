package revocation_test

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(toxic.Leaks)) }

// stores are the two Redis that a set must work on alike.
var stores = map[string]func(*testing.T) string{
	"redis":     func(t *testing.T) string { return testenv.Redis(t) },
	"miniredis": func(t *testing.T) string { return "redis://" + miniredis.RunT(t).Addr() },
}

func each(t *testing.T, test func(t *testing.T, c redis.UniversalClient, follow func(now func() time.Time) *revocation.Follower)) {
	t.Parallel()
	for name, open := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := redisx.Open(open(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			test(t, c, func(now func() time.Time) *revocation.Follower { return start(t, c, now) })
		})
	}
}

func start(t *testing.T, c redis.UniversalClient, now func() time.Time) *revocation.Follower {
	t.Helper()
	f := revocation.Follow(c, revocation.New(now, 24*time.Hour), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func publish(t *testing.T, c redis.UniversalClient, r redisx.Revocation) {
	t.Helper()
	if r.ExpiresAt.IsZero() {
		r.ExpiresAt = time.Now().Add(time.Hour)
	}
	if err := redisx.PublishRevocation(t.Context(), c, r, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// S25: whatever ends a token, every edge that follows the stream knows; a token of somebody else stays alive.
func TestEachKindEndsTheTokensThatItNames(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		f := follow(time.Now)
		issued := time.Now()
		alive := principal.Principal{Subject: "u0", SessionID: "s0", TokenID: "j0", ClientID: "c0", KeyID: "k0", IssuedAt: issued}
		for _, c2 := range []struct {
			r redisx.Revocation
			p principal.Principal
		}{
			{redisx.Revocation{Kind: "sid", Value: "s1"}, principal.Principal{Subject: "u0", SessionID: "s1", IssuedAt: issued}},
			{redisx.Revocation{Kind: "jti", Value: "j1"}, principal.Principal{Subject: "u0", TokenID: "j1", IssuedAt: issued}},
			{redisx.Revocation{Kind: "client_id", Value: "c1"}, principal.Principal{Subject: "u0", ClientID: "c1", IssuedAt: issued}},
			{redisx.Revocation{Kind: "kid", Value: "k1"}, principal.Principal{Subject: "u0", KeyID: "k1", IssuedAt: issued}},
			{redisx.Revocation{Kind: "sub", Value: "u1", NotBefore: issued}, principal.Principal{Subject: "u1", IssuedAt: issued.Truncate(time.Second)}},
		} {
			publish(t, c, c2.r)
			await.That(t, c2.r.Kind+" is revoked", func() bool { return f.Revoked(c2.p) })
		}
		if f.Revoked(alive) {
			t.Error("a token that nobody ended is revoked")
		}
		if f.Revoked(principal.Principal{Subject: "u1", IssuedAt: issued.Add(2 * time.Second)}) {
			t.Error("a token issued after the subject's revocation is revoked")
		}
	})
}

func TestAnEdgeThatStartsLaterReadsWhatWasPublishedBefore(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		for range 3 {
			publish(t, c, redisx.Revocation{Kind: "sid", Value: "s1"})
		}
		if err := c.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, Values: map[string]any{"kind": "nonsense"}}).Err(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s2"})
		f := follow(time.Now)
		await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
		if !f.Revoked(principal.Principal{SessionID: "s1"}) || !f.Revoked(principal.Principal{SessionID: "s2"}) || f.Len() != 2 {
			t.Errorf("%d entries known", f.Len())
		}
		if err := f.Ready(); err != nil {
			t.Errorf("Ready = %v", err)
		}
	})
}

// S56: before the stream has been read nobody is known to be alive.
func TestUntilTheStreamIsReadNothingIsKnown(t *testing.T) {
	t.Parallel()
	s := revocation.New(time.Now, 24*time.Hour)
	if s.Known() == nil {
		t.Error("an empty set claims to know")
	}
	if revocation.Follow(nil, s, slog.New(slog.DiscardHandler)).Ready() == nil {
		t.Error("an empty set claims to be ready")
	}
}

// S56: Redis away changes nothing of what is known, and its return, even with all its data lost, brings the news.
func TestTheSetOutlivesRedisAndCatchesUp(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	address := m.Addr()
	c, err := redisx.Open("redis://" + address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var ahead atomic.Int64
	f := start(t, c, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	publish(t, c, redisx.Revocation{Kind: "sid", Value: "s1"})
	await.That(t, "s1 is revoked", func() bool { return f.Known() == nil && f.Revoked(principal.Principal{SessionID: "s1"}) })

	m.Close()
	ahead.Store(int64(time.Minute))
	await.That(t, "the set knows that it is behind", func() bool { return f.Ready() != nil })
	if f.Known() != nil || !f.Revoked(principal.Principal{SessionID: "s1"}) {
		t.Error("the set forgot while Redis was away")
	}
	empty := miniredis.NewMiniRedis()
	if err := empty.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(empty.Close)
	publish(t, c, redisx.Revocation{Kind: "sid", Value: "s2", ExpiresAt: time.Now().Add(time.Hour)})
	await.That(t, "s2 is revoked", func() bool { return f.Revoked(principal.Principal{SessionID: "s2"}) })
	if !f.Revoked(principal.Principal{SessionID: "s1"}) {
		t.Error("the set forgot what the emptied Redis no longer holds")
	}
	await.That(t, "the set is ready again", func() bool { return f.Ready() == nil })
}

// S56: a stream that is replaced or trimmed without a broken connection neither hides what comes after nor takes back what
// came before, even where the new entries' ids are lower.
func TestAReplacedStreamHidesNothing(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		f := follow(time.Now)
		revoked := func(sid string) func() bool {
			return func() bool { return f.Revoked(principal.Principal{SessionID: sid}) }
		}
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s1"})
		await.That(t, "s1 is revoked", revoked("s1"))
		// Until the stream has been counted once, one that is replaced within a millisecond by an entry of the same id looks the same.
		await.That(t, "the stream has been counted", func() bool { return f.Known() == nil })

		later := redisx.Revocation{Kind: "sid", ExpiresAt: time.Now().Add(time.Hour)}
		_, err := c.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
			p.Del(t.Context(), redisx.RevocationStream)
			later.Value = "s2"
			p.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, ID: "1-1", Values: later.Values()})
			later.Value = "s3"
			p.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, Values: later.Values()})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		await.That(t, "s3 is revoked", revoked("s3"))
		await.That(t, "s2, whose id is lower than what was read before, is revoked", revoked("s2"))

		if err := c.XTrimMaxLen(t.Context(), redisx.RevocationStream, 0).Err(); err != nil {
			t.Fatal(err)
		}
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s4"})
		await.That(t, "s4 is revoked", revoked("s4"))
		for _, sid := range []string{"s1", "s2", "s3"} {
			if !revoked(sid)() {
				t.Errorf("%s is alive again", sid)
			}
		}
	})
}

// A stream longer than one page is known only when it has been read to its end.
func TestALongStreamIsReadToItsEnd(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		const n, batch = 2500, 100
		for i := 0; i < n; i += batch {
			_, err := c.Pipelined(t.Context(), func(p redis.Pipeliner) error {
				for j := range batch {
					r := redisx.Revocation{Kind: "sid", Value: "s" + strconv.Itoa(i+j), ExpiresAt: time.Now().Add(time.Hour)}
					p.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, Values: r.Values()})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		f := follow(time.Now)
		await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
		if f.Len() != n {
			t.Errorf("%d entries known, want %d", f.Len(), n)
		}
	})
}

// S25: a connection that dies without a word delays the news, but not for long.
func TestAHungConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	through := startProxy(t, m.Addr())
	slow, err := redisx.Open("redis://" + through.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slow.Close() })
	direct, err := redisx.Open("redis://" + m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { direct.Close() })
	f := start(t, slow, time.Now)
	await.That(t, "the stream has been read", func() bool { return f.Known() == nil })
	through.hang()
	began := time.Now()
	publish(t, direct, redisx.Revocation{Kind: "sid", Value: "s1"})
	await.That(t, "s1 is revoked", func() bool { return f.Revoked(principal.Principal{SessionID: "s1"}) })
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("the news took %v", d)
	}
}

func TestOfTwoEntriesForOneSubjectTheWiderCounts(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		f, now := follow(time.Now), time.Now()
		early := redisx.Revocation{Kind: "sub", NotBefore: now.Add(-time.Hour), ExpiresAt: now.Add(time.Hour)}
		late := redisx.Revocation{Kind: "sub", NotBefore: now, ExpiresAt: now.Add(time.Minute)}
		for subject, order := range map[string][]redisx.Revocation{"u1": {early, late}, "u2": {late, early}} {
			for _, r := range order {
				r.Value = subject
				publish(t, c, r)
			}
			await.That(t, subject+" is revoked until the later moment", func() bool {
				return f.Revoked(principal.Principal{Subject: subject, IssuedAt: now.Add(-time.Minute)})
			})
		}
	})
}

// What nobody publishes about any more is forgotten all the same.
func TestAQuietStreamIsSwept(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		var ahead atomic.Int64
		f := follow(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s1", ExpiresAt: time.Now().Add(time.Minute)})
		await.That(t, "s1 is held", func() bool { return f.Len() == 1 })
		ahead.Store(int64(3 * time.Minute))
		await.That(t, "nothing is held", func() bool { return f.Len() == 0 })
	})
}

func TestLookUpsRunBesideNewsAndAllocateNothing(t *testing.T) {
	// Not parallel: AllocsPerRun counts the allocations of the whole process.
	m := miniredis.RunT(t)
	c, err := redisx.Open("redis://" + m.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := revocation.New(time.Now, 24*time.Hour)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- revocation.Follow(c, s, slog.New(slog.DiscardHandler)).Run(ctx) }()
	p := principal.Principal{Subject: "u", SessionID: "s", TokenID: "j", ClientID: "c", KeyID: "k", IssuedAt: time.Now()}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for s.Len() < 100 && ctx.Err() == nil {
				if s.Revoked(p) {
					t.Error("revoked")
					return
				}
			}
		})
	}
	for i := range 100 {
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "other" + strconv.Itoa(i)})
	}
	wg.Wait()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(1000, func() { s.Revoked(p) }); n != 0 {
		t.Errorf("%v allocations a look-up", n)
	}
}

func TestWhatHasExpiredIsForgotten(t *testing.T) {
	each(t, func(t *testing.T, c redis.UniversalClient, follow func(func() time.Time) *revocation.Follower) {
		var ahead atomic.Int64
		f := follow(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s1", ExpiresAt: time.Now().Add(time.Minute)})
		await.That(t, "s1 is revoked", func() bool { return f.Revoked(principal.Principal{SessionID: "s1"}) })
		ahead.Store(int64(2 * time.Minute))
		if f.Revoked(principal.Principal{SessionID: "s1"}) {
			t.Error("an expired revocation still counts")
		}
		publish(t, c, redisx.Revocation{Kind: "sid", Value: "s2", ExpiresAt: time.Now().Add(time.Hour)})
		await.That(t, "only s2 is held", func() bool { return f.Len() == 1 && f.Revoked(principal.Principal{SessionID: "s2"}) })
	})
}

// S56: a stream that is replaced by one whose entry has the very id of the entry that was read last is read again all the same:
// Redis counts what it was given. (Redis before 7 and miniredis do not count.)
func TestAStreamReplacedUnderTheSameIdHidesNothing(t *testing.T) {
	t.Parallel()
	c, err := redisx.Open(testenv.Redis(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f := start(t, c, time.Now)
	entry := redisx.Revocation{Kind: "sid", ExpiresAt: time.Now().Add(time.Hour)}
	add := func(p redis.Cmdable, id, sid string) {
		entry.Value = sid
		p.XAdd(t.Context(), &redis.XAddArgs{Stream: redisx.RevocationStream, ID: id, Values: entry.Values()})
	}
	revoked := func(sid string) func() bool {
		return func() bool { return f.Revoked(principal.Principal{SessionID: sid}) }
	}
	add(c, "5-0", "s1")
	await.That(t, "s1 is revoked", revoked("s1"))
	_, err = c.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		p.Del(t.Context(), redisx.RevocationStream)
		add(p, "1-1", "s2")
		add(p, "5-0", "s3")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	await.That(t, "s2 is revoked", revoked("s2"))
	await.That(t, "s3 is revoked", revoked("s3"))
}
