package main

import (
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// BenchmarkEvaluate is Engine.Evaluate of each style by each form, beside package rego with inputs that are OPA's values already.
// Allocations and processor time are what to look at on a machine that does other things as well.
func BenchmarkEvaluate(b *testing.B) {
	all := evaluations(questions(20_000, 1000, 1))
	for _, style := range []string{typical, indexed, ruled, naive} {
		s := &bench{dir: b.TempDir(), users: 1000}
		dir, err := s.write(style, style, s.users, true)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(style+"/rego", func(b *testing.B) {
			q, err := rego.New(rego.Query(engine.Entrypoint), rego.Load([]string{dir}, nil), rego.StrictBuiltinErrors(true)).PrepareForEval(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			inputs := make([]rego.EvalOption, 1000)
			for i := range inputs {
				in, err := engine.Input(all[i].request, nil, time.Unix(0, 0))
				if err != nil {
					b.Fatal(err)
				}
				inputs[i] = rego.EvalParsedInput(in)
			}
			timed(b, func(i int) {
				results, err := q.Eval(b.Context(), inputs[i%len(inputs)], rego.EvalMetrics(metrics.NoOp()))
				if err != nil {
					b.Fatal(err)
				}
				if allow, _, err := engine.Decision(results); err != nil || allow != all[i%len(inputs)].want {
					b.Fatalf("%v (%v)", allow, err)
				}
			})
		})
		for _, form := range []struct {
			name   string
			change func(*engine.Options)
		}{
			{"topdown", func(o *engine.Options) { o.NoNative, o.NoPartial = true, true }},
			{"partial", func(o *engine.Options) { o.NoNative = true }},
			{"native", func(*engine.Options) {}},
		} {
			b.Run(style+"/"+form.name, func(b *testing.B) {
				e, err := open(b.Context(), dir, form.change)
				if err != nil {
					b.Fatal(err)
				}
				defer e.Close()
				decide := func(i int) {
					q := &all[i%len(all)]
					if res, err := e.Evaluate(b.Context(), q.request); err != nil || res.Decision != q.want {
						b.Fatalf("%v, want %v (%v)", res.Decision, q.want, err)
					}
				}
				for i := range 300 { // which may decide what is asked from then on
					decide(i)
				}
				timed(b, decide)
			})
		}
	}
}

func timed(b *testing.B, decide func(int)) {
	b.Helper()
	b.ReportAllocs()
	n, before := 0, cpuTime()
	for ; b.Loop(); n++ {
		decide(n)
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(n), "cpu-ns/op")
}
