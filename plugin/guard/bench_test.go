package guard_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// BenchmarkGuard is the guard alone on an allowed request whose token is remembered: neither Redis nor a decision point.
func BenchmarkGuard(b *testing.B) {
	w, clock := calm(), func() time.Time { return now }
	g, err := guard.New(config(), guard.Parts{
		Verifier:    guard.NewIssuers(clock, trusted("https://a.test", publish(b), clock)),
		Revocations: w, Limiter: w, Decider: allowing{}, Now: clock, NewID: func() string { return "d-edge" },
		Log: telemetry.Logger(&w.log, slog.LevelInfo),
	})
	if err != nil {
		b.Fatal(err)
	}
	r := request(func(r *guard.Request) { r.Header["authorization"] = []string{"Bearer " + token(b, "https://a.test")} })
	if v := g.Check(b.Context(), r); !v.Forward {
		b.Fatalf("denied: %s", v.Body)
	}
	b.ReportAllocs()
	for b.Loop() {
		g.Check(b.Context(), r)
	}
}

type allowing struct{}

func (allowing) Decide(context.Context, authzen.Request) (authzen.Response, error) {
	return authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-pdp"}}, nil
}
