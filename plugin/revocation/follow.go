package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	page  = 1000                   // entries read at once
	block = 200 * time.Millisecond // how long one read waits for news; below the client's read time-out
	pause = 250 * time.Millisecond // between two tries while Redis is away
	// patience bounds one exchange with Redis, waiting included: a connection that has died without a word must not keep
	// the news back for long.
	patience = 700 * time.Millisecond
	// stale is the lag from which the set is reported as degraded.
	stale = 5 * time.Second
)

// Follower keeps a Set current from Redis.
type Follower struct {
	*Set
	redis redis.UniversalClient
	log   *slog.Logger
	away  bool // only Run's goroutine touches it
}

// Follow makes a follower; Run starts it.
func Follow(c redis.UniversalClient, s *Set, log *slog.Logger) *Follower {
	return &Follower{Set: s, redis: c, log: log}
}

// Run reads the stream from its beginning, then follows it until ctx ends. While Redis is away the set keeps what it
// knows; after each reconnect the whole stream is read again, so that neither a trimmed nor a replaced stream hides an
// entry. Entries are idempotent.
func (f *Follower) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		if !f.away {
			f.log.WarnContext(ctx, "revocations: Redis is away; going on with what is known", "error", err)
		}
		f.away = true
		f.forget()
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
	return nil
}

// follow reads until something fails.
func (f *Follower) follow(ctx context.Context) error {
	last := "0"
	for {
		asked := f.now()
		messages, err := f.read(ctx, last)
		if err != nil {
			return err
		}
		// Asked after the read: had the stream been replaced before it, new entries with lower ids would lie hidden.
		intact, err := f.holds(ctx, last)
		if err != nil {
			return err
		}
		if f.away {
			f.away = false
			f.log.InfoContext(ctx, "revocations: Redis is back")
		}
		for _, m := range messages {
			last = m.ID
			f.take(ctx, m)
		}
		f.forget()
		if !intact {
			f.log.InfoContext(ctx, "revocations: the stream was trimmed or replaced; reading it again")
			last = "0"
			continue
		}
		if len(messages) < page { // the end of the stream was reached by a read that began at asked
			f.current.Store(asked.UnixMilli())
			if !f.known.Swap(true) {
				f.log.InfoContext(ctx, "revocations: stream read", "entries", f.Len())
			}
		}
	}
}

// read answers what comes after last, waiting for it a little.
func (f *Follower) read(ctx context.Context, last string) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	streams, err := f.redis.XRead(ctx, &redis.XReadArgs{
		Streams: []string{redisx.RevocationStream, last}, Count: page, Block: f.wait(last),
	}).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read: %w", err)
	case len(streams) != 1:
		return nil, fmt.Errorf("read: %d streams", len(streams))
	}
	return streams[0].Messages, nil
}

// holds reports whether the stream still has the entry that was read last.
func (f *Follower) holds(ctx context.Context, last string) (bool, error) {
	if last == "0" {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	found, err := f.redis.XRangeN(ctx, redisx.RevocationStream, last, last, 1).Result()
	if err != nil {
		return false, fmt.Errorf("look for the last entry: %w", err)
	}
	return len(found) == 1, nil
}

// wait blocks only once something may be known to be the end: the first read of an empty stream returns at once.
func (f *Follower) wait(last string) time.Duration {
	if last == "0" && !f.known.Load() {
		return -1
	}
	return block
}

func (f *Follower) take(ctx context.Context, m redis.XMessage) {
	r, err := redisx.ParseRevocation(m.Values)
	if err != nil {
		f.log.ErrorContext(ctx, "revocations: an entry cannot be read", "entry", m.ID, "error", err)
		return
	}
	f.add(r)
}

// Ready answers a degraded state while the set is unknown or behind.
func (f *Follower) Ready() error {
	if err := f.Known(); err != nil {
		return err
	}
	if f.Lag() > stale {
		return web.Degraded("Revocations are behind: Redis is away.")
	}
	return nil
}
