// Package budget says what a decision may cost: so many microseconds by resource type or route, and no search through data that
// grows. The price is measured against a policy that is built in, in the same moments, so that a slow or busy machine refuses
// nothing that a fast one would take.
package budget

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/yamldoc"
	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

// File is where a policy folder says its budgets:
//
//	p99: # microseconds, by the most specific key; over the cases that it is about
//	  default: 500
//	  order: 300
//	  GET order: 200
//	  GET /orders/{id}: 150
//	scan: 1000 # members of data that a decision may search through
//	growing: [rbac/bindings] # data that is never searched
const File = "budget.yaml"

// DefaultScan is how many members of data a decision may search through where nothing is said of it.
const DefaultScan = 10_000

// other is the key for all that no other key is about.
const other = "default"

// Limits are a budget.
type Limits struct {
	P99     map[string]float64 `yaml:"p99"` // µs of the reference machine
	Scan    int                `yaml:"scan"`
	Growing []string           `yaml:"growing"` // paths below data, as rbac/bindings
}

// Parse reads a budget.
func Parse(file string, text []byte) (Limits, error) {
	var l Limits
	entries, err := yamldoc.Decode(file, text, &l)
	if err != nil {
		return Limits{}, err
	}
	line := func(name string) int {
		for _, e := range entries {
			if e.Key.Value == name {
				return e.Key.Line
			}
		}
		return 1
	}
	for _, key := range slices.Sorted(maps.Keys(l.P99)) {
		if !(l.P99[key] > 0 && l.P99[key] < 1e9) {
			return Limits{}, fmt.Errorf("%s:%d: p99: %s: a budget is a number of microseconds above 0", file, line("p99"), key)
		}
	}
	if l.Scan < 0 {
		return Limits{}, fmt.Errorf("%s:%d: scan: a number of members, not below 0", file, line("scan"))
	}
	for i, at := range l.Growing {
		if l.Growing[i] = strings.Trim(at, "/"); l.Growing[i] == "" || strings.ContainsAny(at, ". \"[]") {
			return Limits{}, fmt.Errorf("%s:%d: growing: %q is no path below data, as rbac/bindings", file, line("growing"), at)
		}
	}
	return l, nil
}

// key is that of the budget for a case; "" for none.
func (l Limits) key(c golden.Case) string {
	method, _, _ := strings.Cut(c.Asks, " ")
	for _, key := range []string{method + " " + c.Pattern(), method + " " + c.Type, c.Type, other} {
		if _, ok := l.P99[key]; ok {
			return key
		}
	}
	return ""
}
