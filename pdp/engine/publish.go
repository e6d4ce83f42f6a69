package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/budget"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
	"github.com/gatehouse-auth/gatehouse/pdp/schema"
)

// Steps that ask more of policies than that they work. Options.Skip can leave them out.
const (
	StepSchema = "schema" // rules speak of input and data that there are
	StepGolden = "golden" // the decisions in cases/ come out as written
	StepBudget = "budget" // decisions cost no more than they may, and search through nothing that grows
)

func skippable() []string { return []string{StepSchema, StepGolden, StepBudget} }

// aside reports whether a file of a policy folder says something about the policy and is no data of it.
func aside(file string) bool {
	return file == schema.File || file == budget.File || strings.HasPrefix(file, golden.Dir+"/")
}

func (e *Engine) skips(step string) bool { return slices.Contains(e.opts.Skip, step) }

// conform checks each part's rules against the schema of that part.
func (e *Engine) conform(ps parts, src source, compiler *ast.Compiler) error {
	if e.skips(StepSchema) {
		return nil
	}
	var problems []schema.Problem
	for _, source := range slices.Sorted(maps.Keys(ps)) {
		p := ps[source]
		known, err := schemaOf(p)
		if err != nil {
			return err
		}
		known.OtherInputs = e.opts.OtherInputs
		if e.alone && p.Roots != nil {
			known.Outside = func(at string) bool { return !leads(at, p.Roots) }
		}
		var modules []string
		for file := range p.Files {
			if name := p.at(file); src.modules[name] != nil {
				modules = append(modules, name)
			}
		}
		problems = append(problems, known.Check(compiler, ast.MustParseRef(Entrypoint), src.data, modules)...)
	}
	return listed(slices.DeleteFunc(problems, func(p schema.Problem) bool { return !p.Sure }))
}

// leads reports whether a path is on the way to one of the roots, or below one.
func leads(at string, roots []string) bool {
	return bundle.RootPathsContain(roots, at) || slices.ContainsFunc(roots, func(r string) bool { return strings.HasPrefix(r, at+"/") })
}

func schemaOf(p Part) (*schema.Schema, error) {
	if text, ok := p.Files[schema.File]; ok {
		return schema.Over(p.at(schema.File), text)
	}
	return schema.Base(), nil
}

