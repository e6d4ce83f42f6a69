package redisx

import (
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// ErrOpen is what a breaker answers instead of trying.
var ErrOpen = fault.New(fault.Unavailable, "Redis is away.").Named("redis_unavailable")

// Breaker keeps callers from a part that is away. It opens when more than Tolerate calls in a row have failed. While it is
// open no caller waits for anything: at most once per Pause a call starts Probe beside itself, and a Probe that works closes
// the breaker. Probe must bound its own time. The zero value with Pause, Now and Probe set is closed.
type Breaker struct {
	Pause    time.Duration
	Tolerate int // failures in a row that are taken for bad luck
	Now      func() time.Time
	Probe    func() error
	Changed  func(open bool, cause error) // called at each change, if set; cause is nil when it closes

	mu      sync.Mutex
	fails   int // in a row, while closed
	open    bool
	probing bool
	probeAt time.Time
}

// Do calls f, or answers ErrOpen at once. Only what f answers counts; a panic counts as a failure.
func (b *Breaker) Do(f func() error) error {
	if b.Open() {
		if b.claim() {
			go b.probe()
		}
		return ErrOpen
	}
	err := errPanicked
	defer func() { b.record(err) }()
	err = f()
	return err
}

// errPanicked stands for f's error should it never return.
var errPanicked error = fault.New(fault.Internal, "panicked")

// Open reports whether the part is known to be away.
func (b *Breaker) Open() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

// claim reports whether the caller is the one to start a probe.
func (b *Breaker) claim() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.open || b.probing || b.Now().Before(b.probeAt) {
		return false
	}
	b.probing = true
	return true
}

func (b *Breaker) probe() {
	err := b.Probe()
	b.mu.Lock()
	b.probing, b.open = false, err != nil
	b.fails, b.probeAt = 0, b.Now().Add(b.Pause)
	b.mu.Unlock()
	if err == nil && b.Changed != nil {
		b.Changed(false, nil)
	}
}

// record counts a call that began while the breaker was closed. One that ends after it opened says nothing new: a late
// success does not close it.
func (b *Breaker) record(err error) {
	b.mu.Lock()
	opened := false
	switch {
	case b.open:
	case err == nil:
		b.fails = 0
	default:
		b.fails++
		if opened = b.fails > b.Tolerate; opened {
			b.open, b.probeAt = true, b.Now().Add(b.Pause)
		}
	}
	b.mu.Unlock()
	if opened && b.Changed != nil {
		b.Changed(true, err)
	}
}
