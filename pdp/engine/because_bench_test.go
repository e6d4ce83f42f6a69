package engine_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

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
			const turn = 200
			var took [2][]time.Duration
			var over []float64
			for b.Loop() {
				for n := range engines {
					i := (n + len(over)) % 2 // neither is always the first
					e := engines[i]
					began := time.Now()
					for range turn {
						if res, err := e.Evaluate(b.Context(), denied); err != nil || res.Decision || (len(res.Context.Rules) == 2) != (i == 0) {
							b.Fatal(res, err)
						}
					}
					took[i] = append(took[i], time.Since(began)/turn)
				}
				last := len(over)
				over = append(over, float64(took[0][last])/float64(took[1][last]))
			}
			slices.Sort(over)
			for i := range took {
				slices.Sort(took[i])
			}
			b.ReportMetric(float64(took[0][len(over)/2].Nanoseconds()), "with-ns")
			b.ReportMetric(float64(took[1][len(over)/2].Nanoseconds()), "without-ns")
			b.ReportMetric(100*(over[len(over)/2]-1), "added-%")
		})
	}
}
