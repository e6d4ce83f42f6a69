package author

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/budget"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Prices are what a policy costs on its cases, on this machine.
type Prices struct {
	Requests int     `json:"requests"` // different ones
	Floor    Cost    `json:"floor"`    // of an evaluation of nothing
	Decision Cost    `json:"decision"`
	Rules    []Price `json:"rules"` // the dearest first

	Budgets []budget.Cost `json:"budgets,omitempty"` // those of budget.yaml
}

// Cost is of one evaluation.
type Cost struct {
	P50 float64 `json:"p50_us"`
	P99 float64 `json:"p99_us"`
}

// Price is what all rules of one name cost, with all that they call.
type Price struct {
	ID      string   `json:"id"`
	File    string   `json:"file"`
	Line    int      `json:"line"`
	Cost    Cost     `json:"cost"`
	Rules   int      `json:"rules"`            // of this name, without the default
	Tried   float64  `json:"tried"`            // of them, on the mean: the index leaves the others out
	Indexed bool     `json:"indexed"`          // the index leaves some out
	Advice  []string `json:"advice,omitempty"` // what would make it cheaper
}

// Price decides the cases again and again, each rule for about the time that is given.
func (p *Policy) Price(ctx context.Context, each time.Duration) (Prices, error) {
	compiled, err := p.program(ctx)
	if err != nil {
		return Prices{}, err
	}
	var inputs []ast.Value
	for i := range p.Cases {
		input, err := inputOf(p.Cases[i])
		if err != nil {
			return Prices{}, err
		}
		if !slices.ContainsFunc(inputs, func(v ast.Value) bool { return v.Compare(input) == 0 }) {
			inputs = append(inputs, input)
		}
	}
	if len(inputs) == 0 {
		return Prices{}, errors.New("there are no cases to decide")
	}
	all := Prices{Requests: len(inputs)}
	if all.Floor, err = compiled.measure(ctx, "true", inputs, each); err != nil {
		return Prices{}, err
	}
	if all.Decision, err = compiled.measure(ctx, engine.Entrypoint, inputs, each); err != nil {
		return Prices{}, err
	}
	data, err := ast.InterfaceToValue(p.Data)
	if err != nil {
		return Prices{}, err
	}
	scans, err := p.scans(compiled)
	if err != nil {
		return Prices{}, err
	}
	for _, name := range sorted(p.Modules) {
		m := p.Modules[name]
		seen := map[string]bool{}
		for _, r := range m.Rules {
			ref := m.Package.Path.Extend(r.Head.Ref().GroundPrefix())
			if seen[ref.String()] || len(r.Head.Args) > 0 {
				continue // a function costs nothing until it is called, and then that is its caller's
			}
			seen[ref.String()] = true
			price := Price{ID: strings.TrimPrefix(ref.String(), "data."), File: p.place(name), Line: r.Location.Row}
			if price.Cost, err = compiled.measure(ctx, ref.String(), inputs, each); err != nil {
				return Prices{}, err
			}
			price.index(compiled, ref, inputs, data)
			price.Advice = append(price.Advice, scans[ref.String()]...)
			all.Rules = append(all.Rules, price)
		}
	}
	limits, err := p.budget()
	if err != nil {
		return Prices{}, err
	}
	if all.Budgets, err = limits.Measure(ctx, compiled.query, p.Cases, inputOf); err != nil {
		return Prices{}, fmt.Errorf("%s: %w", p.place(budget.File), err)
	}
	slices.SortStableFunc(all.Rules, func(a, b Price) int { return cmp.Compare(b.Cost.P50, a.Cost.P50) })
	return all, nil
}

// measure evaluates a query with all inputs in turn, for so long, but each at least three times.
func (p *program) measure(ctx context.Context, query string, inputs []ast.Value, long time.Duration) (Cost, error) {
	prepared, err := rego.New(rego.Query(query), rego.Compiler(p.compiler), rego.Store(p.store)).PrepareForEval(ctx)
	if err != nil {
		return Cost{}, err
	}
	const least, most = 3, 2000 // rounds
	var took []time.Duration
	began := time.Now()
	for round := 0; round < most && (round < least || time.Since(began) < long); round++ {
		for _, input := range inputs {
			within := p.at(ctx, input)
			start := time.Now()
			_, err := prepared.Eval(within, rego.EvalParsedInput(input), rego.EvalMetrics(metrics.NoOp()))
			d := time.Since(start)
			if ctx.Err() != nil {
				return Cost{}, ctx.Err()
			}
			if err == nil && round > 0 { // the first warms up; a case may be one that cannot be decided
				took = append(took, d)
			}
		}
	}
	slices.Sort(took)
	at := func(share float64) float64 {
		if len(took) == 0 {
			return 0
		}
		return float64(took[int(share*float64(len(took)-1))].Nanoseconds()) / 1000
	}
	return Cost{at(0.50), at(0.99)}, nil
}

// index asks OPA's index how many rules of a name it would try.
func (price *Price) index(p *program, ref ast.Ref, inputs []ast.Value, data ast.Value) {
	for _, r := range p.compiler.GetRulesExact(ref) {
		if !r.Default {
			price.Rules++
		}
	}
	if price.Rules == 0 { // the rules of an object or set are deeper
		price.Rules = len(p.compiler.GetRules(ref))
	}
	price.Tried = float64(price.Rules)
	index := p.compiler.RuleIndex(ref)
	if index == nil {
		return
	}
	tried := 0
	for _, input := range inputs {
		found, err := index.Lookup(resolver{input, data})
		if err != nil {
			return
		}
		tried += len(found.Rules)
		for _, more := range found.Else {
			tried += len(more)
		}
	}
	price.Tried = float64(tried) / float64(len(inputs))
	const some = 0.05 // of a rule
	price.Indexed = price.Tried < float64(price.Rules)-some
	const many = 8 // rules; below, an index is no cheaper than trying
	if !price.Indexed && price.Rules >= many {
		price.Advice = append(price.Advice, "begin each rule by comparing the input with a constant (==, in, startswith), so that the index can leave the others out")
	}
}

// resolver finds for OPA's index what its rules look at.
type resolver struct {
	input, data ast.Value
}

// Resolve answers nil for what is undefined.
func (r resolver) Resolve(ref ast.Ref) (ast.Value, error) {
	from := r.input
	switch {
	case ref.HasPrefix(ast.InputRootRef):
	case ref.HasPrefix(ast.DefaultRootRef):
		from = r.data
	default:
		return nil, ast.UnknownValueErr{}
	}
	v, err := from.Find(ref[1:])
	if err != nil {
		return nil, nil //nolint:nilerr // not there
	}
	return v, nil
}

// scans are the searches through data, by rule.
func (p *Policy) scans(compiled *program) (map[string][]string, error) {
	limits, err := p.budget()
	if err != nil {
		return nil, err
	}
	all := map[string][]string{}
	for _, name := range sorted(compiled.compiler.Modules) {
		m := compiled.compiler.Modules[name]
		for _, r := range m.Rules {
			ref := m.Package.Path.Extend(r.Head.Ref().GroundPrefix()).String()
			for _, scan := range budget.Scans(compiled.compiler, p.Data, r) {
				if why := scan.TooMuch(limits, true); why != "" {
					all[ref] = merge(all[ref], []string{why})
				}
			}
		}
	}
	return all, nil
}
