package command

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func price(ctx context.Context, in *invocation) (int, error) {
	each := in.flags.Duration("time", 300*time.Millisecond, "how long to measure each rule")
	most := in.flags.Float64("max-p99", 0, "microseconds above which the p99 of a decision is too dear; 0: any price will do")
	known := in.directory()
	dir, err := in.dir()
	if err != nil {
		return Failure, err
	}
	p, err := in.open(dir, *known)
	if err != nil {
		return Failure, err
	}
	all, err := p.Price(ctx, *each)
	if err != nil {
		return Failure, err
	}
	code := OK
	if *most > 0 && all.Decision.P99 > *most {
		code = Findings
	}
	for _, c := range all.Budgets {
		if c.Over() {
			code = Findings
		}
	}
	if in.json {
		return code, in.document(all)
	}
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	row := func(name string, c author.Cost, rest string) {
		fmt.Fprintf(w, "%s\t%.1f\t%.1f\t%s\n", name, c.P50, c.P99, rest)
	}
	fmt.Fprintf(w, "\tp50 µs\tp99 µs\trules tried\n")
	row("a decision", all.Decision, "")
	row("  of that, an evaluation of nothing", all.Floor, "")
	for _, r := range all.Rules {
		tried := fmt.Sprintf("%d", r.Rules)
		if r.Indexed {
			tried = fmt.Sprintf("%.1f of %d, by the index", r.Tried, r.Rules)
		}
		row(r.ID, r.Cost, tried)
	}
	_ = w.Flush() // into memory
	in.printf("%s", rows.String())
	for _, r := range all.Rules {
		for _, a := range r.Advice {
			in.printf("%s:%d: %s: %s\n", r.File, r.Line, r.ID, a)
		}
	}
	in.printf("%d different requests of the cases; a rule's price holds all that it calls\n", all.Requests)
	for _, c := range all.Budgets {
		word := "within"
		if c.Over() {
			word = "OVER"
		}
		in.printf("%s: %s its budget of %g µs: %.0f µs at p99 of %d cases, in µs of the reference machine\n", c.Key, word, c.Budget, c.P99, c.Cases)
	}
	if *most > 0 && all.Decision.P99 > *most {
		in.printf("a decision is dearer than %g µs at p99\n", *most)
	}
	return code, nil
}
