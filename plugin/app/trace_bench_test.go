package app

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/spans"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// BenchmarkTrace is what the spans of one request cost, of a trace that is kept and of one that is not. Without a tracer nothing
// of it is done.
func BenchmarkTrace(b *testing.B) {
	for name, flag := range map[string]string{"kept": "01", "not kept": "00"} {
		b.Run(name, func(b *testing.B) {
			to := spans.Receive(b)
			t, err := tracing.New(tracing.Options{To: to.URL, Service: "bench", Delay: time.Hour, Lookup: func(string) (string, bool) { return "", false }, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				b.Fatal(err)
			}
			defer t.Close()
			v := &guard.Verdict{Forward: true, Decision: guard.Decision{Route: "orders", Code: "allowed", Stage: "forward", Allowed: true}}
			b.ReportAllocs()
			for b.Loop() {
				ctx, trace := tracer{t}.Begin(context.Background(), "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"+flag)
				for _, stage := range guard.Stages()[2:] {
					_, end := trace.Stage(ctx, stage)
					end("", false)
				}
				_ = trace.ID() + trace.Traceparent()
				trace.End(v)
			}
		})
	}
}
