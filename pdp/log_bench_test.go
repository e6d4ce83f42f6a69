package main

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// nowhere is a sink that takes everything.
type nowhere struct{}

func (nowhere) Write(context.Context, [][]byte) error { return nil }
func (nowhere) Close() error                          { return nil }

// usualQuestion is what an enforcement point of Gatehouse asks, with the claims of a usual token.
func usualQuestion(kind string) authzen.Request {
	return authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "6f1c3f0e-8f56-4f3a-9f7e-0d4b6a2c9e11", Properties: map[string]any{
			"roles": []any{"customer", "support"}, "groups": []any{"sales"}, "tenant": "acme", "session": "0b6ed7f8-5ad1-4d0c-8c3a-64f2a0b1c7d9",
			"claims": map[string]any{"iss": "https://api.example.org", "client_id": "web", "scope": []any{"orders:read"}, "acr": "aal1", "amr": []any{"pwd"}},
		}},
		Action: authzen.Action{Name: "GET"},
		Resource: authzen.Resource{Type: kind, ID: "17", Properties: map[string]any{
			"route": "orders", "path": "/api/orders/17", "segments": []any{"api", "orders", "17"}, "params": map[string]any{"id": "17"},
		}},
		Context: map[string]any{"ip": "192.0.2.17", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "request_id": "4bf92f3577b34da6a3ce929d0e0e4736", "acr": "aal1"},
	}
}

// cpu is the processor time that the process has had. On a machine with others on it, it says more than the clock does; it has the
// writing and shipping in it that go on beside the decisions.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// running runs a journal until the benchmark ends, which must not have lost anything by then.
func running(b *testing.B, j *decisionlog.Journal) {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		if s := j.Stats(); s.Dropped+s.Refused > 0 {
			b.Errorf("%d dropped, %d refused", s.Dropped, s.Refused)
		}
	})
}

// BenchmarkWhatTheLogAdds is one decision, without the decision log and with it, on the same engine in the same run. An
// allowance that is not sampled has no record; each denial has.
func BenchmarkWhatTheLogAdds(b *testing.B) {
	dir, _ := folder(b, rules("order"))
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(b.Context(), engine.Options{Dir: dir, Memory: -1, Deadline: time.Minute, Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(e.Close)
	for _, c := range []struct {
		name     string
		when     decisionlog.WhenFull
		sync     time.Duration
		resource string
	}{
		{"allowed/off", "", 0, "order"}, {"allowed/block", decisionlog.Block, -1, "order"},
		{"denied/off", "", 0, "invoice"}, {"denied/drop", decisionlog.Drop, -1, "invoice"}, {"denied/block", decisionlog.Block, -1, "invoice"},
		{"denied/block and flush", decisionlog.Block, 0, "invoice"},
	} {
		for _, callers := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s/%d callers", c.name, callers), func(b *testing.B) {
				var asked server.Engine = e
				if c.when != "" {
					j, err := decisionlog.Open(decisionlog.Options{
						Dir: b.TempDir(), WhenFull: c.when, Sync: c.sync, Log: quiet, Sinks: map[string]decisionlog.Sink{"nowhere": nowhere{}},
					})
					if err != nil {
						b.Fatal(err)
					}
					running(b, j)
					asked = recording.In(j).Engine(e)
				}
				q := usualQuestion(c.resource)
				b.ReportAllocs()
				spent := cpu(b)
				b.Cleanup(func() { b.ReportMetric(float64((cpu(b)-spent).Nanoseconds())/float64(b.N), "cpu-ns/op") })
				b.SetParallelism(max(callers/runtime.GOMAXPROCS(0), 1))
				if callers == 1 {
					for b.Loop() {
						if _, err := asked.Evaluate(context.Background(), q); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := asked.Evaluate(context.Background(), q); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}
