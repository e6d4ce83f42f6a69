package engine_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/turns"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// BenchmarkWhatRuleIDsAdd is a denial of policies/ with the ids of its rules and without, turn by turn in one run; "added-%" is the
// median of one turn over the other beside it.
func BenchmarkWhatRuleIDsAdd(b *testing.B) {
	denied := ask("order", "/orders")
	denied.Action.Name = "PATCH"
	for name, opts := range map[string]engine.Options{"remembered": {}, "native": {Memory: -1}, "topdown": {Memory: -1, NoNative: true, NoPartial: true}} {
		b.Run(name, func(b *testing.B) {
			opts.Policies, opts.Services, opts.Log = patient(b), map[string][]string{"orders": {"http://127.0.0.1:1"}}, slog.New(slog.DiscardHandler)
			var engines [2]*engine.Engine
			for i := range engines {
				e, err := engine.Open(b.Context(), opts)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(e.Close)
				engines[i] = e
			}
			engines[1].Speechless()
			begun := time.Now()
			turns.Compare(b, "ns", func() time.Duration { return time.Since(begun) }, 200, func(way int) {
				if res, err := engines[way].Evaluate(b.Context(), denied); err != nil || res.Decision || (len(res.Context.Rules) == 2) != (way == 0) {
					b.Fatal(res, err)
				}
			})
		})
	}
}
