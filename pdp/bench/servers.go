package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// servers compares both servers on every style that OPA can serve at all, and tells what remembered decisions are worth.
func (b *bench) servers(ctx context.Context, all []question, rounds int, each time.Duration) error {
	if err := b.ceiling(ctx, slices.Clone(all), rounds, each); err != nil {
		return err
	}
	fmt.Printf("\nOver a Unix socket, every decision logged, none remembered (%d rounds, medians)\n", rounds)
	fmt.Printf("%-28s %12s %12s %8s\n", "", "OPA", "gatehouse", "ratio")
	for _, style := range []string{typical, indexed, ruled} {
		if err := b.compare(ctx, style, all, rounds, each); err != nil {
			return err
		}
	}
	dir, err := b.write("authzen", typical, b.users, true)
	if err != nil {
		return err
	}
	pdp, err := b.startPDP(ctx, dir)
	if err != nil {
		return err
	}
	defer pdp.stop()
	requests := authZEN.requests(all)
	fmt.Printf("\nAuthZEN, typical policy, 16 connections\n%-28s %12s %12s\n", "", "decisions/s", "CPU µs")
	for _, again := range []float64{0, 0.9, 1} {
		var speed, cpu []float64
		for range rounds {
			r, err := (load{api: authZEN, requests: requests, conns: 16, time: each, again: again}).run(ctx, pdp)
			if err != nil {
				return err
			}
			speed, cpu = append(speed, r.perSecond), append(cpu, r.cpu)
		}
		fmt.Printf("%-28s %12.0f %12.1f\n", fmt.Sprintf("%.0f %% asked before", again*100), median(speed), median(cpu))
	}
	return nil
}

// compare asks both the same, in turns.
func (b *bench) compare(ctx context.Context, style string, all []question, rounds int, each time.Duration) error {
	dir, err := b.write(style, style, b.users, false)
	if err != nil {
		return err
	}
	opa, err := b.startOPA(ctx, dir)
	if err != nil {
		return err
	}
	defer opa.stop()
	pdp, err := b.startPDP(ctx, dir)
	if err != nil {
		return err
	}
	defer pdp.stop()
	requests := dataAPI.requests(all)
	many := load{api: dataAPI, requests: requests, conns: 16, time: each}
	one := load{api: dataAPI, requests: requests, conns: 1, time: each / 2}
	figures := map[*process]map[string][]float64{opa: {}, pdp: {}}
	for round := range rounds + 1 { // the first is for warmth
		for _, p := range []*process{opa, pdp} {
			busy, err := many.run(ctx, p)
			if err != nil {
				return err
			}
			quiet, err := one.run(ctx, p)
			if err != nil {
				return err
			}
			if round == 0 {
				continue
			}
			f := figures[p]
			for name, v := range map[string]float64{"cpu": busy.cpu, "speed": busy.perSecond, "p50": quiet.p50, "p99": quiet.p99} {
				f[name] = append(f[name], v)
			}
		}
	}
	for _, row := range [][2]string{{"cpu", "CPU µs per decision"}, {"speed", "decisions/s, 16 conns"}, {"p50", "p50 µs, 1 conn"}, {"p99", "p99 µs, 1 conn"}} {
		theirs, ours := median(figures[opa][row[0]]), median(figures[pdp][row[0]])
		fmt.Printf("%-28s %12.1f %12.1f %8.2f\n", style+": "+row[1], theirs, ours, ours/theirs)
	}
	fmt.Printf("%-28s %12d %12d\n", style+": RSS MB", opa.resident(), pdp.resident())
	return nil
}
