package limit

import (
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	prefix = "gatehouse:limit"
	// retry is how often Redis is tried while it is away; it bounds how long limits stay local after its return.
	retry = 500 * time.Millisecond
	// timeout bounds the counting of one request.
	timeout = 250 * time.Millisecond
	// tolerate is how many requests in a row may find Redis too slow before it counts as away. One slow command must not
	// make the whole process count alone, for then more pass than the limit says.
	tolerate = 2
	// DefaultMemory is how many bytes a Limiter keeps at most unless it is told otherwise.
	DefaultMemory = 32 << 20
)

// Options is what a Limiter is made of.
type Options struct {
	Redis  redis.UniversalClient // need not be there yet
	ID     string                // of this process, unlike any other's
	Memory int64                 // bytes, at most; 0 for DefaultMemory
	Now    func() time.Time
	Log    *slog.Logger
}

// Limiter counts. It is safe for concurrent use.
type Limiter struct {
	id      string
	client  redis.UniversalClient
	shared  *shared
	gather  gather
	local   *local
	spent   *memo // keys that have no room
	counted *memo // requests that were counted
	seed    maphash.Seed
	breaker redisx.Breaker
	now     func() time.Time
	timeout time.Duration

	processes atomic.Int64
	stats     [4]atomic.Uint64
}

// New makes a limiter. Run keeps it informed of how many processes there are.
func New(o Options) *Limiter {
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	l := &Limiter{
		id: o.ID, client: o.Redis, shared: newShared(o.Redis), local: newLocal(o.Now, o.Memory/2),
		spent: newMemo(o.Memory / 4), counted: newMemo(o.Memory / 4), seed: maphash.MakeSeed(), now: o.Now, timeout: timeout,
	}
	l.gather.send = l.send
	l.processes.Store(1)
	l.breaker = redisx.Breaker{
		Pause: retry, Tolerate: tolerate, Now: o.Now,
		Probe: func() error { return l.ping(context.Background()) },
		Changed: func(away bool, cause error) {
			if away {
				o.Log.Warn("limits: Redis is away; counting locally", "processes", l.processes.Load(), "error", cause)
			} else {
				o.Log.Info("limits: Redis is back")
			}
		},
	}
	return l
}

// Run says in Redis that this process is there, and learns how many there are, until ctx ends.
func (l *Limiter) Run(ctx context.Context) error {
	tick := time.NewTicker(redisx.Beat)
	defer tick.Stop()
	for {
		l.beat(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
			defer cancel()
			_ = redisx.Leave(ctx, l.client, l.id) // else the others find out by themselves
			return nil
		}
	}
}

func (l *Limiter) beat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if n, err := redisx.Present(ctx, l.client, l.id); err == nil { // while Redis is away the last count holds
		l.processes.Store(n)
	}
}

// The counters of Stats.
const (
	statShared = iota
	statLocal
	statSpent
	statRepeated
)

// Stats is what a Limiter has done so far.
type Stats struct {
	Shared, Local, Spent, Repeated uint64 // requests counted in Redis, counted here, refused without asking, and counted before
	Processes                      int64  // that share the limits, by the last count
	Away                           bool   // Redis
}

// Stats answers what was done so far.
func (l *Limiter) Stats() Stats {
	return Stats{
		Shared: l.stats[statShared].Load(), Local: l.stats[statLocal].Load(), Spent: l.stats[statSpent].Load(), Repeated: l.stats[statRepeated].Load(),
		Processes: l.processes.Load(), Away: l.breaker.Open(),
	}
}

// Take counts the request against every key, and answers whether all had room; a request that is refused is counted against
// none. A request of the same id is counted once within a few seconds; "" is no id, and only a gateway's own is one, for a
// client could count once what it sends often. Redis away is no error unless a key is strict (ErrAway): the request is
// counted against this process's share of each limit.
func (l *Limiter) Take(ctx context.Context, id string, keys []Key) (Result, error) {
	if len(keys) == 0 {
		return Result{Allowed: true}, nil
	}
	if id != "" {
		if _, seen := l.counted.find(l.request(id, keys), l.now().UnixMilli()); seen {
			l.stats[statRepeated].Add(1)
			return Result{Allowed: true, Repeated: true}, nil
		}
	}
	if states := l.Spent(keys); states != nil {
		return Result{States: states}, nil
	}
	t := &taking{id: id, keys: keys}
	l.gather.do(t)
	out, err := t.out, t.err
	if err != nil {
		return l.takeLocally(ctx, id, keys, err)
	}
	l.stats[statShared].Add(1)
	res := result(out, keys)
	l.remember(id, keys, out, res.States)
	return res, nil
}

