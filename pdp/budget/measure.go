package budget

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/golden"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// reference is the least that the yardstick costs on the machine that budgets speak of, in µs: a server's core (AMD EPYC, Go 1.26).
const reference = 9.2

// tolerance is how much dearer than its budget a decision is measured before it is refused.
const tolerance = 1.5

// yardstick is a policy of the usual sort.
const yardstick = `package yardstick

default allow := false

allow if {
	some role in input.roles
	some grant in grants[role]
	grant.method == input.method
	startswith(input.path, grant.prefix)
	net.cidr_contains("10.0.0.0/8", input.ip)
}

grants := {
	"clerk": [{"method": "GET", "prefix": "/orders"}, {"method": "PUT", "prefix": "/orders"}],
	"customer": [{"method": "GET", "prefix": "/profile"}],
}
`

// Cost is what the cases of one key cost, at the most expensive of a hundred.
type Cost struct {
	Key    string  `json:"key"`
	Budget float64 `json:"budget_us"`
	P99    float64 `json:"p99_us"` // of the reference machine
	Cases  int     `json:"cases"`
}

// Over reports whether that is more than was allowed, and no noise.
func (c Cost) Over() bool { return c.P99 > c.Budget*tolerance }

// String is what is wrong with it.
func (c Cost) String() string {
	return fmt.Sprintf("p99: %s: a decision costs %.0f µs at p99 of %d cases, and the budget is %g µs", c.Key, c.P99, c.Cases, c.Budget)
}

// Bounds of a measurement: no case is decided less often than least times, nor more often than most, and all within about long.
const (
	least = 3
	most  = 25
	long  = 2 * time.Second
)

// Measure decides the cases that limits are about by query, again and again, and the yardstick between them. Each case counts by the
// quickest of its rounds, as the yardstick does, for noise only ever adds. What comes out too dear is measured anew, up to three times.
func (l Limits) Measure(ctx context.Context, query rego.PreparedEvalQuery, cases []golden.Case, input func(golden.Case) (ast.Value, error)) ([]Cost, error) {
	if len(l.P99) == 0 {
		return nil, nil
	}
	inputs := map[string][]ast.Value{}
	for _, c := range cases {
		key := l.key(c)
		if key == "" {
			continue
		}
		v, err := input(c)
		if err != nil {
			return nil, err
		}
		inputs[key] = append(inputs[key], v)
	}
	for _, key := range slices.Sorted(maps.Keys(l.P99)) {
		if key != other && len(inputs[key]) == 0 {
			return nil, fmt.Errorf("p99: %s: no case in %s/ is about it, so that nothing can be measured", key, golden.Dir)
		}
	}
	stick, err := newStick(ctx)
	if err != nil {
		return nil, err
	}
	var all []Cost
	for _, key := range slices.Sorted(maps.Keys(inputs)) {
		c := Cost{Key: key, Budget: l.P99[key], P99: math.Inf(1), Cases: len(inputs[key])}
		for tries := 0; tries < 3 && c.Over(); tries++ {
			p99, err := stick.measure(ctx, query, inputs[key], long/time.Duration(len(inputs)))
			if err != nil {
				return nil, err
			}
			c.P99 = min(c.P99, p99)
		}
		all = append(all, c)
	}
	return all, nil
}

// Exceeded are the costs that are over their budgets, as one error each.
func Exceeded(file string, all []Cost) error {
	var errs []error
	for _, c := range all {
		if c.Over() {
			errs = append(errs, fmt.Errorf("%s: %s", file, c))
		}
	}
	return errors.Join(errs...)
}

// stick is the yardstick, ready to be laid on.
type stick struct {
	query rego.PreparedEvalQuery
	input ast.Value
}

func newStick(ctx context.Context) (*stick, error) {
	query, err := rego.New(rego.Query("data.yardstick.allow"), rego.Module("yardstick.rego", yardstick)).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	input := ast.MustParseTerm(`{"roles": ["auditor", "customer", "clerk"], "method": "PUT", "path": "/orders/17", "ip": "10.1.2.3"}`).Value
	return &stick{query, input}, nil
}

func took(ctx context.Context, query rego.PreparedEvalQuery, input ast.Value) (time.Duration, error) {
	began := time.Now()
	_, err := query.Eval(ctx, rego.EvalParsedInput(input), rego.EvalMetrics(metrics.NoOp()))
	d := time.Since(began)
	if ctx.Err() != nil {
		return 0, fmt.Errorf("measuring: %w", ctx.Err())
	}
	_ = err // a case may be one that cannot be decided; it costs what it costs
	return d, nil
}

// measure answers the p99 of the inputs in µs of the reference machine.
func (s *stick) measure(ctx context.Context, query rego.PreparedEvalQuery, inputs []ast.Value, within time.Duration) (float64, error) {
	best, unit := make([]time.Duration, len(inputs)), time.Duration(math.MaxInt64)
	spent := pace.Watch(ctx)
	for round := 0; round < most && (round < least || spent() < within); round++ {
		for i, input := range inputs {
			d, err := took(ctx, query, input)
			if err != nil {
				return 0, err
			}
			if best[i] == 0 || d < best[i] {
				best[i] = d
			}
			if i%4 == 0 {
				if d, err = took(ctx, s.query, s.input); err != nil {
					return 0, err
				}
				unit = min(unit, d)
			}
			pace.Breathe(ctx)
		}
	}
	slices.Sort(best)
	at := best[int(math.Ceil(0.99*float64(len(best))))-1]
	return float64(at) / float64(unit) * reference, nil
}
