// Package limit counts requests against the limits of a route. The counts live in Redis (ulule/limiter), so that all
// plugin processes share them; while Redis is away each process counts for itself.
package limit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/ulule/limiter/v3"
	"github.com/ulule/limiter/v3/drivers/store/memory"
	redisstore "github.com/ulule/limiter/v3/drivers/store/redis"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// Rate is how many requests may pass in one fixed window.
type Rate struct {
	Limit  int64
	Period time.Duration
}

// ParseRate reads ulule/limiter's form: "60-M" is 60 in a minute; S, M, H and D are the periods.
func ParseRate(s string) (Rate, error) {
	r, err := limiter.NewRateFromFormatted(s)
	if err != nil || r.Limit <= 0 {
		return Rate{}, errors.New(`expected a number, "-" and one of S, M, H, D, such as 60-M`)
	}
	return Rate{Limit: r.Limit, Period: r.Period}, nil
}

// Key is one limit as it applies to one request.
type Key struct {
	Name  string // of the limit, shown to the caller
	Value string // what is counted: the limit's name, its kind and whose request it is
	Rate  Rate
}

// State is where one limit stands after this request was counted.
type State struct {
	Name      string
	Rate      Rate
	Remaining int64
	Reset     time.Duration // until the window ends
	Exceeded  bool
}

// Result is where all limits of a request stand.
type Result struct {
	Allowed  bool
	States   []State
	Degraded bool // counted by this process alone
}

const (
	prefix = "gatehouse:limit"
	// retry is how often Redis is tried while it is away; it bounds how long limits stay local after its return.
	retry = 500 * time.Millisecond
	// timeout bounds the counting of one request.
	timeout = 250 * time.Millisecond
	// tolerate is how many requests in a row may find Redis too slow before it counts as away. One slow command must not
	// make the whole process count alone, for then more pass than the limit says.
	tolerate = 2
)

// Limiter counts. It is safe for concurrent use.
type Limiter struct {
	client  redis.UniversalClient
	local   limiter.Store
	breaker redisx.Breaker
	now     func() time.Time
	timeout time.Duration

	loading chan struct{} // holds one token: the right to make shared
	shared  atomic.Pointer[limiter.Store]
}

// New makes a limiter; Redis need not be there yet.
func New(client redis.UniversalClient, now func() time.Time, log *slog.Logger) *Limiter {
	l := &Limiter{
		client: client, now: now, timeout: timeout,
		local:   memory.NewStoreWithOptions(limiter.StoreOptions{Prefix: prefix, CleanUpInterval: time.Minute}),
		loading: make(chan struct{}, 1),
	}
	l.breaker = redisx.Breaker{
		Pause: retry, Tolerate: tolerate, Now: now,
		Probe: func() error { return l.ping(context.Background()) },
		Changed: func(away bool, cause error) {
			if away {
				log.Warn("limits: Redis is away; counting locally", "error", cause)
			} else {
				log.Info("limits: Redis is back")
			}
		},
	}
	return l
}

// Take counts the request against every key and answers whether all still had room. Redis away is no error: the request is
// counted locally.
func (l *Limiter) Take(ctx context.Context, keys []Key) (Result, error) {
	if len(keys) == 0 {
		return Result{Allowed: true}, nil
	}
	var res Result
	err := l.breaker.Do(func() (err error) {
		// A caller who hangs up says nothing about Redis and is counted all the same.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.timeout)
		defer cancel()
		store, err := l.store(ctx)
		if err != nil {
			return err
		}
		res, err = count(ctx, store, keys, l.now())
		return err
	})
	if err == nil {
		return res, nil
	}
	res, err = count(ctx, l.local, keys, l.now())
	if err != nil {
		return Result{}, fmt.Errorf("count locally: %w", err)
	}
	res.Degraded = true
	return res, nil
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

// store makes ulule's store when it is first needed, for it loads its scripts then and fails without Redis. One caller
// does; the others wait no longer than they would for Redis itself.
func (l *Limiter) store(ctx context.Context) (limiter.Store, error) {
	if s := l.shared.Load(); s != nil {
		return *s, nil
	}
	select {
	case l.loading <- struct{}{}:
		defer func() { <-l.loading }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for scripts: %w", ctx.Err())
	}
	if s := l.shared.Load(); s != nil {
		return *s, nil
	}
	s, err := redisstore.NewStoreWithOptions(l.client, limiter.StoreOptions{Prefix: prefix})
	if err != nil {
		return nil, fmt.Errorf("load scripts: %w", err)
	}
	l.shared.Store(&s)
	return s, nil
}

func count(ctx context.Context, store limiter.Store, keys []Key, now time.Time) (Result, error) {
	res := Result{Allowed: true, States: make([]State, 0, len(keys))}
	for _, k := range keys {
		c, err := store.Get(ctx, k.Value, limiter.Rate{Limit: k.Rate.Limit, Period: k.Rate.Period})
		if err != nil {
			return Result{}, err
		}
		reset := min(max(time.Unix(c.Reset, 0).Sub(now), time.Second), k.Rate.Period)
		res.States = append(res.States, State{Name: k.Name, Rate: k.Rate, Remaining: c.Remaining, Reset: reset, Exceeded: c.Reached})
		res.Allowed = res.Allowed && !c.Reached
	}
	return res, nil
}
