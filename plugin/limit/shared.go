package limit

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
)

// once is how long a counted request is remembered by its id: Kong runs an event again at once, or not at all.
const once = 5 * time.Second

//go:embed take.lua
var takeSource string

// shared counts in Redis. Windows lie at ulule's keys, as ulule's own store writes them: a number that expires. Other than
// that store it asks for all keys of a request at once, and counts a request that it refuses for none of them.
type shared struct {
	client redis.UniversalClient
	script *redis.Script
	single bool // all keys lie on one server, so that one script may see them together
}

var _ limiter.Store = (*shared)(nil)

func newShared(c redis.UniversalClient) *shared {
	_, cluster := c.(*redis.ClusterClient)
	return &shared{client: c, script: redis.NewScript(takeSource), single: !cluster}
}

// outcome is what was counted for the keys of one request.
type outcome struct {
	allowed  bool
	repeated bool // it had been counted before
	usages   []usage
}

// redisKey is where k's window lies. The braces keep all that belongs to one key in one slot of a cluster.
func redisKey(k Key) string { return prefix + ":{" + k.Value + "}" }

// call is one run of the script.
type call struct {
	keys  []string
	args  []any
	limit int // how many limits it counts
}

// calls is one for all keys or, in a cluster, one for each, for they lie on different servers.
func (s *shared) calls(id string, keys []Key) []call {
	per := 1
	if s.single {
		per = len(keys)
	}
	out := make([]call, 0, len(keys)/per)
	for len(keys) > 0 {
		group := keys[:per]
		keys = keys[per:]
		c := call{keys: make([]string, 0, 2*per+1), args: make([]any, 1, 4*per+1), limit: per}
		c.args[0] = 0
		for _, k := range group {
			window := redisKey(k)
			c.keys = append(c.keys, window)
			smooth := 0
			if !k.Fixed {
				smooth = 1
				c.keys = append(c.keys, window+":before")
			}
			c.args = append(c.args, smooth, k.cost(), k.Rate.Limit, k.Rate.Period.Milliseconds())
		}
		if id != "" {
			c.args[0] = once.Milliseconds()
			// Another number of limits is another question about the same request.
			c.keys = append(c.keys, c.keys[0]+":once:"+strconv.Itoa(per)+":"+id)
		}
		out = append(out, c)
	}
	return out
}

// take counts a request in one round trip.
func (s *shared) take(ctx context.Context, id string, keys []Key) (outcome, error) {
	t := &taking{id: id, keys: keys}
	_ = s.takeAll(ctx, []*taking{t}) // t has the error
	return t.out, t.err
}

// takeAll counts several requests in one round trip, each by itself. It answers an error if none could be counted.
func (s *shared) takeAll(ctx context.Context, batch []*taking) (err error) {
	calls := make([][]call, len(batch))
	answers := make([][]*redis.Cmd, len(batch))
	send := func(c redis.Scripter) {
		for i, t := range batch {
			calls[i] = s.calls(t.id, t.keys)
			for _, one := range calls[i] {
				answers[i] = append(answers[i], s.script.EvalSha(ctx, c, one.keys, one.args...))
			}
		}
	}
	if len(batch) == 1 && s.single {
		send(s.client)
	} else {
		_, _ = s.client.Pipelined(ctx, func(p redis.Pipeliner) error { // each answer has its own error
			send(p)
			return nil
		})
	}
	counted := false
	for i, t := range batch {
		if t.out, t.err = s.read(ctx, t, calls[i], answers[i]); t.err != nil {
			err = t.err
		} else {
			counted = true
		}
	}
	if counted {
		return nil
	}
	return err
}

// read puts the answers for one request together.
func (s *shared) read(ctx context.Context, t *taking, calls []call, answers []*redis.Cmd) (outcome, error) {
	out := outcome{allowed: true, usages: make([]usage, 0, len(t.keys))}
	for i, c := range calls {
		answer, err := answers[i].Slice()
		if redis.HasErrorPrefix(err, "NOSCRIPT") { // a new server, or one that came back empty
			answer, err = s.script.Eval(ctx, s.client, c.keys, c.args...).Slice()
		}
		if err != nil {
			return outcome{}, err
		}
		part, err := parse(answer, c.limit)
		if err != nil {
			return outcome{}, err
		}
		out.allowed = out.allowed && part.allowed
		out.repeated = out.repeated || part.repeated
		out.usages = append(out.usages, part.usages...)
	}
	return out, nil
}

var errReply = errors.New("limits: the script's answer cannot be read")

// parse reads the script's answer for n limits.
func parse(answer []any, n int) (outcome, error) {
	const width = 5
	if len(answer) != 1+width*n {
		return outcome{}, errReply
	}
	numbers := make([]int64, len(answer))
	for i, a := range answer {
		v, ok := a.(int64)
		if !ok || v < 0 {
			return outcome{}, errReply
		}
		numbers[i] = v
	}
	out := outcome{allowed: numbers[0] > 0, repeated: numbers[0] == 2, usages: make([]usage, n)}
	for i := range out.usages {
		v := numbers[1+width*i:]
		out.usages[i] = usage{fits: v[0] == 1, count: v[1], ttl: v[2], before: v[3], left: v[4]}
	}
	return out, nil
}

// Get implements limiter.Store.
func (s *shared) Get(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, 1, rate)
}

// Increment implements limiter.Store. A request that does not fit is not counted.
func (s *shared) Increment(ctx context.Context, key string, count int64, rate limiter.Rate) (limiter.Context, error) {
	return contextOf(rate, func(k Key) (outcome, error) {
		k.Value, k.Cost = key, count
		return s.take(ctx, "", []Key{k})
	})
}

// Peek implements limiter.Store.
func (s *shared) Peek(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	return s.Increment(ctx, key, Peek, rate)
}

// Reset implements limiter.Store.
func (s *shared) Reset(ctx context.Context, key string, rate limiter.Rate) (limiter.Context, error) {
	k := Key{Value: key}
	if err := s.client.Del(ctx, redisKey(k), redisKey(k)+":before").Err(); err != nil {
		return limiter.Context{}, err
	}
	return s.Peek(ctx, key, rate)
}

// contextOf says in ulule's words where a fixed window stands.
func contextOf(rate limiter.Rate, take func(Key) (outcome, error)) (limiter.Context, error) {
	k := Key{Rate: Rate{Limit: rate.Limit, Period: rate.Period}, Fixed: true}
	out, err := take(k)
	if err != nil {
		return limiter.Context{}, err
	}
	s := out.usages[0].state(k)
	return limiter.Context{Limit: rate.Limit, Remaining: s.Remaining, Reset: time.Now().Add(s.Reset).Unix(), Reached: s.Exceeded}, nil
}
