package limit_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/nodes"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// The cleaner of ulule's memory store, which is the reference here, ends by a finalizer only.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/ulule/limiter/v3/drivers/store/memory.(*cleaner).Run"),
		// A pool that has been closed while its Redis was away ends this one within a second.
		goleak.IgnoreAnyFunction("github.com/redis/go-redis/v9/internal/pool.(*ConnPool).tryDial"),
		goleak.IgnoreAnyFunction(toxic.Leaks))
}

// each runs a test of the contract on every Redis that limits must work on alike.
func each(t *testing.T, test func(t *testing.T, url string)) {
	t.Parallel()
	for name, url := range map[string]func(*testing.T) string{
		"redis":     func(t *testing.T) string { return testenv.Redis(t) },
		"miniredis": func(t *testing.T) string { return "redis://" + miniredis.RunT(t).Addr() },
		"cluster":   func(t *testing.T) string { url, _ := nodes.Cluster(t); return url },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, url(t))
		})
	}
}

func client(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisx.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func options(t testing.TB, url string) limit.Options {
	t.Helper()
	return limit.Options{Redis: client(t, url), ID: uuid.NewString(), Memory: 1 << 20, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
}

func open(t testing.TB, url string) *limit.Limiter { return limit.New(options(t, url)) }

// patient is an edge whose time-outs a busy machine does not reach.
func patient(t testing.TB, url string) *limit.Limiter {
	t.Helper()
	mark := "?"
	if strings.Contains(url, "?") {
		mark = "&"
	}
	return limit.New(options(t, url+mark+"patience=1m")).Patient(time.Minute)
}

func key(limitTo int64) limit.Key {
	return limit.Key{Name: "per-subject", Value: uuid.NewString(), Rate: limit.Rate{Limit: limitTo, Period: time.Hour}}
}

func take(t *testing.T, l *limit.Limiter, keys ...limit.Key) limit.Result {
	t.Helper()
	res, err := l.Take(t.Context(), "", keys)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// race sends n requests at once, spread over the edges, and answers how many passed.
func race(t *testing.T, n int, k limit.Key, degraded bool, edges ...*limit.Limiter) int64 {
	t.Helper()
	var passed atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			res, err := edges[i%len(edges)].Take(t.Context(), "", []limit.Key{k})
			if err != nil || res.Degraded != degraded {
				t.Errorf("result %+v, error %v", res, err)
			}
			if res.Allowed {
				passed.Add(1)
			}
		})
	}
	wg.Wait()
	return passed.Load()
}

// within waits for what another goroutine brings about.
func within(t *testing.T, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(limit); !holds(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not true within %v: %s", limit, what)
		}
	}
}

// S63: of N+k parallel requests, spread over two processes, exactly N pass.
func TestExactlyAsManyPassAsTheLimitSays(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		if n := race(t, 80, key(50), false, patient(t, url), patient(t, url)); n != 50 {
			t.Errorf("%d passed, want 50", n)
		}
	})
}

func TestExactlyAsManyPassBehindASentinel(t *testing.T) {
	t.Parallel()
	url, _ := nodes.Sentinel(t)
	if n := race(t, 80, key(50), false, patient(t, url), patient(t, url)); n != 50 {
		t.Errorf("%d passed, want 50", n)
	}
}

// S63: the local share is exact too.
func TestExactlyAsManyPassLocally(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	l := open(t, "redis://"+m.Addr())
	m.Close()
	if n := race(t, 80, key(50), true, l); n != 50 {
		t.Errorf("%d passed, want 50", n)
	}
}

func TestASpentLimitSaysWhichAndUntilWhen(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		for _, fixed := range []bool{false, true} {
			l, other := patient(t, url), patient(t, url)
			wide, narrow := key(10), key(1)
			wide.Fixed, narrow.Fixed = fixed, fixed
			if res := take(t, l, wide, narrow); !res.Allowed || len(res.States) != 2 || res.States[0].Remaining != 9 || res.States[1].Remaining != 0 || res.States[0].Exceeded {
				t.Errorf("the first: %+v", res)
			}
			for what, edge := range map[string]*limit.Limiter{"asks Redis": l, "asks Redis too": other} {
				res := take(t, edge, wide, narrow)
				if res.Allowed || len(res.States) != 2 || res.States[0].Exceeded || !res.States[1].Exceeded {
					t.Fatalf("%s: %+v", what, res)
				}
				reset := time.Hour // of a weighted window: until it has lost all its weight
				if !fixed {
					reset *= 2
				}
				if r := res.States[1].Reset; r <= reset-time.Minute || r > reset {
					t.Errorf("%s: reset %v, want %v", what, r, reset)
				}
			}
			// Known to be spent: only the spent limit's state is told.
			if res := take(t, l, wide, narrow); res.Allowed || len(res.States) != 1 || res.States[0].Name != narrow.Name || !res.States[0].Exceeded || res.States[0].Remaining != 0 {
				t.Errorf("known to be spent: %+v", res)
			}
			// S63: what is refused is counted against none. In a cluster each limit is counted where it lies.
			if _, cluster := strings.CutPrefix(url, "redis+cluster:"); !cluster {
				if res := take(t, l, wide); res.States[0].Remaining != 8 {
					t.Errorf("refused requests were counted: %+v", res)
				}
			}
		}
	})
}

