package limit_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/nodes"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// counting counts the commands, and the round trips, that a client makes.
type counting struct{ commands, trips atomic.Int64 }

func (*counting) DialHook(next redis.DialHook) redis.DialHook { return next }
func (c *counting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.commands.Add(1)
		c.trips.Add(1)
		return next(ctx, cmd)
	}
}

func (c *counting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		c.commands.Add(int64(len(cmds)))
		c.trips.Add(1)
		return next(ctx, cmds)
	}
}

func counted(t testing.TB, url string) (*limit.Limiter, *counting) {
	t.Helper()
	o := options(t, url)
	c := &counting{}
	o.Redis.AddHook(c)
	return limit.New(o).Patient(time.Minute), c
}

// All limits of a request cost one round trip; a limit that is known to be spent costs none, however many ask.
func TestARequestCostsOneRoundTripAndASpentLimitNone(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		l, c := counted(t, url)
		keys := []limit.Key{key(3), key(100), key(100), key(100)}
		take(t, l, keys...) // the script is loaded
		before := c.trips.Load()
		take(t, l, keys...)
		if n := c.trips.Load() - before; n != 1 {
			t.Errorf("%d round trips for four limits", n)
		}
		take(t, l, keys...)
		take(t, l, keys...) // refused by Redis
		before = c.commands.Load()
		for range 1000 {
			if res := take(t, l, keys...); res.Allowed {
				t.Fatal("a spent limit lets a request pass")
			}
		}
		if n := c.commands.Load() - before; n != 0 {
			t.Errorf("%d commands for requests to a spent limit", n)
		}
		if s := l.Stats(); s.Spent != 1000 || s.Local != 0 {
			t.Errorf("%+v", s)
		}
		// The others have room still, and a dearer tier of the same limit too.
		gold := keys[0]
		gold.Rate.Limit = 50
		if res := take(t, l, keys[1:]...); !res.Allowed {
			t.Errorf("other limits: %+v", res)
		}
		if res := take(t, l, gold); !res.Allowed {
			t.Errorf("a dearer tier: %+v", res)
		}
	})
}

// What is known to be spent is asked for again when its window is over.
func TestASpentLimitHasRoomAgainAfterItsReset(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	var ahead atomic.Int64
	o := options(t, "redis://"+m.Addr())
	began := time.Now()
	o.Now = func() time.Time { return began.Add(time.Duration(ahead.Load())) } // stands still, as miniredis's does
	l := limit.New(o).Patient(time.Minute)
	for _, fixed := range []bool{true, false} {
		k := key(1)
		k.Fixed = fixed
		take(t, l, k)
		take(t, l, k)
		reset := take(t, l, k).States[0].Reset
		m.FastForward(reset)
		ahead.Add(int64(reset))
		if res := take(t, l, k); !res.Allowed {
			t.Errorf("fixed %v, after %v: %+v", fixed, reset, res)
		}
	}
}

// A request that costs more takes more, and one that does not fit leaves what is left to cheaper ones.
func TestARequestTakesWhatItCosts(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		l := patient(t, url)
		dear := key(10)
		dear.Cost = 4
		cheap := dear
		cheap.Cost = 1
		for i, want := range []int64{6, 2} {
			if res := take(t, l, dear); !res.Allowed || res.States[0].Remaining != want {
				t.Errorf("request %d: %+v", i+1, res)
			}
		}
		for range 3 { // by Redis, then by what is known
			if res := take(t, l, dear); res.Allowed || res.States[0].Remaining != 2 {
				t.Errorf("one too many: %+v", res)
			}
		}
		for range 2 {
			if res := take(t, l, cheap); !res.Allowed {
				t.Errorf("a cheap one: %+v", res)
			}
		}
		if res := take(t, l, cheap); res.Allowed || res.States[0].Remaining != 0 {
			t.Errorf("nothing is left: %+v", res)
		}
		if huge := (limit.Key{Name: "x", Value: uuid.NewString(), Cost: 5, Rate: limit.Rate{Limit: 4, Period: time.Minute}}); take(t, l, huge).Allowed {
			t.Error("a request that can never fit passes")
		}
	})
}

// S63: Kong runs an event again whose connection broke, by this process or, if this one died, by its successor.
func TestOneRequestIsCountedOnceHoweverOftenItIsRun(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		l, successor := patient(t, url), patient(t, url)
		k, wide := key(2), key(100)
		run := func(l *limit.Limiter, id string) limit.Result {
			t.Helper()
			res, err := l.Take(t.Context(), id, []limit.Key{k, wide})
			if err != nil {
				t.Fatal(err)
			}
			return res
		}
		if res := run(l, "r1"); !res.Allowed || res.Repeated {
			t.Errorf("the first run: %+v", res)
		}
		for name, edge := range map[string]*limit.Limiter{"the same process": l, "its successor": successor} {
			if res := run(edge, "r1"); !res.Allowed || !res.Repeated {
				t.Errorf("run again by %s: %+v", name, res)
			}
		}
		if res := run(l, "r2"); !res.Allowed || res.States[1].Remaining != 98 {
			t.Errorf("another request: %+v", res)
		}
		run(l, "r3") // refused
		if res := run(l, "r3"); res.Allowed {
			t.Errorf("a refused request passes when it is run again: %+v", res)
		}
		for name, edge := range map[string]*limit.Limiter{"the same process": l, "its successor": successor} {
			if res := run(edge, "r2"); !res.Allowed {
				t.Errorf("an allowed one, run again by %s when the limit is spent: %+v", name, res)
			}
		}
	})
}

