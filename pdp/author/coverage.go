package author

import (
	"cmp"
	"slices"

	"github.com/open-policy-agent/opa/v1/cover"

	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// Coverage is how much of the rules the tests evaluated, by lines that can be.
type Coverage struct {
	Percent float64        `json:"percent"`
	Rules   []RuleCoverage `json:"rules"`
}

// RuleCoverage is how much of one rule was evaluated.
type RuleCoverage struct {
	ID      string `json:"id"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Covered int    `json:"covered"`          // lines
	Lines   int    `json:"lines"`            // that can be evaluated
	Missing []int  `json:"missing,omitzero"` // the others' numbers
}

// coverage reads what a tracer saw.
func (p *Policy) coverage(seen *cover.Cover) Coverage {
	report := seen.Report(p.Modules)
	var all Coverage
	covered, lines := 0, 0
	for _, name := range sorted(p.Modules) {
		file := report.Files[name]
		ids := ruleid.Of(p.Modules[name])
		for i, r := range p.Modules[name].Rules {
			one := RuleCoverage{ID: ids[i], File: p.place(name), Line: r.Location.Row}
			last, _ := r.Location.End()
			for row := r.Location.Row; row <= last && file != nil; row++ {
				switch {
				case file.IsNotCovered(row): // a line that was evaluated in part is not covered
					one.Missing = append(one.Missing, row)
				case file.IsCovered(row):
					one.Covered++
				}
			}
			one.Lines = one.Covered + len(one.Missing)
			if one.Lines == 0 {
				continue
			}
			covered, lines = covered+one.Covered, lines+one.Lines
			all.Rules = append(all.Rules, one)
		}
	}
	slices.SortStableFunc(all.Rules, func(a, b RuleCoverage) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	all.Percent = percent(covered, lines)
	return all
}

// percent of nothing is all of it.
func percent(part, whole int) float64 {
	if whole == 0 {
		return 100
	}
	return 100 * float64(part) / float64(whole)
}
