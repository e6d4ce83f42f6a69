package decisionlog

import "testing"

// To give way to nobody wakes another processor for nothing, so that one enforcement point that asks alone must not pay for it.
func TestWhoWritesGivesWayOnlyWhileOthersComeAlong(t *testing.T) {
	t.Parallel()
	j := &Journal{}
	wrote := func(count, times int) bool {
		for range times {
			j.measure(count)
		}
		return j.joined.Load()
	}
	for _, step := range []struct {
		count, times int
		want         bool
	}{
		{1, 1000, false}, {2, 1, true}, {1, patience, true}, {3, 1, true}, {1, patience, true}, {1, 1, false}, {1, 1000, false}, {9, 1, true},
	} {
		if got := wrote(step.count, step.times); got != step.want {
			t.Errorf("after %d batches of %d: %v", step.times, step.count, got)
		}
	}
}
