package lifecycle_test

import (
	"context"
	"errors"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
)

func TestTheFirstFailureStopsTheOthersAndIsReturned(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	stopped := false
	err := lifecycle.Run(t.Context(),
		lifecycle.Func(func(ctx context.Context) error { <-ctx.Done(); stopped = true; return ctx.Err() }),
		lifecycle.Func(func(context.Context) error { return broken }),
	)
	if !errors.Is(err, broken) || !stopped {
		t.Errorf("err = %v, stopped = %v; want the first error after the others have stopped", err, stopped)
	}
}

func TestTheEndOfTheContextIsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := lifecycle.Run(ctx, lifecycle.Func(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
}

func TestAPanicIsAnError(t *testing.T) {
	t.Parallel()
	if err := lifecycle.Run(t.Context(), lifecycle.Func(func(context.Context) error { panic("x") })); err == nil {
		t.Error("Run = nil after a panic")
	}
}
