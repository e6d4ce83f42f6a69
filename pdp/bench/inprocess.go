package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/internal/memory"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// asked is a question as an evaluation request, decoded from JSON.
type asked struct {
	request authzen.Request
	want    bool
}

func evaluations(all []question) []asked {
	out := make([]asked, len(all))
	for i, q := range all {
		segments := make([]any, len(q.segments))
		for j, s := range q.segments {
			segments[j] = s
		}
		out[i] = asked{authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: userName(q.user), Properties: object{"attributes": object{"department": userDept(q.user)}}},
			Action:  authzen.Action{Name: q.method},
			Resource: authzen.Resource{Type: "item", ID: q.path(), Properties: object{
				"path": q.path(), "segments": segments, "owner": q.owner, "department": q.resDept,
			}},
			Context: object{"ip": q.ip, "asked_at": stampOf(q)},
		}, q.want}
	}
	return out
}

// open loads a folder into an engine of this process.
func open(ctx context.Context, dir string, change func(*engine.Options)) (*engine.Engine, error) {
	opts := engine.Options{Dir: dir, Memory: -1, Deadline: time.Minute, Log: slog.New(slog.DiscardHandler)}
	change(&opts)
	return engine.Open(ctx, opts)
}

// cpuTime is what this process has used of processors.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // it fails for wrong arguments alone
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// decider answers the nth of so many questions.
type decider struct {
	decide func(n int) (bool, error)
	all    []asked
}

func decideBy(ctx context.Context, e *engine.Engine, all []asked) decider {
	return decider{func(n int) (bool, error) {
		res, err := e.Evaluate(ctx, all[n].request)
		return res.Decision, err
	}, all}
}

// byRego is package rego as others embed it: the folder as OPA itself loads it, and inputs that are OPA's values already.
func byRego(ctx context.Context, dir string, all []asked) (decider, error) {
	q, err := rego.New(rego.Query(engine.Entrypoint), rego.Load([]string{dir}, nil), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return decider{}, err
	}
	inputs := make([]rego.EvalOption, len(all))
	for i := range all {
		in, err := engine.Input(all[i].request, nil, time.Unix(0, 0))
		if err != nil {
			return decider{}, err
		}
		inputs[i] = rego.EvalParsedInput(in)
	}
	return decider{func(n int) (bool, error) {
		results, err := q.Eval(ctx, inputs[n], rego.EvalMetrics(metrics.NoOp()))
		if err != nil {
			return false, err
		}
		allow, _, err := engine.Decision(results)
		return allow, err
	}, all}, nil
}

// measure answers what a decision costs, in µs of processor time, and checks each.
func measure(d decider, length time.Duration) (float64, error) {
	n, before, until := 0, cpuTime(), time.Now().Add(length)
	for time.Now().Before(until) {
		for range min(20, len(d.all)) {
			at := n % len(d.all)
			allow, err := d.decide(at)
			if err != nil {
				return 0, err
			}
			if allow != d.all[at].want {
				return 0, fmt.Errorf("decided %v where the reference says %v", allow, d.all[at].want)
			}
			n++
		}
	}
	return float64((cpuTime() - before).Nanoseconds()) / float64(n) / 1e3, nil
}

// paced has garbage collected as gatehouse-pdp has it, for package rego as well, until stop is called. GOGC goes before that.
func paced(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	before := debug.SetGCPercent(100)
	debug.SetGCPercent(before)
	all.Go(func() { _ = memory.Pacer{}.Run(ctx) })
	return func() {
		cancel()
		all.Wait()
		debug.SetGCPercent(before)
	}
}

// inProcess measures Engine.Evaluate without HTTP, by each of its ways to an answer, beside package rego.
func (b *bench) inProcess(ctx context.Context, questions []question, rounds int) error {
	defer paced(ctx)()
	all := evaluations(questions[:min(len(questions), 1000)]) // who decides on a request has just read it: not more than stay near the processor
	fmt.Printf("\nIn process, Engine.Evaluate, CPU µs per decision (%d rounds, medians; GOGC=100 for Go's own pace of collecting)\n%-20s %10s %10s %10s %10s %10s\n", rounds, "", "OPA's rego", "topdown", "partial", "native", "hit")
	ways := []func(*engine.Options){
		func(o *engine.Options) { o.NoNative, o.NoPartial = true, true },
		func(o *engine.Options) { o.NoNative = true },
		func(*engine.Options) {},
		func(o *engine.Options) { o.Memory = engine.DefaultMemory },
	}
	for _, style := range []string{typical, indexed, ruled, naive} {
		dir, err := b.write("process-"+style, style, b.users, true)
		if err != nil {
			return err
		}
		plain, err := byRego(ctx, dir, all)
		if err != nil {
			return err
		}
		deciders, by := []decider{plain}, "rego"
		for i, way := range ways {
			e, err := open(ctx, dir, way)
			if err != nil {
				return err
			}
			defer e.Close()
			of := all
			if i == len(ways)-1 {
				of = all[:min(len(all), 200)]
			}
			deciders = append(deciders, decideBy(ctx, e, of))
			if _, err := measure(decideBy(ctx, e, all), 100*time.Millisecond); err != nil { // which may decide what is asked from then on
				return err
			}
			by += " " + e.Stats().EvaluatedBy
		}
		times := make([][]float64, len(deciders))
		for range rounds {
			for i, d := range deciders {
				t, err := measure(d, 200*time.Millisecond)
				if err != nil {
					return err
				}
				times[i] = append(times[i], t)
			}
		}
		fmt.Printf("%-20s", style)
		for _, t := range times {
			fmt.Printf(" %10.2f", median(t))
		}
		fmt.Println("  (" + by + ")")
	}
	return nil
}

// heap is what is alive.
func heap() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// usersFor have so many bindings together.
func usersFor(bindings int) int { return max(bindings*2/5, 1) }

// growth measures one policy with a thousand bindings, and with many.
func (b *bench) growth(ctx context.Context, bindings, rounds int) error {
	if bindings == 0 {
		return nil
	}
	fmt.Printf("\nRole bindings, indexed policy, in process\n%-28s %10s %10s %10s\n", "", "p50 µs", "heap MB", "load s")
	for _, n := range []int{1000, bindings} {
		users := usersFor(n)
		dir, err := b.write(fmt.Sprintf("growth-%d", n), indexed, users, true)
		if err != nil {
			return err
		}
		all := evaluations(questions(2000, users, 7))
		before, began := heap(), time.Now()
		e, err := open(ctx, dir, func(*engine.Options) {})
		if err != nil {
			return err
		}
		took, alive := time.Since(began), heap()-before
		var medians []float64
		for range rounds {
			times := make([]float64, 0, 10*len(all))
			for i := range 10 * len(all) {
				q := &all[i%len(all)]
				at := time.Now()
				res, err := e.Evaluate(ctx, q.request)
				times = append(times, float64(time.Since(at).Nanoseconds())/1e3)
				if err != nil || res.Decision != q.want {
					return errors.Join(err, fmt.Errorf("decided %v where the reference says %v", res.Decision, q.want))
				}
			}
			medians = append(medians, median(times))
		}
		fmt.Printf("%-28d %10.2f %10.1f %10.2f\n", n, median(medians), alive, took.Seconds())
		e.Close()
		runtime.KeepAlive(e)
	}
	return nil
}
