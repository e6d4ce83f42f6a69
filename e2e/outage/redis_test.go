package outage_test

import (
	"maps"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/nodes"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
)

// redisOutages: routes that want a living session go on for the 5 s that revocations may be behind, those that say so for longer;
// limits are counted by the process alone, but for the strict ones.
func redisOutages() []outage {
	behind := []string{"revocations_behind"}
	row := outage{
		may: map[string][]string{
			"/orders": behind, "/orders/" + mine: behind, "/orders/" + theirs: behind, "/account": behind, "/strict": {"limits_unavailable"},
			"/bound": {"proofs_unavailable", "revocations_behind"}, "/challenged": {"challenge_unavailable"},
		},
		most: map[string]time.Duration{"/orders": maxLag, "/orders/" + mine: maxLag, "/account": maxLag},
		shows: map[string]string{
			"/orders": "revocations_behind", "/orders/" + mine: "revocations_behind", "/account": "revocations_behind", "/strict": "limits_unavailable",
			"/continue": allowed, "/introspect": allowed, "/public": allowed,
			"/bound": "proofs_unavailable", "/challenged": "challenge_unavailable",
		},
		back: 2 * time.Second, long: maxLag, metric: "gatehouse_redis_up", health: "degraded",
		says: []string{
			"revocations: Redis is away; going on with what is known", "revocations: Redis is back", "limits: Redis is away; counting locally", "limits: Redis is back",
			"revocations are behind; requests go on by what is known", `"code":"revocations_behind"`, `"code":"limits_unavailable"`,
		},
	}
	stopped, partitioned, slow, killed, emptied := row, row, row, row, row
	stopped.name, stopped.open = "Redis unreachable", behindNetwork(func(n *toxic.Proxy) (begin, end func()) { return n.Cut, n.Join })
	partitioned.name, partitioned.open = "Redis partitioned", behindNetwork(func(n *toxic.Proxy) (begin, end func()) { return n.Partition, n.Heal })
	// Every answer is 300 ms late, which is more than a request waits for, and no reason to refuse one.
	slow.may, slow.says = map[string][]string{"/strict": {"limits_unavailable"}, "/bound": {"proofs_unavailable"}, "/challenged": {"challenge_unavailable"}}, []string{"limits: Redis is away; counting locally", "limits: Redis is back"}
	slow.shows = map[string]string{"/orders": allowed, "/orders/" + mine: allowed, "/account": allowed, "/continue": allowed, "/introspect": allowed, "/strict": "limits_unavailable"}
	slow.most, slow.long = nil, maxLag+2*time.Second
	slow.name, slow.open = "Redis slow", behindNetwork(func(n *toxic.Proxy) (begin, end func()) {
		return func() { n.Add("latency", map[string]any{"latency": 300}) }, n.Heal
	})
	killed.name, killed.open = "Redis killed", ofItsOwn(true)
	emptied.name, emptied.open = "Redis killed, and empty afterwards", ofItsOwn(false)
	// Nothing is left of what was used once: a proof or a solution of the last minutes is good once more.
	emptied.forgets, emptied.shows = true, maps.Clone(row.shows)
	delete(emptied.shows, "/challenged")
	return []outage{stopped, partitioned, slow, killed, emptied}
}

// behindNetwork opens an edge whose Redis is behind a network that can fail.
func behindNetwork(harm func(*toxic.Proxy) (begin, end func())) func(t *testing.T) (*site, func(), func()) {
	return func(t *testing.T) (*site, func(), func()) {
		direct := testenv.Redis(t)
		at, err := redis.ParseURL(direct)
		if err != nil {
			t.Fatal(err)
		}
		network := toxic.New(t, at.Addr)
		begin, end := harm(network)
		return open(t, around{redis: network.Through(direct), direct: direct}), begin, end
	}
}

// ofItsOwn opens an edge with a redis-server of its own, which is killed and started again; it has what it knew, or nothing.
func ofItsOwn(keeps bool) func(t *testing.T) (*site, func(), func()) {
	return func(t *testing.T) (*site, func(), func()) {
		node := nodes.Single(t, keeps)
		return open(t, around{redis: "redis://" + node.Address}), node.Kill, func() { node.Restart(t) }
	}
}
