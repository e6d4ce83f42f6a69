package authzen

import "slices"

// uncovered are the reasons by which policies say that no rule covers what is asked, rather than that one denies it.
var uncovered = []string{"no_rule", "resource_unknown", "action_unknown"}

// OutcomeOf tells a denial by a rule from one for want of a rule: that one has no other reasons than those of uncovered.
func OutcomeOf(allow bool, reasons []string) Outcome {
	switch {
	case allow:
		return Permit
	case len(reasons) > 0 && !slices.ContainsFunc(reasons, func(r string) bool { return !slices.Contains(uncovered, r) }):
		return NotApplicable
	default:
		return Deny
	}
}
