package author

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
)

// Bench is what a decision costs on this machine, with one processor and nothing remembered.
type Bench struct {
	Dir      string  `json:"policies"`
	Requests int     `json:"requests"` // different ones
	Rounds   int     `json:"rounds"`
	Cost     Cost    `json:"cost"`
	Mean     float64 `json:"mean_us"`
	Allocs   float64 `json:"allocs"` // of memory, each decision
	Bytes    float64 `json:"bytes"`
}

// Bench decides the cases, and what was logged, in turn for about so long, and each at least three times.
func (p *Policy) Bench(ctx context.Context, logged []Question, long time.Duration) (Bench, error) {
	on, err := p.program(ctx)
	if err != nil {
		return Bench{}, err
	}
	var inputs []ast.Value
	for _, c := range p.Cases {
		v, err := inputOf(c)
		if err != nil {
			return Bench{}, err
		}
		inputs = append(inputs, v)
	}
	for _, a := range repeated(logged) {
		v, err := a.value()
		if err != nil {
			return Bench{}, err
		}
		inputs = append(inputs, v)
	}
	if len(inputs) == 0 {
		return Bench{}, errors.New(p.Dir + ": there is nothing to decide: no cases, and no --decisions")
	}
	const least = 3
	took := make([]time.Duration, 0, 1<<16)
	decide := func(input ast.Value) time.Duration {
		within := on.at(ctx, input)
		start := time.Now()
		_, _ = on.query.Eval(within, rego.EvalParsedInput(input), rego.EvalMetrics(metrics.NoOp())) // one that cannot be decided costs what it costs
		return time.Since(start)
	}
	for _, input := range inputs { // warms up
		decide(input)
	}
	b := Bench{Dir: p.Dir, Requests: len(inputs)}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for ; b.Rounds < least || time.Since(began) < long; b.Rounds++ {
		for _, input := range inputs {
			took = append(took, decide(input))
		}
		if ctx.Err() != nil {
			return Bench{}, ctx.Err()
		}
		if len(took) > 1<<22 { // enough for any percentile
			b.Rounds++
			break
		}
	}
	runtime.ReadMemStats(&after)
	n := float64(len(took))
	b.Allocs, b.Bytes = float64(after.Mallocs-before.Mallocs)/n, float64(after.TotalAlloc-before.TotalAlloc)/n
	var sum time.Duration
	for _, d := range took {
		sum += d
	}
	b.Mean = float64(sum.Nanoseconds()) / 1000 / n
	slices.Sort(took)
	at := func(share float64) float64 { return float64(took[int(share*(n-1))].Nanoseconds()) / 1000 }
	b.Cost = Cost{at(0.50), at(0.99)}
	return b, nil
}
