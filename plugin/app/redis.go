package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
	"github.com/gatehouse-auth/gatehouse/plugin/replay"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

// firstRead is how long the first routes over a Redis wait for what is read from it at first, so that a plugin that has just been
// started, or started anew, does not refuse what it would allow a moment later. A Redis that is away is waited for once.
const firstRead = 500 * time.Millisecond

// store is one Redis and what works over it.
type store struct {
	client      redis.UniversalClient // for what requests wait for
	feed        redis.UniversalClient // for revocations, which they do not
	patience    <-chan struct{}       // closed when firstRead is over
	revocations *revocation.Follower
	limiter     *limit.Limiter
}

// overRedis adds the parts that work over Redis.
func (a *App) overRedis(cfg guard.Config, parts *guard.Parts) error {
	if cfg.RedisURL == "" {
		return nil
	}
	s, err := a.store(cfg.RedisURL)
	if err != nil {
		return fmt.Errorf("config.redis_url: %w", err)
	}
	parts.Revocations, parts.Limiter, parts.Proofs = s.revocations, s.limiter, replay.New(s.client)
	return nil
}

func (a *App) store(url telemetry.Secret) (*store, error) {
	if s, ok := a.redis[url.Reveal()]; ok {
		return s, nil
	}
	client, err := redisx.Open(url.Reveal())
	if err != nil {
		return nil, err
	}
	feed, err := redisx.OpenFor(url.Reveal(), revocation.Patience)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	over := make(chan struct{})
	time.AfterFunc(firstRead, func() { close(over) })
	s := &store{
		client: client, feed: feed, patience: over,
		revocations: revocation.Follow(feed, revocation.New(a.now, maxLifetime), a.log),
		limiter:     limit.New(limit.Options{Redis: client, ID: newID(), Memory: a.limitMemory, Now: a.now, Log: a.log}),
	}
	a.redis[url.Reveal()] = s
	a.background("revocations", s.revocations.Run)
	a.background("limits", s.limiter.Run)
	return s, nil
}

// await waits until a new route over that Redis need not refuse each token for not knowing which have ended.
func (a *App) await(cfg guard.Config) {
	a.mu.Lock()
	s, running := a.redis[cfg.RedisURL.Reveal()], a.start != nil
	a.mu.Unlock()
	if s == nil || !running || cfg.Identify == guard.None {
		return
	}
	select {
	case <-s.revocations.Read():
	case <-s.patience:
	}
}

func (a *App) every(ready func(*store) error) web.Check {
	return func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, s := range a.redis {
			if err := ready(s); err != nil {
				return err
			}
		}
		return nil
	}
}
