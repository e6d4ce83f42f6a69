package command

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func test(ctx context.Context, in *invocation) (int, error) {
	run := in.flags.String("run", "", "only tests whose names match this regular expression")
	verbose := in.flags.Bool("v", false, "name the tests that pass, too")
	coverage := in.flags.Bool("coverage", false, "say which lines no test evaluates")
	leastCoverage := in.flags.Float64("min-coverage", 0, "percent of lines below which to fail; implies --coverage")
	mutate := in.flags.Bool("mutate", false, "make small mistakes in rules and data, and say which of them no test notices")
	leastScore := in.flags.Float64("min-mutation", 0, "percent of noticed mistakes below which to fail; implies --mutate")
	deadline := in.flags.Duration("deadline", author.DefaultDeadline, "how long the tests of one mistake may take")
	known := in.directory()
	dir, err := in.dir()
	if err != nil {
		return Failure, err
	}
	*coverage = *coverage || *leastCoverage > 0
	*mutate = *mutate || *leastScore > 0
	var only *regexp.Regexp
	if *run != "" {
		if only, err = regexp.Compile(*run); err != nil {
			return Failure, err
		}
		if *coverage || *mutate {
			return Failure, fmt.Errorf("--run leaves tests out; coverage and mutations are of all of them")
		}
	}
	began := time.Now()
	p, err := in.open(dir, *known)
	if err != nil {
		return Failure, err
	}
	report, err := p.Test(ctx, only, *coverage)
	if err != nil {
		return Failure, err
	}
	failed := report.Failed()
	if *mutate && len(failed) == 0 {
		m, err := p.Mutate(ctx, *deadline)
		if err != nil {
			return Failure, err
		}
		report.Mutation = &m
	}
	code := OK
	if len(failed) > 0 || len(report.Results) == 0 ||
		(report.Coverage != nil && report.Coverage.Percent < *leastCoverage) ||
		(report.Mutation != nil && report.Mutation.Score < *leastScore) {
		code = Findings
	}
	if in.json {
		return code, in.document(report)
	}
	in.results(report, *verbose, time.Since(began))
	if report.Coverage != nil {
		in.coverage(*report.Coverage, *leastCoverage, *verbose)
	}
	switch {
	case report.Mutation != nil:
		in.mutation(*report.Mutation, *leastScore)
	case *mutate:
		in.printf("no mutations: the tests must pass first\n")
	}
	return code, nil
}

func (in *invocation) results(r author.Report, verbose bool, took time.Duration) {
	count := map[string]int{}
	for _, one := range r.Results {
		count[one.Kind]++
		switch {
		case one.Outcome == "fail":
			in.printf("%s:%d: %s: %s\n", one.File, one.Line, one.Name, one.Why)
		case verbose:
			in.printf("%s:%d: %s: %s (%s)\n", one.File, one.Line, one.Name, one.Outcome, one.Took.Round(time.Microsecond))
		case one.Outcome == "skip":
			in.printf("%s:%d: %s: skipped\n", one.File, one.Line, one.Name)
		}
	}
	what := fmt.Sprintf("%d Rego tests, %d cases, %d cells of matrices in %s", count[author.KindRego], count[author.KindCase],
		count[author.KindMatrix], took.Round(10*time.Millisecond))
	switch failed := len(r.Failed()); {
	case len(r.Results) == 0:
		in.printf("FAIL: there are no tests\n")
	case failed > 0:
		in.printf("FAIL: %d of %s\n", failed, what)
	default:
		in.printf("PASS: %s\n", what)
	}
}

func (in *invocation) coverage(c author.Coverage, least float64, verbose bool) {
	for _, r := range c.Rules {
		if len(r.Missing) > 0 {
			in.printf("%s:%d: %s: no test evaluates line %s\n", r.File, r.Missing[0], r.ID, lines(r.Missing))
		} else if verbose {
			in.printf("%s:%d: %s: %d of %d lines\n", r.File, r.Line, r.ID, r.Covered, r.Lines)
		}
	}
	in.printf("coverage %.1f %% of lines%s\n", c.Percent, below(c.Percent, least))
}

func (in *invocation) mutation(m author.Mutation, least float64) {
	for _, s := range m.Survived {
		in.printf("%s:%d: %s: %s, and no test notices: %s", s.File, s.Line, s.Rule, s.Kind, s.Before)
		if s.After != "" {
			in.printf("  →  %s", s.After)
		}
		in.printf("\n")
	}
	in.printf("mutation score %.1f %%: %d of %d mistakes noticed", m.Score, m.Noticed, m.Noticed+len(m.Survived))
	if m.TimedOut > 0 {
		in.printf(" (%d by running out of time)", m.TimedOut)
	}
	in.printf("; %d more do not compile%s\n", m.Invalid, below(m.Score, least))
}

func below(have, least float64) string {
	if have >= least {
		return ""
	}
	return fmt.Sprintf(", less than %g %%", least)
}

// lines is "3, 5-7".
func lines(rows []int) string {
	var parts []string
	for i := 0; i < len(rows); {
		j := i
		for j+1 < len(rows) && rows[j+1] == rows[j]+1 {
			j++
		}
		part := strconv.Itoa(rows[i])
		if j > i {
			part += "-" + strconv.Itoa(rows[j])
		}
		parts, i = append(parts, part), j+1
	}
	return strings.Join(parts, ", ")
}
