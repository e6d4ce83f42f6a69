package engine_test

import (
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// BenchmarkWhatRuleIDsAdd is a denial of policies/ with the ids of its rules and without, turn by turn in one run; "added-%" is the
// median of one over that of the other.
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
			const turn = 500
			var took [2][]time.Duration
			for b.Loop() {
				for i, e := range engines {
					began := time.Now()
					for range turn {
						if res, err := e.Evaluate(b.Context(), denied); err != nil || res.Decision || (len(res.Context.Rules) == 2) != (i == 0) {
							b.Fatal(res, err)
						}
					}
					took[i] = append(took[i], time.Since(began)/turn)
				}
			}
			for i := range took {
				slices.Sort(took[i])
			}
			with, without := took[0][len(took[0])/2], took[1][len(took[1])/2]
			b.ReportMetric(float64(with.Nanoseconds()), "with-ns")
			b.ReportMetric(float64(without.Nanoseconds()), "without-ns")
			b.ReportMetric(100*(float64(with)/float64(without)-1), "added-%")
		})
	}
}
