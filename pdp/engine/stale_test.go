package engine_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// S58: while rules are published, the directory changes and many ask, no answer is by rules or facts from before those that were in
// force when it was asked for, nor by those that had not come yet when it was answered.
func TestNoAnswerIsByRulesOrFactsFromBeforeItWasAskedFor(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]engine.Options{"native": {}, "topdown": {NoNative: true}, "as written": {NoNative: true, NoPartial: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := directory.Fixed(viewOf(t, staff), directory.Options{})
			opts.Directory, opts.Feeds = d, []engine.Feed{{Name: "rules"}}
			e := open(t, opts)
			var rules, facts atomic.Int64
			publish := func(n int64) {
				part := engine.Part{Source: "rules", Files: map[string][]byte{"gatehouse/authz.rego": fmt.Appendf(nil, `package gatehouse.authz

default decision := {"allow": false, "reasons": ["none", "none"]}

decision := {"allow": true, "reasons": ["%d", data.directory.subjects[input.subject.id].attributes.manager]} if input.action.name == "GET"
`, n)}}
				if err := e.Put(t.Context(), part); err != nil {
					t.Error(err)
				}
				rules.Store(n)
			}
			change := func(n int64) {
				changed(t, d, person("alice", strconv.FormatInt(n, 10), "clerk"))
				facts.Store(n)
			}
			change(1)
			publish(1)
			done := make(chan struct{})
			var all sync.WaitGroup
			for range 2 {
				all.Go(func() {
					r := ask("order", "1")
					for {
						select {
						case <-done:
							return
						default:
						}
						fromRules, fromFacts := rules.Load(), facts.Load()
						res, err := e.Evaluate(t.Context(), r)
						toRules, toFacts := rules.Load()+1, facts.Load()+1 // the next may be in force and not counted yet
						if err != nil || !res.Decision || len(res.Context.Reasons) != 2 {
							t.Errorf("%+v, %v", res.Context, err)
							return
						}
						byRules, _ := strconv.ParseInt(res.Context.Reasons[0], 10, 64)
						byFacts, _ := strconv.ParseInt(res.Context.Reasons[1], 10, 64)
						if byRules < fromRules || byRules > toRules || byFacts < fromFacts || byFacts > toFacts {
							t.Errorf("by rules %d of %d to %d, and facts %d of %d to %d", byRules, fromRules, toRules, byFacts, fromFacts, toFacts)
							return
						}
					}
				})
			}
			for n := int64(2); n < 5; n++ {
				publish(n)
				for range 50 {
					change(facts.Load() + 1)
				}
			}
			close(done)
			all.Wait()
			if hits, _ := e.Remembered(); hits == 0 {
				t.Error("nothing was remembered, so that nothing was put to the test")
			}
		})
	}
}
