package redisx

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Processes is the Redis sorted set of the plugin processes that share a Redis: their ids by when they were last heard of, in
// milliseconds of Redis' own clock.
const Processes = "gatehouse:processes"

// Beat is how often a process says that it is there; after Silence without a word it no longer counts.
const (
	Beat    = 5 * time.Second
	Silence = 20 * time.Second
)

const beatScript = `
local t = redis.call("time")
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call("zadd", KEYS[1], now, ARGV[1])
redis.call("zremrangebyscore", KEYS[1], "-inf", now - ARGV[2])
redis.call("pexpire", KEYS[1], ARGV[2])
return redis.call("zcard", KEYS[1])
`

// Present says that the process id is there, and answers how many there are, at least 1.
func Present(ctx context.Context, c redis.Scripter, id string) (int64, error) {
	n, err := redis.NewScript(beatScript).Run(ctx, c, []string{Processes}, id, Silence.Milliseconds()).Int64()
	if err != nil {
		return 0, fmt.Errorf("count processes: %w", err)
	}
	return max(n, 1), nil
}

// Leave says that the process id is gone.
func Leave(ctx context.Context, c redis.Cmdable, id string) error {
	if err := c.ZRem(ctx, Processes, id).Err(); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}
