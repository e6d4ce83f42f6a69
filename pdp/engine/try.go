package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// Try decides as Evaluate does, at some time and by what is known of the resource; nil: by what a look-up finds now. Nothing is
// remembered of it, and nothing recalled.
func (e *Engine) Try(ctx context.Context, r authzen.Request, known map[string]any, now time.Time) (allow bool, about authzen.ResponseContext, err error) {
	snap := e.current.Load()
	if snap == nil {
		return false, about, errNotLoaded
	}
	defer func() {
		if p := recover(); p != nil {
			allow, err = false, errFailed.Because(fmt.Errorf("panic: %v", p))
		}
	}()
	if known == nil {
		if known, err = snap.properties(ctx, r.Resource); err != nil {
			return false, about, err
		}
	}
	a, err := e.decide(ctx, snap, r, known, now, clockOf(now))
	if err != nil {
		return false, about, err
	}
	return a.allow, *a.about, nil
}

// Reads is what the policies that decide now can look at.
func (e *Engine) Reads() Reads {
	if snap := e.current.Load(); snap != nil {
		return Reads{snap.looksAt}
	}
	return Reads{}
}
