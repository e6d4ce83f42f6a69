package directory

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	firstDelay = 250 * time.Millisecond // after one failure; doubles with each
	maxDelay   = 30 * time.Second       // and grows no longer
)

// Run keeps the view current until ctx ends. It begins with what was kept for it.
func (d *Directory) Run(ctx context.Context) error {
	if d.from == nil {
		<-ctx.Done()
		return nil
	}
	defer d.from.close()
	d.restore(ctx)
	for failures := 0; ; {
		began := d.opts.Now()
		news, err := d.step(ctx)
		if ctx.Err() != nil {
			return d.leave(ctx)
		}
		d.keepAside(ctx)
		if d.told != nil {
			d.told(err)
		}
		delay := d.from.pause(d.opts.Now().Sub(began), news)
		if err != nil {
			delay = d.from.retry(failures, err)
			failures++
		} else {
			failures = 0
		}
		if delay <= 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return d.leave(ctx)
		case <-d.after(delay):
		}
	}
}

// leave keeps what is known in the end.
func (d *Directory) leave(ctx context.Context) error {
	d.kept.all.Wait()
	d.keep(context.WithoutCancel(ctx))
	return nil
}

// retry doubles; jitter keeps a fleet that lost its server at one moment from coming back at one.
func (s *sender) retry(failures int, err error) time.Duration {
	delay := min(firstDelay<<min(failures, 10), maxDelay)
	delay = delay/2 + rand.N(delay/2) //nolint:gosec // no secret
	var busy *awayError
	if errors.As(err, &busy) {
		delay = max(delay, min(busy.retryAfter, maxDelay))
	}
	return delay
}

// awayError is a source that could not be asked, as against one that sent what cannot be used.
type awayError struct {
	error
	retryAfter time.Duration
}

func (e *awayError) Unwrap() error { return e.error }

// step asks the source once.
func (d *Directory) step(ctx context.Context) (news bool, err error) {
	asked := d.opts.Now()
	before := d.View()
	v, err := d.from.next(ctx, before)
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	var away *awayError
	switch {
	case errors.As(err, &away):
		d.fail(ctx, &d.away, "away", err)
		return false, err
	case err != nil:
		d.fail(ctx, &d.failure, "refused", err)
		return false, err
	default:
		d.put(v, asked)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away != nil || d.failure != nil {
		d.opts.Log.InfoContext(ctx, "directory is current again", "directory_revision", v.Word())
	}
	d.away, d.failure = nil, nil
	if v == before {
		return false, nil
	}
	if before != nil && before.epoch == v.epoch {
		d.loads["changes"]++
	} else {
		d.loads["snapshot"]++
		d.opts.Log.InfoContext(ctx, "directory loaded", "directory_revision", v.Word(), "subjects", v.subjects, "roles", v.roles.Len())
	}
	return true, nil
}

// fail notes a failure, and logs it once.
func (d *Directory) fail(ctx context.Context, what *error, kind string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failures[kind]++
	if *what == nil || (*what).Error() != err.Error() {
		d.opts.Log.WarnContext(ctx, "directory not renewed", "why", kind, "error", err)
	}
	*what = err
}