// send counts a batch in Redis. To the breaker it is one call: what ails one connection ails all that was sent on it.
func (l *Limiter) send(batch []*taking) {
	err := l.breaker.Do(func() error {
		// A caller who hangs up says nothing about Redis and is counted all the same.
		ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
		defer cancel()
		return l.shared.takeAll(ctx, batch)
	})
	if errors.Is(err, redisx.ErrOpen) {
		for _, t := range batch {
			t.err = err
		}
	}
}

// Spent answers the state of those keys that are known to have no room, without asking Redis; nil if there is none.
func (l *Limiter) Spent(keys []Key) []State {
	var out []State
	now := l.now().UnixMilli()
	for _, k := range keys {
		n, known := l.spent.find(l.hash(k), now)
		if known && k.cost() >= n.cost && k.Rate.Limit <= n.limit {
			out = append(out, State{Name: k.Name, Rate: k.Rate, Remaining: min(n.remaining, k.Rate.Limit), Reset: time.Duration(n.until-now) * time.Millisecond, Exceeded: true})
		}
	}
	if out != nil {
		l.stats[statSpent].Add(1)
	}
	return out
}

// takeLocally counts against this process's share.
func (l *Limiter) takeLocally(ctx context.Context, id string, keys []Key, cause error) (Result, error) {
	share := make([]Key, len(keys))
	for i, k := range keys {
		if k.Strict {
			return Result{}, ErrAway.Because(cause)
		}
		k.Rate.Limit = max(k.Rate.Limit/l.processes.Load(), 1)
		if k.Cost != Peek {
			k.Cost = min(k.cost(), k.Rate.Limit) // what could pass at all can pass a share
		}
		share[i] = k
	}
	l.stats[statLocal].Add(1)
	out := l.local.take(ctx, share)
	res := result(out, share)
	res.Degraded = true
	if id != "" && out.allowed {
		l.counted.put(note{hash: l.request(id, keys), until: l.now().Add(once).UnixMilli()})
	}
	return res, nil
}

func result(out outcome, keys []Key) Result {
	res := Result{Allowed: out.allowed, Repeated: out.repeated, States: make([]State, len(keys))}
	for i, k := range keys {
		res.States[i] = out.usages[i].state(k)
		res.States[i].Exceeded = res.States[i].Exceeded && !out.repeated
	}
	return res
}

// remember notes what Redis said, so that it need not be asked again.
func (l *Limiter) remember(id string, keys []Key, out outcome, states []State) {
	now := l.now()
	if id != "" && out.allowed {
		l.counted.put(note{hash: l.request(id, keys), until: now.Add(once).UnixMilli()})
	}
	for i, s := range states {
		if s.Exceeded {
			l.spent.put(note{
				hash: l.hash(keys[i]), until: now.Add(s.Reset).UnixMilli(),
				fact: fact{cost: keys[i].cost(), limit: s.Rate.Limit, remaining: s.Remaining},
			})
		}
	}
}

// hash is one key's for all tiers; what another kind of window knows of it says nothing.
func (l *Limiter) hash(k Key) uint64 {
	h := maphash.String(l.seed, k.Value) ^ uint64(k.Rate.Period)*0x9E3779B97F4A7C15
	if k.Fixed {
		h = ^h
	}
	return h
}

func (l *Limiter) request(id string, keys []Key) uint64 {
	return maphash.String(l.seed, id) ^ uint64(len(keys))*0x9E3779B97F4A7C15
}

// Ready asks Redis and answers a degraded state while limits are counted locally.
func (l *Limiter) Ready() error {
	if err := l.breaker.Do(func() error { return l.ping(context.Background()) }); err != nil {
		return web.Degraded("Limits are counted by each process alone: Redis is away.")
	}
	return nil
}

func (l *Limiter) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	return l.client.Ping(ctx).Err()
}