// A Redis that came back empty has lost the scripts too.
func TestLimitsOutliveTheLossOfTheirScripts(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		c := client(t, url)
		l, k := patient(t, url), key(3)
		take(t, l, k)
		flush := func(ctx context.Context, c redis.Cmdable) error { return c.ScriptFlush(ctx).Err() }
		var err error
		if cluster, ok := c.(*redis.ClusterClient); ok {
			err = cluster.ForEachMaster(t.Context(), func(ctx context.Context, c *redis.Client) error { return flush(ctx, c) })
		} else {
			err = flush(t.Context(), c)
		}
		if err != nil {
			t.Fatal(err)
		}
		if res := take(t, l, k); res.Degraded || res.States[0].Remaining != 1 {
			t.Errorf("result %+v", res)
		}
	})
}

func TestARequestWithoutLimitsPasses(t *testing.T) {
	t.Parallel()
	if res := take(t, open(t, "redis://127.0.0.1:1")); !res.Allowed || res.Degraded {
		t.Errorf("result %+v", res)
	}
}

// S56: Redis away neither stops requests nor lifts the limit, and its return is noticed within 2 s.
func TestWhileRedisIsAwayEachProcessCountsForItself(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	address := m.Addr()
	l := open(t, "redis://"+address)
	k := key(4)
	if res := take(t, l, k); res.Degraded || l.Ready() != nil {
		t.Fatalf("with Redis: %+v", res)
	}
	m.Close()
	var passed int
	for range 8 {
		res := take(t, l, k)
		if !res.Degraded {
			t.Fatal("counted in a Redis that is away")
		}
		if res.Allowed {
			passed++
		}
	}
	if passed != 4 || l.Ready() == nil {
		t.Errorf("%d passed locally, want 4; Ready = %v", passed, l.Ready())
	}
	back := miniredis.NewMiniRedis()
	if err := back.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(back.Close)
	within(t, "counted in Redis again", 2*time.Second, func() bool { return !take(t, l, key(1)).Degraded })
	if err := l.Ready(); err != nil {
		t.Errorf("Ready = %v", err)
	}
}

// Without a single request, whoever asks for readiness notices both the loss and the return.
func TestReadinessNeedsNoTraffic(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	address := m.Addr()
	l := open(t, "redis://"+address)
	within(t, "ready", 2*time.Second, func() bool { return l.Ready() == nil })
	m.Close()
	within(t, "degraded", 2*time.Second, func() bool { return l.Ready() != nil })
	back := miniredis.NewMiniRedis()
	if err := back.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(back.Close)
	within(t, "ready again", 2*time.Second, func() bool { return l.Ready() == nil })
}

// S56: a Redis that takes connections and never answers costs the first requests its time-out and all others nothing.
func TestAHungRedisIsNotWaitedForTwice(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	l := open(t, "redis://"+ln.Addr().String()).Patient(20 * time.Millisecond)
	k := key(1 << 40)
	within(t, "Redis counts as away", 10*time.Second, func() bool { take(t, l, k); return l.Stats().Away })
	// The machine may stall this test at any moment, so the least of many is what a request costs.
	fastest, slow := time.Hour, 0
	for range 200 {
		began := time.Now()
		if !take(t, l, k).Degraded {
			t.Fatal("counted in a Redis that never answers")
		}
		d := time.Since(began)
		fastest = min(fastest, d)
		if d >= 20*time.Millisecond {
			slow++
		}
	}
	if fastest > time.Millisecond || slow > 5 {
		t.Errorf("fastest %v, %d of 200 as slow as the time-out", fastest, slow)
	}
}

// S63: one slow command does not make the process count alone.
func TestOneSlowCommandIsNotALoss(t *testing.T) {
	t.Parallel()
	o := options(t, "redis://"+miniredis.RunT(t).Addr())
	c := o.Redis
	l, k := limit.New(o).Patient(time.Minute), key(10)
	take(t, l, k)
	fail := failOnce{}
	c.AddHook(&fail)
	fail.armed.Store(true)
	if res := take(t, l, k); !res.Degraded || !res.Allowed {
		t.Errorf("the slow one: %+v", res)
	}
	if res := take(t, l, k); res.Degraded {
		t.Errorf("the next: %+v", res)
	}
}

// failOnce lets one command time out.
type failOnce struct{ armed atomic.Bool }

func (*failOnce) DialHook(next redis.DialHook) redis.DialHook { return next }
func (*failOnce) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f *failOnce) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if f.armed.Swap(false) {
			cmd.SetErr(os.ErrDeadlineExceeded)
			return os.ErrDeadlineExceeded
		}
		return next(ctx, cmd)
	}
}

func TestRedisMayComeLater(t *testing.T) {
	t.Parallel()
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	address := m.Addr()
	m.Close()
	l := open(t, "redis://"+address)
	if res := take(t, l, key(1)); !res.Allowed || !res.Degraded {
		t.Errorf("result %+v", res)
	}
	if err := m.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	within(t, "counted in Redis", 2*time.Second, func() bool { return !take(t, l, key(1)).Degraded })
}

func TestARateIsANumberAndAPeriod(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]limit.Rate{"5-S": {5, time.Second}, "60-M": {60, time.Minute}, "9-H": {9, time.Hour}, "1-D": {1, 24 * time.Hour}} {
		if got, err := limit.ParseRate(s); err != nil || got != want {
			t.Errorf("%s: %v, error %v", s, got, err)
		}
	}
	for _, s := range []string{"", "60", "M-60", "0-M", "-1-M", "60-X", "60-M-M", "99999999999999999999-M", " 6-M", "1e3-S", "+-M"} {
		if got, err := limit.ParseRate(s); err == nil {
			t.Errorf("%q is taken as %v", s, got)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("60-M")
	f.Fuzz(func(t *testing.T, s string) {
		if r, err := limit.ParseRate(s); err == nil && (r.Limit <= 0 || r.Period <= 0) {
			t.Errorf("%q is taken as %v", s, r)
		}
	})
}
