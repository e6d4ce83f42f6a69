// Package lifecycle runs the long-lived parts of a program together: when one fails, or the context ends, all stop, and
// Run returns only when the last has.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Service is a part that runs until its context ends. Returning nil early is allowed and stops nothing else.
type Service interface {
	Run(ctx context.Context) error
}

// Func makes a function a Service.
type Func func(ctx context.Context) error

// Run calls f.
func (f Func) Run(ctx context.Context) error { return f(ctx) }

// Run runs all services and waits for all of them. The first error cancels the others and is returned; a panic is an
// error. An end of ctx is no error.
func Run(ctx context.Context, services ...Service) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var once sync.Once
	var first error
	for _, s := range services {
		wg.Go(func() {
			if err := guarded(ctx, s); err != nil && !errors.Is(err, context.Canceled) {
				once.Do(func() { first = err })
				cancel(err)
			}
		})
	}
	wg.Wait()
	return first
}

func guarded(ctx context.Context, s Service) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("service panicked: %v", p)
		}
	}()
	return s.Run(ctx)
}
