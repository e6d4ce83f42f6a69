// Package memory sets Go's collector for servers that keep little and make much garbage. By itself it runs each time as much has
// been allocated as is alive: with ten megabytes alive, many times a second under load, for which decisions pay.
package memory

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// Room is how much garbage may gather before it is collected, in bytes.
const Room = 64 << 20

// most bounds the percentage, for before anything is known of what is alive.
const most = 800

// ofLimit is which part of what the cgroup allows Go may take; the rest is for what Go does not count.
const ofLimit = 0.9

// Limit has Go take no more than nine tenths of what the cgroup allows, if it says anything: rather than be killed, it collects
// more often. GOMEMLIMIT goes before it.
func Limit(log *slog.Logger) {
	if _, err := memlimit.Set(memlimit.WithRatio(ofLimit), memlimit.WithProvider(memlimit.FromCgroup)); err != nil {
		log.Info("no memory limit is known", "reason", err.Error())
	}
}

// Pacer keeps the collector from running before Room is used up, and lets it run as by itself where more than that is alive.
type Pacer struct {
	Alive func() uint64 // default: bytes that the last collection found alive
	Set   func(percent int)
	Every time.Duration // default 1 s
}

// Run paces until ctx ends. GOGC goes before it.
func (p Pacer) Run(ctx context.Context) error {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	if p.Alive == nil {
		p.Alive = alive
	}
	if p.Set == nil {
		p.Set = func(percent int) { debug.SetGCPercent(percent) }
	}
	if p.Every == 0 {
		p.Every = time.Second
	}
	tick := time.NewTicker(p.Every)
	defer tick.Stop()
	for last := 0; ; {
		// To set it stops all goroutines for a moment, so that small changes are not worth it.
		if percent := percentOf(p.Alive()); percent < last*9/10 || percent > last*11/10 {
			p.Set(percent)
			last = percent
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// percentOf is what GOGC must be to leave Room beside so many bytes that are alive.
func percentOf(alive uint64) int {
	if alive == 0 {
		return most
	}
	return int(min(max(Room*100/alive, 100), most)) //nolint:gosec // at most most
}

func alive() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
