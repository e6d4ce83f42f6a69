package redisx

import (
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// ErrOpen is what a breaker answers instead of trying.
var ErrOpen = fault.New(fault.Unavailable, "Redis is away.").Named("redis_unavailable")

// Breaker keeps callers from a part that has just failed. After a failure it is open for Pause; then one caller may try,
// and closes it if that works. The zero value, with Now and Pause set, is closed.
type Breaker struct {
	Pause time.Duration
	Now   func() time.Time

	mu      sync.Mutex
	failed  bool
	trying  bool
	retryAt time.Time
}

// Do calls f unless the breaker is open. Only an error of f opens it.
func (b *Breaker) Do(f func() error) error {
	if !b.enter() {
		return ErrOpen
	}
	var err error = errPanicked
	defer func() { b.leave(err) }()
	err = f()
	return err
}

// errPanicked stands for f's error should it never return.
var errPanicked = fault.New(fault.Internal, "panicked")

// Open reports whether the part is known to be away.
func (b *Breaker) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

func (b *Breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.failed {
		return true
	}
	if b.trying || b.Now().Before(b.retryAt) {
		return false
	}
	b.trying = true
	return true
}

func (b *Breaker) leave(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
	b.failed = err != nil
	if b.failed {
		b.retryAt = b.Now().Add(b.Pause)
	}
}
