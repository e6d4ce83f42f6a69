package challenge

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

const prefix = "gatehouse:challenge:"

// spend marks what as used for the request of that id, for as long as keep. Whoever comes second is refused, unless it is
// the same request once more: Kong runs an event again when its connection broke. Without an id every request is another.
func spend(ctx context.Context, r redis.UniversalClient, what, request string, keep time.Duration) error {
	by := request
	if by == "" {
		by = "1"
	}
	fresh, err := r.SetNX(ctx, prefix+what, by, keep).Result()
	if err != nil {
		return ErrUnavailable.Because(err)
	}
	if fresh {
		return nil
	}
	if request != "" {
		switch first, err := spentBy(ctx, r, what); {
		case err != nil:
			return err
		case first == request:
			return nil
		}
	}
	return ErrInvalid.Because(errors.New("spent"))
}

// spentBy answers the id of the request that has spent it, or "".
func spentBy(ctx context.Context, r redis.UniversalClient, what string) (string, error) {
	by, err := r.Get(ctx, prefix+what).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", ErrUnavailable.Because(err)
	}
	return by, nil
}
