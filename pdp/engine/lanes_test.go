package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// loops is a policy that allows alice, after a search through what is in the request's context.
const loops = `decision := {"allow": true} if {
	input.subject.id == "alice"
	count([1 | some x in input.context.list; some y in input.context.list; some z in input.context.list; x + y + z < 0]) == 0
}`

// short and long are questions of it; the latter takes longer than anybody waits for.
func short(action string) authzen.Request { return looping(action, 2) }

func long(action string) authzen.Request { return looping(action, 3_000) }

func looping(action string, n int) authzen.Request {
	r := ask("x", "1")
	list := make([]any, n)
	for i := range list {
		list[i] = json.Number("1")
	}
	r.Action.Name, r.Context["list"] = action, list
	return r
}

// S56
func TestPolicyThatTakesTooLongIsAnError(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{Deadline: 30 * time.Millisecond, Policies: module(loops)})
	start := time.Now()
	res, err := e.Evaluate(t.Context(), long("GET"))
	refused(t, res, err)
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

// S56, S62: what will not be decided in time is not put in force, where that can be known: by a case, or by what the rules themselves
// compare with.
func TestAPolicyThatWillTakeTooLongIsRefused(t *testing.T) {
	t.Parallel()
	const loop = `decision := {"allow": true} if {
	input.action.name == "SEARCH"
	some x in numbers.range(1, 30000)
	some y in numbers.range(1, 30000)
	x * y == -1
}
`
	for name, files := range map[string]map[string]string{
		"budget: an input that was made": {"gatehouse/authz.rego": "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\n" + loop},
		"golden: cases/loop.yaml:1: ": {
			"gatehouse/authz.rego": "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\n" + strings.Replace(loop, `"SEARCH"`, `concat("", ["SEA", "RCH"])`, 1),
			"cases/loop.yaml":      "somebody searches:\n  who: {id: alice}\n  asks: SEARCH /orders\n  decision: deny\n",
		},
	} {
		policies := fstest.MapFS{}
		for name, text := range files {
			policies[name] = &fstest.MapFile{Data: []byte(text)}
		}
		_, err := engine.Open(t.Context(), engine.Options{Deadline: 50 * time.Millisecond, Policies: policies, Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "longer than the 50ms") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// S56: questions for which a rule loops keep the places of others no longer than a moment, however many come.
func TestARuleThatLoopsKeepsNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	e := open(t, engine.Options{NoNative: true, NoPartial: true, Memory: -1, Deadline: time.Minute, Policies: module(loops)})
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	for range 4 * runtime.GOMAXPROCS(0) {
		flood.Go(func() {
			if res, err := e.Evaluate(ctx, long("GET")); err == nil || res.Decision {
				t.Errorf("decided %+v", res)
			}
		})
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !e.Crowded() {
		<-tick.C
	}
	for _, action := range []string{"PUT", "POST", "DELETE", "PUT", "POST", "DELETE"} {
		within, cancel := context.WithTimeout(t.Context(), 20*time.Second) // a third of what a place would be held
		if res, err := e.Evaluate(within, short(action)); err != nil || !res.Decision {
			t.Errorf("%s: %+v, %v", action, res.Context, errors.Unwrap(err))
		}
		cancel()
	}
	stop()
	flood.Wait()
	for range 3 * runtime.GOMAXPROCS(0) { // no place is lost
		if res, err := e.Evaluate(t.Context(), short("PUT")); err != nil || !res.Decision {
			t.Fatalf("%+v, %v", res, err)
		}
	}
}

// S56: a kind of question of which one after the other takes too long is refused without being evaluated, and no other; until one of
// it, that is tried now and then, ends.
func TestWhatTakesTooLongAgainAndAgainIsRefused(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]engine.Options{"topdown": {NoNative: true, NoPartial: true}, "native": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts.Policies, opts.Deadline, opts.Memory = module(loops), 200*time.Millisecond, -1
			e := open(t, opts)
			if by := e.Stats().EvaluatedBy; by != name {
				t.Fatalf("%s answers", by)
			}
			for end := time.Now().Add(time.Minute); e.Stats().Refused == 0; {
				res, err := e.Evaluate(t.Context(), long("GET"))
				if refused(t, res, err); time.Now().After(end) {
					t.Fatalf("never refused: %+v", e.Stats())
				}
			}
			if s, err := e.Stats(), e.Ready(); s.Shut != 1 || s.Late < 8 || !errors.Is(err, web.Degraded("")) || !strings.Contains(err.Error(), "1 kinds of questions") {
				t.Errorf("%+v, %v", s, err)
			}
			decides := func(action string) {
				tick := time.NewTicker(10 * time.Millisecond)
				defer tick.Stop()
				for end := time.Now().Add(time.Minute); ; <-tick.C {
					if res, err := e.Evaluate(t.Context(), short(action)); err == nil && res.Decision {
						return
					}
					if time.Now().After(end) {
						t.Fatalf("never decided: %s", action)
					}
				}
			}
			decides("PUT")
			if s := e.Stats(); s.Shut != 1 {
				t.Errorf("%+v", s)
			}
			decides("GET")
			if err := e.Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Whoever goes away, is late, loses its place or is refused gives back what it held, once: a place that is lost is one fewer for ever.
func TestNoPlaceIsLost(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]engine.Options{"topdown": {NoNative: true}, "native": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts.Deadline, opts.Policies = 80*time.Millisecond, module(loops)
			e := open(t, opts)
			var all sync.WaitGroup
			for i := range 12 {
				all.Go(func() {
					action := []string{"GET", "PUT", "POST"}[i%3]
					for turn := range 8 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+(i*7+turn*13)%100)*time.Millisecond)
						if (i+turn)%3 == 0 {
							_, _ = e.Evaluate(ctx, short(action))
						} else {
							_, _ = e.Evaluate(ctx, long(action))
						}
						cancel()
					}
				})
			}
			all.Wait()
			if shared, own := e.Held(); shared != 0 || own != 0 {
				t.Errorf("%d places are held, and %d of kinds' own, by nobody", shared, own)
			}
			if s := e.Stats(); name == "topdown" && s.Late == 0 {
				t.Error("nothing was late, so that nothing was put to the test")
			}
		})
	}
}
