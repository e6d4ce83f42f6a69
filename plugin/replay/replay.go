// Package replay lets a thing be used once across all processes, by Redis. What it cannot find out counts as no.
package replay

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// ErrUnavailable says that nobody can say whether it has been used.
var ErrUnavailable = fault.New(fault.Unavailable, "Proofs of possession cannot be checked at the moment; try again later.").Named("proofs_unavailable")

const prefix = "gatehouse:once:"

// Guard remembers what was used.
type Guard struct{ redis redis.UniversalClient }

// New makes a Guard over Redis.
func New(r redis.UniversalClient) *Guard { return &Guard{r} }

// Once reports whether the thing is used for the first time within the time to live, which is rounded up to a second. A
// gateway may run one request twice: by its id, unless that is "", the same request may use the thing again.
func (g *Guard) Once(ctx context.Context, thing, id string, live time.Duration) (bool, error) {
	sum := sha256.Sum256([]byte(thing))
	key := prefix + base64.RawURLEncoding.EncodeToString(sum[:])
	live = max(live.Truncate(time.Second)+time.Second, time.Second)
	fresh, err := g.redis.SetNX(ctx, key, id, live).Result()
	if err != nil {
		return false, ErrUnavailable.Because(err)
	}
	if fresh || id == "" {
		return fresh, nil
	}
	by, err := g.redis.Get(ctx, key).Result()
	if err != nil { // it has ended since, or Redis has gone
		return false, ErrUnavailable.Because(err)
	}
	return by == id, nil
}
