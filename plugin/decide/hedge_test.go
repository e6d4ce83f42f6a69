package decide_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// BenchmarkHedging is why the client does not hedge (ask a second decision point when the first has not answered after a
// while). Two decision points share the machine; "stalls" makes one in a hundred answers of each 20 ms late, "crowded" has as
// many callers as make both late by themselves.
func BenchmarkHedging(b *testing.B) {
	for _, load := range []struct {
		name    string
		callers int
		stalls  int64
	}{{"calm", 4, 0}, {"stalls", 4, 100}, {"crowded", 256, 0}} {
		for _, way := range []struct {
			name  string
			after time.Duration
		}{{"alone", 0}, {"after 2ms", 2 * time.Millisecond}, {"after 10ms", 10 * time.Millisecond}} {
			b.Run(load.name+"/"+way.name, func(b *testing.B) {
				var served atomic.Int64
				first, second := stalling(b, load.stalls, &served), stalling(b, load.stalls, &served)
				var mu sync.Mutex
				var took []time.Duration
				b.SetParallelism(load.callers / 2)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					var own []time.Duration
					for pb.Next() {
						begin := time.Now()
						if way.after == 0 {
							if _, err := first.Evaluate(b.Context(), authzen.Request{}); err != nil {
								b.Error(err)
							}
						} else {
							hedged(b, way.after, first, second)
						}
						own = append(own, time.Since(begin))
					}
					mu.Lock()
					took = append(took, own...)
					mu.Unlock()
				})
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
				b.ReportMetric(float64(took[len(took)*999/1000])/1e3, "p99.9-µs")
				b.ReportMetric(float64(served.Load())/float64(b.N), "asked/op")
			})
		}
	}
}

func stalling(b *testing.B, every int64, served *atomic.Int64) *authzen.Client {
	b.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n := served.Add(1); every > 0 && n%every == 0 {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-r.Context().Done():
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"decision":true}`)
	}))
	b.Cleanup(s.Close)
	c, err := authzen.NewClient(s.URL, 10*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	return c
}

// hedged asks the second, too, when the first has not answered after a while; whoever answers first wins.
func hedged(b *testing.B, after time.Duration, first, second *authzen.Client) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	answers := make(chan error, 2)
	ask := func(c *authzen.Client) {
		_, err := c.Evaluate(ctx, authzen.Request{})
		answers <- err
	}
	go ask(first)
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case err := <-answers:
		if err != nil {
			b.Error(err)
		}
		return
	case <-timer.C:
		go ask(second)
	}
	if err := <-answers; err != nil {
		b.Error(err)
	}
}
