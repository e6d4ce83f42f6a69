package author

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// What became of a mutant.
const (
	noticed  = "noticed"
	survived = "survived"
	timedOut = "timed out" // noticed: an author would not wait for it either
	invalid  = "invalid"   // it does not compile; no test is needed to notice
)

// DefaultDeadline is how long the tests of one mutant may take.
const DefaultDeadline = 10 * time.Second

// Mutation says which small mistakes in the rules and their data the tests would notice.
type Mutation struct {
	Score    float64  `json:"score"` // percent of those that compile
	Noticed  int      `json:"noticed"`
	TimedOut int      `json:"timed_out"` // among the noticed
	Invalid  int      `json:"invalid"`
	Survived []Mutant `json:"survived"`
}

// Mutant is a policy with one small mistake.
type Mutant struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Rule   string `json:"rule"` // or the place in data
	Kind   string `json:"kind"`
	Before string `json:"before"`
	After  string `json:"after,omitempty"`
}

type mutant struct {
	Mutant
	module string // the file of rules that differs, if one does
	edit   func() *ast.Module
	data   map[string]any // the data, if they differ
}

// Mutate runs the tests against every mutant of the policy, as many at a time as there are processors. The tests must pass without.
func (p *Policy) Mutate(ctx context.Context, deadline time.Duration) (Mutation, error) {
	compiled, err := p.program(ctx)
	if err != nil {
		return Mutation{}, err
	}
	all, err := p.mutants(compiled)
	if err != nil {
		return Mutation{}, err
	}
	outcomes := make([]string, len(all))
	errs := make([]error, len(all))
	parallel(ctx, len(all), func(i int) { outcomes[i], errs[i] = p.try(ctx, all[i], deadline) })
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return Mutation{}, err
	}
	m := Mutation{Survived: []Mutant{}}
	for i, outcome := range outcomes {
		switch outcome {
		case survived:
			m.Survived = append(m.Survived, all[i].Mutant)
		case invalid:
			m.Invalid++
		case timedOut:
			m.TimedOut++
			m.Noticed++
		default:
			m.Noticed++
		}
	}
	m.Score = percent(m.Noticed, m.Noticed+len(m.Survived))
	return m, nil
}

func (p *Policy) mutants(compiled *program) ([]mutant, error) {
	var all []mutant
	for _, name := range sorted(p.Modules) {
		m := p.Modules[name]
		ids := ruleid.Of(m)
		for i, r := range m.Rules {
			all = append(all, mutant{
				Mutant: Mutant{File: p.place(name), Line: r.Location.Row, Rule: ids[i], Kind: dropRule, Before: short(r.Head)},
				module: name, edit: func() *ast.Module {
					c := m.Copy()
					c.Rules = slices.Delete(c.Rules, i, i+1)
					return c
				},
			})
			for _, c := range ofRule(r) {
				at := r.Location
				if c.at != nil && c.at.Row > 0 {
					at = c.at
				}
				all = append(all, mutant{
					Mutant: Mutant{File: p.place(name), Line: at.Row, Rule: ids[i], Kind: c.kind, Before: c.before, After: c.after},
					module: name, edit: func() *ast.Module {
						copied := m.Copy()
						copied.Rules[i] = c.to.Copy()
						copied.Rules[i].Module = copied
						return copied
					},
				})
			}
		}
	}
	inData, err := p.dataMutants(compiled)
	return append(all, inData...), err
}

// try runs the tests until one notices m: first the cases, which are fast, then the Rego tests.
func (p *Policy) try(ctx context.Context, m mutant, deadline time.Duration) (string, error) {
	within, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	modules, data := p.allModules(), p.Data
	rules := p.Modules
	if m.edit != nil {
		modules[m.module] = m.edit()
		rules = maps.Clone(p.Modules)
		rules[m.module] = modules[m.module]
	}
	if m.data != nil {
		data = m.data
	}
	compiled, err := compile(within, rules, data, p.known, false)
	if err != nil {
		return invalid, nil //nolint:nilerr // a mutant that does not compile is one that the engine refuses
	}
	outcome := survived
	notice := func(r Result) bool {
		if r.Outcome == "fail" {
			outcome = noticed
		}
		return outcome == survived
	}
	s := suite{policy: p}
	err = s.cases(within, compiled, notice)
	if err == nil && outcome == survived && len(p.Tests) > 0 {
		if err = s.rego(within, modules, compiled.tests, notice); err != nil && within.Err() == nil {
			return invalid, nil // its tests do not compile
		}
	}
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case outcome == noticed:
		return noticed, nil
	case within.Err() != nil:
		return timedOut, nil
	}
	return outcome, err
}
