// Package asking asks again and again, at a pace, while a test breaks something.
package asking

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Load is workers that ask.
type Load struct {
	begun atomic.Int64
	end   func()
}

// Begin has so many workers ask, each once in a pace at most, so that they leave the processors to what is asked. Requests are
// numbered from 1. It ends with the test, or before.
func Begin(t testing.TB, workers int, pace time.Duration, ask func(n int64)) *Load {
	t.Helper()
	l := &Load{}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			tick := time.NewTicker(pace)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					ask(l.begun.Add(1))
				}
			}
		})
	}
	l.end = sync.OnceFunc(func() {
		close(stop)
		running.Wait()
	})
	t.Cleanup(l.end)
	return l
}

// Begun is how many requests have been begun.
func (l *Load) Begun() int64 { return l.begun.Load() }

// End stops to ask, and waits for the last answers.
func (l *Load) End() { l.end() }
