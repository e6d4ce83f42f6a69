package revocation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	page  = 1000                   // entries read at once
	block = 200 * time.Millisecond // how long one read waits for news; below the client's read time-out
	// Patience bounds one exchange with Redis, waiting included: a connection that has died without a word must not keep
	// the news back for long. It is more than the requests' own: no request waits for the news, and a Redis that is slow
	// needs no session to be refused.
	Patience = 700 * time.Millisecond
	// stale is the lag from which the set is reported as degraded.
	stale = 5 * time.Second
	// The pause between two tries while Redis is away doubles from the one to the other.
	pause, longestPause = 50 * time.Millisecond, time.Second
	// again is how often the snapshot is looked at while it does not cover what was trimmed unread.
	again = time.Second
)

// Follower keeps a Set current from Redis.
//
// The set is complete when it has read the snapshot, if there is one, and every entry after it. There is no heartbeat in the
// stream: a read that comes back empty after block says that there was nothing, so the lag is known without traffic.
type Follower struct {
	*Set
	redis redis.UniversalClient
	log   *slog.Logger

	// Run's goroutine's:
	away      bool
	position  position
	gap       string    // up to this entry something was trimmed unread; "" for nothing
	reread    bool      // something is missing, and may stand below what was read last
	snapshots time.Time // when the snapshot was looked at last

	gaps atomic.Int64
}

// Follow makes a follower; Run starts it. The client is best one of redisx.OpenFor with Patience.
func Follow(c redis.UniversalClient, s *Set, log *slog.Logger) *Follower {
	return &Follower{Set: s, redis: c, log: log, position: position{last: beginning, after: beginning, base: -1}}
}

// Run reads the snapshot and the stream, then follows the stream until ctx ends. While Redis is away the set keeps what it
// knows, and goes on after the last entry that it read; a stream that no longer has that entry is read again as a whole, so
// that a replaced one hides nothing. Entries are idempotent. What was trimmed before it could be read is sought in the
// snapshot; until it is there the set counts as incomplete, and its lag grows.
func (f *Follower) Run(ctx context.Context) error {
	wait := pause
	for ctx.Err() == nil {
		err := f.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		if !f.away {
			f.log.WarnContext(ctx, "revocations: Redis is away; going on with what is known", "error", err)
			wait = pause
		}
		f.away = true
		f.forget()
		timer := time.NewTimer(wait)
		wait = min(2*wait, longestPause)
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
	if err := f.greet(ctx); err != nil {
		return err
	}
	for {
		if err := f.cover(ctx); err != nil {
			return err
		}
		f.position.after = f.position.last
		messages, err := f.news(ctx)
		if err != nil {
			return err
		}
		for _, m := range messages {
			f.judge(ctx, f.position.take(m.ID))
			f.take(ctx, m)
		}
		if len(messages) < page {
			f.judge(ctx, f.position.end())
		}
		s, err := f.look(ctx)
		if err != nil {
			return err
		}
		if f.away {
			f.away = false
			f.log.InfoContext(ctx, "revocations: Redis is back")
		}
		replaced := f.position.replaced(s)
		if !replaced {
			f.judge(ctx, f.position.see(s))
		}
		if replaced || f.reread {
			f.log.WarnContext(ctx, "revocations: reading the stream from its beginning", "replaced", replaced, "after", f.position.after)
			f.position.restart()
			f.reread = false
		}
		f.forget()
	}
}

// greet opens the connections that are not there: go-redis keeps those of single commands and of pipelines apart. That takes several
// exchanges, so that it could not be the first part of another with a slow Redis.
func (f *Follower) greet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 6*Patience)
	defer cancel()
	if err := f.redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	if _, err := f.redis.Pipelined(ctx, func(p redis.Pipeliner) error { return p.Ping(ctx).Err() }); err != nil {
		return fmt.Errorf("greet: %w", err)
	}
	return nil
}

// judge notes that nothing was missing when Redis was asked, or that something was.
func (f *Follower) judge(ctx context.Context, v verdict) {
	if v.sighting == nil {
		return
	}
	if v.missed > 0 {
		if f.gap == "" {
			f.snapshots = time.Time{} // look at once
		}
		f.gap = v.newest
		f.reread = true // a stream that was replaced within a millisecond can look like the one before
		f.gaps.Add(1)
		f.log.ErrorContext(ctx, "revocations: entries were trimmed from the stream before they could be read; the set is incomplete", "entries", v.missed, "before", v.newest)
	}
	// In the end no token can be alive that what was missed could have ended.
	if f.gap != "" && redisx.StreamIDTime(f.gap).Add(f.life).Before(f.now()) {
		f.gap = ""
	}
	if f.gap == "" {
		f.current.Store(v.at.UnixMilli())
	}
	if !f.known.Swap(true) {
		close(f.read)
		f.log.InfoContext(ctx, "revocations: stream read", "entries", f.Len(), "complete", f.gap == "")
	}
}

// Gaps is how often entries were found to have been trimmed unread, since the start.
func (f *Follower) Gaps() int64 { return f.gaps.Load() }

// cover reads the snapshot: at the start, and while something is missing.
func (f *Follower) cover(ctx context.Context) error {
	now := f.now()
	if !f.snapshots.IsZero() && (f.gap == "" || now.Sub(f.snapshots) < again) {
		return nil
	}
	cursor, err := redisx.ReadRevocationSnapshot(ctx, f.redis, Patience, f.add, func(err error) {
		f.log.ErrorContext(ctx, "revocations: an entry of the snapshot cannot be read", "error", err)
	})
	switch {
	case errors.Is(err, redisx.ErrSnapshot):
		f.log.ErrorContext(ctx, "revocations: the snapshot cannot be read; going on with the stream alone", "error", err)
	case err != nil:
		return err
	case cursor.ID == "":
	case f.position.last == beginning:
		f.position = position{last: cursor.ID, after: cursor.ID, base: cursor.Added}
	case f.gap != "" && !redisx.StreamIDLess(cursor.ID, f.gap):
		f.log.InfoContext(ctx, "revocations: the snapshot holds what was missing")
		f.gap = ""
	}
	f.snapshots = now
	return nil
}

// news answers what comes after the last entry, waiting for it a little.
func (f *Follower) news(ctx context.Context) ([]redis.XMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	streams, err := f.redis.XRead(ctx, &redis.XReadArgs{
		Streams: []string{redisx.RevocationStream, f.position.last}, Count: page, Block: f.wait(),
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

// look asks Redis what it has of the stream.
func (f *Follower) look(ctx context.Context) (sighting, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	s := sighting{at: f.now(), intact: true, newest: beginning}
	var found *redis.XMessageSliceCmd
	var info *redis.XInfoStreamCmd
	_, err := f.redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		found = p.XRangeN(ctx, redisx.RevocationStream, f.position.after, f.position.after, 1)
		info = p.XInfoStream(ctx, redisx.RevocationStream)
		return nil
	})
	switch {
	case redisx.NoSuchKey(err):
		s.intact = f.position.after == beginning
	case err != nil:
		return s, fmt.Errorf("look at the stream: %w", err)
	default:
		i := info.Val()
		s.intact, s.first, s.newest, s.added = len(found.Val()) == 1, i.FirstEntry.ID, i.LastGeneratedID, i.EntriesAdded
	}
	return s, nil
}

// wait blocks only once something may be known to be the end: the first read of an empty stream returns at once.
func (f *Follower) wait() time.Duration {
	if f.position.last == beginning && !f.known.Load() {
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
		return web.Degraded("Revocations are behind: Redis is away, or entries were trimmed unread.")
	}
	return nil
}
