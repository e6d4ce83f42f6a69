package main

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// BenchmarkEvaluate is Engine.Evaluate of each style by each form, beside package rego with inputs that are OPA's values already.
// Allocations and processor time are what to look at on a machine that does other things as well.
func BenchmarkEvaluate(b *testing.B) {
	all := evaluations(questions(1000, 1000, 1))
	for _, style := range []string{typical, indexed, ruled, naive} {
		s := &bench{dir: b.TempDir(), users: 1000}
		dir, err := s.write(style, style, s.users, true)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(style+"/rego", func(b *testing.B) {
			d, err := byRego(b.Context(), dir, all)
			if err != nil {
				b.Fatal(err)
			}
			timed(b, d)
		})
		for _, form := range []struct {
			name   string
			change func(*engine.Options)
		}{
			{"topdown", func(o *engine.Options) { o.NoNative, o.NoPartial = true, true }},
			{"partial", func(o *engine.Options) { o.NoNative = true }},
			{"native", func(*engine.Options) {}},
			{"hit", func(o *engine.Options) { o.Memory = engine.DefaultMemory }},
		} {
			b.Run(style+"/"+form.name, func(b *testing.B) {
				e, err := open(b.Context(), dir, form.change)
				if err != nil {
					b.Fatal(err)
				}
				defer e.Close()
				of := all
				if form.name == "hit" {
					of = all[:200]
				}
				d := decideBy(b.Context(), e, of)
				for i := range 1000 { // which may decide what is asked from then on
					if _, err := d.decide(i % len(of)); err != nil {
						b.Fatal(err)
					}
				}
				timed(b, d)
			})
		}
	}
}

func timed(b *testing.B, d decider) {
	b.Helper()
	b.ReportAllocs()
	n, before := 0, cpuTime()
	for ; b.Loop(); n++ {
		at := n % len(d.all)
		if allow, err := d.decide(at); err != nil || allow != d.all[at].want {
			b.Fatalf("%v, want %v (%v)", allow, d.all[at].want, err)
		}
	}
	b.ReportMetric(float64((cpuTime()-before).Nanoseconds())/float64(n), "cpu-ns/op")
}