// S63: the same, at once: of one request run 20 times in parallel one is counted.
func TestOneRequestRunInParallelIsCountedOnce(t *testing.T) {
	each(t, func(t *testing.T, url string) {
		edges := []*limit.Limiter{patient(t, url), patient(t, url)}
		k := key(5)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if res, err := edges[i%2].Take(t.Context(), "r", []limit.Key{k}); err != nil || !res.Allowed {
					t.Errorf("%+v, error %v", res, err)
				}
			})
		}
		wg.Wait()
		if res := take(t, edges[0], k); res.States[0].Remaining != 3 {
			t.Errorf("%+v", res)
		}
	})
}

// S56: a strict limit, such as a login's, is not left to each process.
func TestAStrictLimitDeniesWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	l := open(t, "redis://"+m.Addr())
	k := key(100)
	k.Strict = true
	if res := take(t, l, k); !res.Allowed {
		t.Errorf("with Redis: %+v", res)
	}
	m.Close()
	for range 10 {
		if res, err := l.Take(t.Context(), "", []limit.Key{key(100), k}); !errors.Is(err, limit.ErrAway) || res.Allowed {
			t.Errorf("without: %+v, error %v", res, err)
		}
	}
	if res := take(t, l, key(100)); !res.Allowed || !res.Degraded {
		t.Errorf("a limit that is not strict: %+v", res)
	}
}

// S56: processes that cannot ask Redis share the limit between them.
func TestALocalShareIsTheLimitDividedByTheProcesses(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	var edges []*limit.Limiter
	for range 3 {
		l := open(t, "redis://"+m.Addr())
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		edges = append(edges, l)
	}
	last := edges[2]
	within(t, "the last knows of all", 10*time.Second, func() bool { return last.Stats().Processes >= 1 && m.Exists("gatehouse:processes") })
	within(t, "all are there", 10*time.Second, func() bool {
		members, err := m.ZMembers("gatehouse:processes")
		return err == nil && len(members) == 3
	})
	within(t, "all know of all", 20*time.Second, func() bool {
		for _, l := range edges {
			if l.Stats().Processes != 3 {
				return false
			}
		}
		return true
	})
	m.Close()
	passed, k := 0, key(10)
	for range 10 {
		for _, l := range edges {
			if take(t, l, k).Allowed {
				passed++
			}
		}
	}
	if passed != 9 {
		t.Errorf("%d pass of a limit of 10 with 3 processes", passed)
	}
	few, dear := key(2), key(9)
	dear.Cost = 5 // more than a share, less than the limit
	if !take(t, last, few).Allowed || !take(t, last, dear).Allowed {
		t.Error("what could pass at all cannot pass a share")
	}
}

// S56, S63: whatever the network does, never do more pass than the limit says while Redis counts, and each process's share
// bounds what passes while it does not.
func TestABadNetworkLiftsNoLimit(t *testing.T) {
	t.Parallel()
	url := testenv.Redis(t)
	opts, err := redis.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	network := toxic.New(t, opts.Addr)
	l := limit.New(options(t, network.Through(url)))
	l.Share(4)
	for kind, harm := range map[string]func(){
		"cut":     network.Cut,
		"timeout": func() { network.Add("timeout", map[string]any{"timeout": 0}) },
		"slow":    func() { network.Add("latency", map[string]any{"latency": 300}) },
		"reset":   func() { network.Add("reset_peer", map[string]any{"timeout": 0}) },
	} {
		k := key(40)
		passed := 0
		for range 10 {
			if take(t, l, k).Allowed {
				passed++
			}
		}
		harm()
		for range 60 {
			if take(t, l, k).Allowed {
				passed++
			}
		}
		if kind == "cut" {
			network.Join()
		} else {
			network.Heal()
		}
		within(t, "Redis counts again", 10*time.Second, func() bool { return !take(t, l, key(1)).Degraded })
		for range 60 {
			if take(t, l, k).Allowed {
				passed++
			}
		}
		if passed > 40+10 || passed < 20 {
			t.Errorf("%s: %d pass of a limit of 40 with a share of 10", kind, passed)
		}
	}
}

// A new master goes on counting. What the old one had not passed on is lost, as Redis' replication is.
func TestLimitsFollowASentinelToTheNewMaster(t *testing.T) {
	t.Parallel()
	url, master := nodes.Sentinel(t)
	l := open(t, url)
	within(t, "counted", 10*time.Second, func() bool { return !take(t, l, key(1)).Degraded })
	master.Kill()
	if res := take(t, l, key(5)); !res.Allowed || !res.Degraded {
		t.Errorf("without a master: %+v", res)
	}
	within(t, "counted by the new master", 60*time.Second, func() bool { return !take(t, l, key(1)).Degraded })
}

