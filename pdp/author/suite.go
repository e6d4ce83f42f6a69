package author

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Kinds of tests.
const (
	KindRego   = "rego"
	KindCase   = "case"
	KindMatrix = "matrix"
)

// Result is one test that ran.
type Result struct {
	Kind    string        `json:"kind"`
	Name    string        `json:"name"`
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Outcome string        `json:"outcome"` // pass, fail, skip
	Why     string        `json:"why,omitempty"`
	Took    time.Duration `json:"took_ns"`
}

// Report is what a run of the tests found.
type Report struct {
	Results  []Result  `json:"results"`
	Coverage *Coverage `json:"coverage,omitempty"`
	Mutation *Mutation `json:"mutation,omitempty"`
}

// Failed are the tests that did not pass.
func (r Report) Failed() []Result {
	return slices.DeleteFunc(slices.Clone(r.Results), func(one Result) bool { return one.Outcome != "fail" })
}

// Test runs the Rego tests, cases and matrices whose names only matches (nil: all), and looks at what they cover if asked to.
func (p *Policy) Test(ctx context.Context, only *regexp.Regexp, coverage bool) (Report, error) {
	compiled, err := p.program(ctx)
	if err != nil {
		return Report{}, err
	}
	var seen *cover.Cover
	if coverage {
		seen = cover.New()
	}
	s := suite{policy: p, only: only, cover: seen}
	var report Report
	err = s.rego(ctx, p.allModules(), compiled.tests, func(r Result) bool {
		report.Results = append(report.Results, r)
		return true
	})
	if err != nil {
		return Report{}, placed(p.Dir, err)
	}
	slices.SortFunc(report.Results, func(a, b Result) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	err = s.cases(ctx, compiled, func(r Result) bool {
		report.Results = append(report.Results, r)
		return true
	})
	if err != nil {
		return Report{}, err
	}
	if coverage {
		c := p.coverage(seen)
		report.Coverage = &c
	}
	return report, nil
}

// suite runs what tests a policy, against it or against mutants of it.
type suite struct {
	policy *Policy
	only   *regexp.Regexp
	cover  *cover.Cover
}

func (s *suite) wanted(name string) bool { return s.only == nil || s.only.MatchString(name) }

// cases decides the cases and matrices until yield answers false.
func (s *suite) cases(ctx context.Context, on *program, yield func(Result) bool) error {
	for i := range s.policy.Cases {
		c := &s.policy.Cases[i]
		if !s.wanted(c.Title) {
			continue
		}
		input, err := inputOf(*c)
		if err != nil {
			return err
		}
		opts := []rego.EvalOption{rego.EvalTime(c.At)}
		if s.cover != nil {
			opts = append(opts, rego.EvalQueryTracer(s.cover))
		}
		began := time.Now()
		r := Result{Kind: kindOfCase(*c), Name: c.Title, File: c.File, Line: c.Line, Outcome: "pass"}
		d := on.decide(ctx, input, opts...)
		r.Took = time.Since(began)
		if err := ctx.Err(); err != nil {
			return err
		}
		if r.Why = c.Met(d); r.Why != "" {
			r.Outcome = "fail"
		}
		if !yield(r) {
			return nil
		}
	}
	return nil
}

func kindOfCase(c Case) string {
	if c.Cell() {
		return KindMatrix
	}
	return KindCase
}

// rego runs the *_test.rego until yield answers false. The error is that of compiling them, or ctx's.
func (s *suite) rego(ctx context.Context, modules map[string]*ast.Module, store storage.Store, yield func(Result) bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	runner := tester.NewRunner().SetCompiler(ast.NewCompiler().WithCapabilities(engine.Capabilities())).SetParallel(1).
		SetStore(store).SetModules(modules).SetTimeout(time.Minute).RaiseBuiltinErrors(false)
	if s.cover != nil {
		runner.SetCoverageQueryTracer(s.cover)
	}
	if s.only != nil {
		runner.Filter(s.only.String())
	}
	return storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		results, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		var ended error
		more := true
		for r := range results { // to the end: the runner waits for its reader
			if !more {
				continue
			}
			if ended = ctx.Err(); ended != nil {
				more = false
				continue
			}
			if more = yield(s.result(r)); !more {
				cancel()
			}
		}
		if more {
			return ctx.Err()
		}
		return ended
	})
}

func (s *suite) result(r *tester.Result) Result {
	out := Result{
		Kind: KindRego, Name: r.Package + "." + r.Name, File: s.policy.place(r.Location.File), Line: r.Location.Row,
		Outcome: "pass", Took: r.Duration,
	}
	switch {
	case r.Skip:
		out.Outcome = "skip"
	case r.Error != nil:
		out.Outcome, out.Why = "fail", oneLine(r.Error)
	case r.Fail:
		out.Outcome, out.Why = "fail", fmt.Sprintf("%s does not hold", r.Name)
	}
	return out
}
