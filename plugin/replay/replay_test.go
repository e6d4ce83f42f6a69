package replay_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/replay"
)

func open(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	c, err := redisx.Open(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// S49: once, whoever of all processes is asked.
func TestAThingIsUsedOnceAcrossProcesses(t *testing.T) {
	t.Parallel()
	for name, url := range map[string]string{"redis": testenv.Redis(t), "embedded": "redis://" + miniredis.RunT(t).Addr()} {
		processes := []*replay.Guard{replay.New(open(t, url)), replay.New(open(t, url))}
		var wg sync.WaitGroup
		var first atomic.Int64
		for i := range 50 {
			wg.Go(func() {
				ok, err := processes[i%2].Once(t.Context(), "thing", "", time.Minute)
				if err != nil {
					t.Error(err)
				}
				if ok {
					first.Add(1)
				}
			})
		}
		wg.Wait()
		if first.Load() != 1 {
			t.Errorf("%s: used %d times", name, first.Load())
		}
		for _, c := range []struct {
			id   string
			want bool
		}{{"r1", true}, {"r1", true}, {"r2", false}, {"", false}} {
			if ok, err := processes[0].Once(t.Context(), "another", c.id, time.Minute); ok != c.want || err != nil {
				t.Errorf("%s: request %q: %v, %v", name, c.id, ok, err)
			}
		}
	}
}

func TestWhatWasUsedIsForgottenInTime(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	g := replay.New(open(t, "redis://"+server.Addr()))
	for i, c := range []struct {
		later time.Duration
		want  bool
	}{{0, true}, {10 * time.Second, false}, {time.Second, true}} {
		server.FastForward(c.later)
		if ok, err := g.Once(t.Context(), "thing", "", 10*time.Second); ok != c.want || err != nil {
			t.Errorf("%d: %v, %v", i, ok, err)
		}
	}
}

// S56: without Redis nobody can say, and so it is no.
func TestWithoutRedisNothingIsUsed(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	g := replay.New(open(t, "redis://"+server.Addr()+"?patience=100ms"))
	server.Close()
	if ok, err := g.Once(t.Context(), "thing", "r1", time.Minute); ok || !errors.Is(err, replay.ErrUnavailable) {
		t.Errorf("%v, %v", ok, err)
	}
}