// Memory: a million keys, whether they are spent, counted here or counted in Redis, stay within the bound.
func TestAMillionKeysStayWithinTheBound(t *testing.T) {
	// Not parallel: the heap is everybody's.
	m := miniredis.RunT(t)
	o := options(t, "redis://"+m.Addr())
	o.Memory = 8 << 20
	l := limit.New(o)
	m.Close()
	within(t, "Redis counts as away", 10*time.Second, func() bool { take(t, l, key(1)); return l.Stats().Away })
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 1_000_000 {
		k := []limit.Key{{Name: "n", Value: "route:n:" + strconv.Itoa(i), Rate: limit.Rate{Limit: 1, Period: time.Hour}}}
		if _, err := l.Take(t.Context(), "r"+strconv.Itoa(i), k); err != nil {
			t.Fatal(err)
		}
		l.NoteSpent(k[0], time.Hour)
	}
	if took := heap() - before; took > o.Memory {
		t.Errorf("%d KiB, bound %d KiB", took>>10, o.Memory>>10)
	} else {
		t.Logf("%d KiB", took>>10)
	}
}

// S63: a flood of other keys does not lift the limit of one, even in a table that is far too small.
func TestAFloodOfKeysLiftsNobodysLimit(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	o := options(t, "redis://"+m.Addr())
	o.Memory = 2000 // some 24 places
	l := limit.New(o)
	m.Close()
	victim, passed := key(20), 0
	for i := range 100 {
		for j := range 50 {
			take(t, l, limit.Key{Name: "n", Value: fmt.Sprint(i, j), Rate: limit.Rate{Limit: 1000, Period: time.Hour}})
		}
		if take(t, l, victim).Allowed {
			passed++
		}
	}
	if passed > 20 {
		t.Errorf("%d pass of a limit of 20", passed)
	}
}

// BenchmarkTake is what a request costs: allowed, in one, two and four limits; refused by a spent one (a flood); and while
// Redis is away. redis-cmds/op is what Redis has to do for it.
func BenchmarkTake(b *testing.B) {
	run := func(name string, l *limit.Limiter, c *counting, id bool, keys ...limit.Key) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := c.commands.Load()
			for i := 0; b.Loop(); i++ {
				request := ""
				if id {
					request = strconv.Itoa(i)
				}
				if _, err := l.Take(b.Context(), request, keys); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.commands.Load()-before)/float64(b.N), "redis-cmds/op")
		})
	}
	const endless = 1 << 40
	l, c := counted(b, testenv.Redis(b))
	for _, n := range []int{1, 2, 4} {
		run(fmt.Sprintf("allowed/%d", n), l, c, false, []limit.Key{key(endless), key(endless), key(endless), key(endless)}[:n]...)
	}
	fixed := key(endless)
	fixed.Fixed = true
	run("allowed/1/fixed", l, c, false, fixed)
	run("allowed/2/id", l, c, true, key(endless), key(endless))
	b.Run("allowed/2/at once", func(b *testing.B) { // by 16
		keys := []limit.Key{key(endless), key(endless)}
		b.SetParallelism(max(16/runtime.GOMAXPROCS(0), 1))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := l.Take(b.Context(), "", keys); err != nil {
					b.Error(err)
				}
			}
		})
	})
	spent := key(1)
	for range 2 {
		if _, err := l.Take(b.Context(), "", []limit.Key{spent}); err != nil {
			b.Fatal(err)
		}
	}
	run("spent", l, c, false, key(endless), spent)
	run("spent/id", l, c, true, key(endless), spent)

	m := miniredis.RunT(b)
	away, c := counted(b, "redis://"+m.Addr())
	m.Close()
	for !away.Stats().Away {
		if _, err := away.Take(b.Context(), "", []limit.Key{key(endless)}); err != nil {
			b.Fatal(err)
		}
	}
	run("away", away, c, false, key(endless), key(endless))
}

// BenchmarkFlood sends requests from as many sides as there are processors: allowed ones, then a flood of one spent key.
func BenchmarkFlood(b *testing.B) {
	l, c := counted(b, testenv.Redis(b))
	for name, rate := range map[string]int64{"allowed": 1 << 40, "spent": 1} {
		keys := []limit.Key{key(rate), key(1 << 40)}
		for range 2 {
			if _, err := l.Take(b.Context(), "", keys); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			before := c.commands.Load()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Take(b.Context(), "", keys); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(c.commands.Load()-before)/float64(b.N), "redis-cmds/op")
		})
	}
}

// S67: the loss is in the log, and does not flood it.
func TestThatRedisIsAwayIsSaidOnce(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	o := options(t, "redis://"+m.Addr())
	var mu sync.Mutex
	var said strings.Builder
	o.Log = slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return said.Write(p)
	}), nil))
	l := limit.New(o)
	m.Close()
	for range 50 {
		take(t, l, key(1))
	}
	mu.Lock()
	defer mu.Unlock()
	if n := strings.Count(said.String(), "Redis is away"); n != 1 {
		t.Errorf("said %d times: %s", n, said.String())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
