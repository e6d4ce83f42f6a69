package limit_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

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