// listed are the first of what was found, one a line: an operator reads them in /readyz.
func listed[T fmt.Stringer](found []T) error {
	const most = 5
	if len(found) == 0 {
		return nil
	}
	var errs []error
	for _, f := range found[:min(most, len(found))] {
		errs = append(errs, errors.New(f.String()))
	}
	if more := len(found) - most; more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// cases are the golden decisions of all parts.
func (ps parts) cases() ([]golden.Case, error) {
	var all []golden.Case
	var errs []error
	for _, source := range slices.Sorted(maps.Keys(ps)) {
		p := ps[source]
		for _, file := range slices.Sorted(maps.Keys(p.Files)) {
			if !strings.HasPrefix(file, golden.Dir+"/") || path.Ext(file) != ".yaml" {
				continue
			}
			more, err := golden.Parse(p.at(file), p.Files[file])
			all, errs = append(all, more...), append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// text is a Stringer.
type text string

func (t text) String() string { return string(t) }

// agree decides the cases, and answers which come out otherwise than written.
func (e *Engine) agree(ctx context.Context, ps parts, query rego.PreparedEvalQuery) error {
	if e.skips(StepGolden) {
		return nil
	}
	all, err := ps.cases()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(ctx, e.opts.Tests))
	defer cancel()
	var failed []text
	for _, c := range all {
		input, err := inputOfCase(c)
		if err != nil {
			return err
		}
		d := golden.Decision{}
		var results rego.ResultSet
		inTime, err := e.inTime(ctx, func(ctx context.Context) error {
			results, err = query.Eval(atTimeOf(ctx, c), rego.EvalParsedInput(input), rego.EvalTime(c.At), rego.EvalMetrics(metrics.NoOp()))
			return err
		})
		if ctx.Err() != nil {
			return fmt.Errorf("%s: after %v: %w", c.Place(), e.opts.Tests, ctx.Err())
		}
		if !inTime {
			failed = append(failed, text(fmt.Sprintf("%s: takes longer than the %v that a decision may", c.Place(), e.opts.Deadline)))
			continue
		}
		if d.Err = err; err == nil {
			var about authzen.ResponseContext
			d.Allow, about, d.Err = Decision(results)
			d.Reasons = about.Reasons
		}
		if why := c.Met(d); why != "" {
			failed = append(failed, text(c.Place()+": "+why))
		}
		pace.Breathe(ctx)
	}
	return listed(failed)
}

// inTime evaluates, and answers whether that takes no longer than it may when it decides. The first time may be slow, for it is the
// first of a snapshot; and of the others one is enough, for the machine may be busy.
func (e *Engine) inTime(ctx context.Context, evaluate func(context.Context) error) (bool, error) {
	const tries = 3
	limit := max(e.opts.Deadline, time.Second)
	for try := 1; ; try++ {
		within, cancel := context.WithTimeout(ctx, limit)
		began := time.Now()
		err := evaluate(within)
		late := within.Err() != nil || time.Since(began) > e.opts.Deadline
		cancel()
		if !late || try == tries || ctx.Err() != nil {
			return !late, err
		}
		limit = e.opts.Deadline
	}
}

// neverInTime answers for the probe at which there was no more time whether that is because of the probe.
func (e *Engine) neverInTime(ctx context.Context, q *rego.PreparedEvalQuery, probe any) error {
	if e.skips(StepBudget) {
		return nil
	}
	in, err := e.inTime(ctx, func(ctx context.Context) error {
		_, err := q.Eval(ctx, rego.EvalInput(probe), rego.EvalMetrics(metrics.NoOp()))
		return err
	})
	if in || ctx.Err() != nil { // what else an evaluation says is no matter here
		return nil //nolint:nilerr // see above
	}
	return fmt.Errorf("an input that was made of what the rules compare with takes longer than the %v that a decision may (%w); what loops over what? See gatehouse-pdp price", e.opts.Deadline, placeOf(err))
}

// atTimeOf has a case see who holds what at its time.
func atTimeOf(ctx context.Context, c golden.Case) context.Context {
	if made, ok := ctx.Value(consultedKey{}).(*consulted); ok {
		return seeing(ctx, made.view, c.At)
	}
	return ctx
}

func inputOfCase(c golden.Case) (ast.Value, error) {
	v, err := Input(c.Request(), c.Found(), c.At)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Place(), err)
	}
	return v, nil
}

// afford looks for searches that may become dear, and measures what has a budget.
func (e *Engine) afford(ctx context.Context, ps parts, src source, compiler *ast.Compiler, query rego.PreparedEvalQuery) error {
	if e.skips(StepBudget) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(ctx, e.opts.Tests))
	defer cancel()
	deciding := schema.Deciding(compiler, ast.MustParseRef(Entrypoint))
	for _, source := range slices.Sorted(maps.Keys(ps)) {
		p := ps[source]
		limits := budget.Limits{}
		if text, ok := p.Files[budget.File]; ok {
			var err error
			if limits, err = budget.Parse(p.at(budget.File), text); err != nil {
				return err
			}
		}
		if limits.Scan == 0 {
			limits.Scan = budget.DefaultScan
		}
		var found []text
		for r := range deciding {
			if r.Location == nil || !p.has(r.Location.File) {
				continue
			}
			for _, scan := range budget.Scans(compiler, src.data, r) {
				if why := scan.TooMuch(limits, false); why != "" {
					found = append(found, text(fmt.Sprintf("%s:%d: %s", scan.At.File, scan.At.Row, why)))
				}
			}
		}
		slices.Sort(found)
		if err := listed(slices.Compact(found)); err != nil {
			return err
		}
		cases, err := ps.cases()
		if err != nil {
			return err
		}
		costs, err := limits.Measure(ctx, query, cases, inputOfCase)
		if err != nil {
			return fmt.Errorf("%s: %w", p.at(budget.File), err)
		}
		if err := budget.Exceeded(p.at(budget.File), costs); err != nil {
			return err
		}
	}
	return nil
}

// has reports whether a file, as it is called in errors, is one of the part's.
func (p Part) has(name string) bool {
	if p.Source != Folder {
		var ok bool
		if name, ok = strings.CutPrefix(name, p.Source+":"); !ok {
			return false
		}
	}
	return p.Files[name] != nil
}
