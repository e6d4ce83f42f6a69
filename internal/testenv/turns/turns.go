// Package turns has benchmarks compare two ways of one thing on a machine whose speed changes meanwhile.
package turns

import (
	"slices"
	"testing"
	"time"
)

// Compare does a thing with something (0) and without (1), so many times in a turn and turn beside turn, by the given clock. It reports
// the median of each by the unit's name, and as "added-%" the median of one turn over the other beside it.
func Compare(b *testing.B, unit string, clock func() time.Duration, times int, do func(way int)) {
	b.Helper()
	var took [2][]time.Duration
	var over []float64
	for b.Loop() {
		for n := range took {
			way := (n + len(over)) % 2 // neither is always the first
			began := clock()
			for range times {
				do(way)
			}
			took[way] = append(took[way], (clock()-began)/time.Duration(times))
		}
		last := len(over)
		over = append(over, float64(took[0][last])/float64(took[1][last]))
	}
	slices.Sort(over)
	for i := range took {
		slices.Sort(took[i])
	}
	middle := len(over) / 2
	b.ReportMetric(float64(took[0][middle].Nanoseconds()), "with-"+unit)
	b.ReportMetric(float64(took[1][middle].Nanoseconds()), "without-"+unit)
	b.ReportMetric(100*(over[middle]-1), "added-%")
}
