package limit_test

import (
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// stores are the two Redis that limits must work on alike.
var stores = map[string]func(*testing.T) string{
	"redis":     func(t *testing.T) string { return testenv.Redis(t) },
	"miniredis": func(t *testing.T) string { return "redis://" + miniredis.RunT(t).Addr() },
}

func open(t *testing.T, url string, now func() time.Time) *limit.Limiter {
	t.Helper()
	c, err := redisx.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return limit.New(c, now, slog.New(slog.DiscardHandler))
}

func key(limitTo int64) limit.Key {
	return limit.Key{Name: "per-subject", Value: uuid.NewString(), Rate: limit.Rate{Limit: limitTo, Period: time.Hour}}
}

// S63: of N+k parallel requests, spread over two processes, exactly N pass.
func TestExactlyAsManyPassAsTheLimitSays(t *testing.T) {
	t.Parallel()
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := url(t)
			edges := []*limit.Limiter{open(t, address, time.Now), open(t, address, time.Now)}
			k := key(50)
			var passed atomic.Int64
			var wg sync.WaitGroup
			for i := range 80 {
				wg.Go(func() {
					res, err := edges[i%2].Take(t.Context(), []limit.Key{k})
					if err != nil || res.Degraded {
						t.Errorf("result %+v, error %v", res, err)
					}
					if res.Allowed {
						passed.Add(1)
					}
				})
			}
			wg.Wait()
			if n := passed.Load(); n != 50 {
				t.Errorf("%d passed, want 50", n)
			}
		})
	}
}

func TestASpentLimitSaysWhichAndUntilWhen(t *testing.T) {
	t.Parallel()
	l := open(t, testenv.Redis(t), time.Now)
	wide, narrow := key(10), key(1)
	for range 2 {
		if _, err := l.Take(t.Context(), []limit.Key{wide, narrow}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := l.Take(t.Context(), []limit.Key{wide, narrow})
	if err != nil {
		t.Fatal(err)
	}
	if res.Allowed || res.States[0].Exceeded || !res.States[1].Exceeded || res.States[0].Remaining != 7 ||
		res.States[1].Reset <= 59*time.Minute || res.States[1].Reset > time.Hour {
		t.Errorf("result %+v", res)
	}
}

// S56: Redis away neither stops requests nor lifts the limit, and its return is noticed.
func TestWhileRedisIsAwayEachProcessCountsForItself(t *testing.T) {
	t.Parallel()
	m := miniredis.RunT(t)
	address := m.Addr()
	var ahead atomic.Int64
	l := open(t, "redis://"+address, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	k := key(2)
	take := func() limit.Result {
		t.Helper()
		res, err := l.Take(t.Context(), []limit.Key{k})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	if res := take(); res.Degraded || l.Ready() != nil {
		t.Fatalf("with Redis: %+v", res)
	}
	m.Close()
	var passed int
	for range 5 {
		res := take()
		if !res.Degraded {
			t.Fatal("counted in a Redis that is away")
		}
		if res.Allowed {
			passed++
		}
	}
	if passed != 2 || l.Ready() == nil {
		t.Errorf("%d passed locally, want 2; Ready = %v", passed, l.Ready())
	}
	back := miniredis.NewMiniRedis()
	if err := back.StartAddr(address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(back.Close)
	ahead.Store(int64(time.Second))
	if res := take(); res.Degraded || l.Ready() != nil {
		t.Errorf("after its return: %+v, Ready = %v", res, l.Ready())
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
	l := open(t, "redis://"+address, time.Now)
	if res, err := l.Take(t.Context(), []limit.Key{key(1)}); err != nil || !res.Allowed || !res.Degraded {
		t.Errorf("result %+v, error %v", res, err)
	}
}

func TestARateIsANumberAndAPeriod(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]limit.Rate{"5-S": {5, time.Second}, "60-M": {60, time.Minute}, "9-H": {9, time.Hour}, "1-D": {1, 24 * time.Hour}} {
		if got, err := limit.ParseRate(s); err != nil || got != want {
			t.Errorf("%s: %v, error %v", s, got, err)
		}
	}
	for _, s := range []string{"", "60", "M-60", "0-M", "-1-M", "60-X", "60-M-M", "99999999999999999999-M"} {
		if got, err := limit.ParseRate(s); err == nil {
			t.Errorf("%q is taken as %v", s, got)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	c, err := redisx.Open(testenv.Redis(b))
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	l := limit.New(c, time.Now, slog.New(slog.DiscardHandler))
	for _, n := range []int{1, 2} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			keys := []limit.Key{key(1 << 40), key(1 << 40)}[:n]
			for b.Loop() {
				if _, err := l.Take(b.Context(), keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
