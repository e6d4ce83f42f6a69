package limit_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/nodes"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

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
