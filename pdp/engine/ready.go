package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Feed is a source that Puts its policies.
type Feed struct {
	Name string
	// MaxStaleness is how long its policies may decide after it last said that there is nothing newer; 0 is for ever. Past
	// it, Ready fails.
	MaxStaleness time.Duration
	// DenyWhenStale denies every request then, with the reason "policies_stale".
	DenyWhenStale bool
}

// Stale is the reason of denials by DenyWhenStale.
const Stale = "policies_stale"

// stale answers those sources which have not confirmed their policies for too long.
func (e *Engine) stale(now time.Time) (names []string, deny bool) {
	for _, s := range e.bounded {
		confirmed := s.confirmed.Load()
		if confirmed == nil {
			continue // not loaded yet, so that there is nothing to be stale
		}
		// A clock that was set back must not keep old policies alive for long.
		if age := now.Sub(*confirmed); age > s.MaxStaleness || age < -s.MaxStaleness {
			names = append(names, s.Name)
			deny = deny || s.DenyWhenStale
		}
	}
	return names, deny
}

// Ready answers nil when the newest policies decide; a fault named "degraded" that says what is wrong with them when older ones
// do; and any other fault when there are none, or when they are older than their source's MaxStaleness.
func (e *Engine) Ready() error {
	e.telling.Lock()
	defer e.telling.Unlock()
	var troubles, unkept []string
	for _, name := range slices.Sorted(maps.Keys(e.sources)) {
		s := e.sources[name]
		prefix := ""
		if name != Folder {
			prefix = "Source " + name + ": "
		}
		if s.failure != nil {
			trouble := prefix + oneLine(s.failure)
			if s.pause.long > 0 {
				trouble += " It is tried again at " + s.pause.until.UTC().Format(time.RFC3339) + "."
			}
			troubles = append(troubles, trouble)
		}
		if s.away != nil {
			troubles = append(troubles, prefix+"away: "+oneLine(s.away))
		}
		if s.unkept != nil {
			unkept = append(unkept, prefix+"not kept for the next start: "+oneLine(s.unkept))
		}
	}
	why := strings.Join(troubles, " ")
	if e.current.Load() == nil {
		missing := ""
		for _, name := range slices.Sorted(maps.Keys(e.sources)) {
			if _, ok := e.offered[name]; !ok {
				missing += " Nothing yet from " + called(name) + "."
			}
		}
		return fault.New(fault.Unavailable, strings.TrimSpace("There are no policies to decide by."+missing+" "+why)).Named("not_loaded")
	}
	if names, deny := e.stale(e.opts.Now()); len(names) > 0 {
		then := "go on deciding"
		if deny {
			then = "deny everything"
		}
		return fault.New(fault.Unavailable, strings.TrimSpace(fmt.Sprintf("The policies of revision %s are too old and %s: nothing heard from %s. %s",
			e.Revision(), then, strings.Join(names, ", "), why))).Named("stale")
	}
	suspicion, shut := e.current.Load().suspicion(), e.lanes.shut()
	switch {
	case why == "" && len(unkept) > 0:
		return fault.New(fault.Unavailable, "The newest policies decide. "+strings.Join(unkept, " ")).Named("degraded")
	case why == "" && shut > 0:
		return fault.New(fault.Unavailable, fmt.Sprintf("The policies decide, but %d kinds of questions take them longer than %v and are refused; the log says which. %s", shut, e.opts.Deadline, suspicion)).Named("degraded")
	case why == "" && suspicion != "":
		return fault.New(fault.Unavailable, "The policies decide, by topdown. "+suspicion).Named("degraded")
	case why == "":
		return nil
	case slices.ContainsFunc(slices.Collect(maps.Values(e.sources)), func(s *state) bool { return s.failure != nil }):
		return fault.New(fault.Unavailable, "The policies have changed but do not load; revision "+e.Revision()+" goes on deciding. "+why).Named("degraded")
	default:
		return fault.New(fault.Unavailable, "Policies cannot be renewed; revision "+e.Revision()+" goes on deciding. "+why).Named("degraded")
	}
}
