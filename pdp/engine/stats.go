package engine

import (
	"maps"
	"slices"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// Remembered answers how many decisions were remembered, and how many had to be made, since the start.
func (e *Engine) Remembered() (hits, misses uint64) { return e.tallies.sums() }

// Stats is how an engine is at one moment.
type Stats struct {
	Revision string
	Since    time.Time // when these policies began to decide
	Newest   bool      // whether they are the newest of each source; false while newer ones do not load
	Loads    uint64    // policies that came into force
	Failures uint64    // policies that did not, each counted once
	Lookups  map[lookup.Count]uint64

	EvaluatedBy string            // the form that is asked first: native, partial or topdown
	Evaluations map[string]uint64 // decisions and documents by the form that answered
	Left        uint64            // questions that native programs left to topdown
	Wrong       uint64            // times that a fast form answered otherwise than topdown, and was dropped

	Hits, Misses uint64 // decisions that were remembered, or had to be made

	Late    uint64 // evaluations that took too long
	Refused uint64 // questions that were not evaluated, since those of their kind took too long
	Shut    int    // kinds of questions that are refused now

	Sources []SourceStats // the folder, if there is one, and each Feed
}

// SourceStats is how a source of policies is.
type SourceStats struct {
	Name      string            // "folder" for the folder
	Confirmed time.Time         // when what decides was last known to be its newest; zero if it has sent nothing that decides
	Newest    bool              // whether its newest decides
	Away      bool              // whether it cannot be asked
	Unkept    bool              // whether what decides could not be kept for the next start
	Failures  map[string]uint64 // policies that did not come into force, by the step that refused them
}

// Stats tells how the engine is.
func (e *Engine) Stats() Stats {
	e.telling.Lock()
	defer e.telling.Unlock()
	hits, misses := e.Remembered()
	s := Stats{
		Revision: e.Revision(), Since: e.since, Newest: e.current.Load() != nil, Loads: e.loads, Failures: e.failures, Lookups: e.lookups.All(),
		Hits: hits, Misses: misses,
		Evaluations: map[string]uint64{byNative: e.counts.native.Load(), byPartial: e.counts.partial.Load(), byTopdown: e.counts.topdown.Load()},
		Left:        e.counts.left.Load(), Wrong: e.counts.wrong.Load(),
		Late: e.lanes.late.Load(), Refused: e.lanes.refused.Load(), Shut: e.lanes.shut(),
	}
	if snap := e.current.Load(); snap != nil {
		s.EvaluatedBy = snap.forms.name()
	}
	for _, name := range slices.Sorted(maps.Keys(e.sources)) {
		source := e.sources[name]
		of := SourceStats{Name: name, Newest: source.confirmed.Load() != nil && source.failure == nil, Away: source.away != nil, Unkept: source.unkept != nil, Failures: maps.Clone(source.failures)}
		if name == Folder {
			of.Name = "folder"
		}
		if at := source.confirmed.Load(); at != nil {
			of.Confirmed = *at
		}
		s.Sources = append(s.Sources, of)
		s.Newest = s.Newest && source.failure == nil
	}
	return s
}
