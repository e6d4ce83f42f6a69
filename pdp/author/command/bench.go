package command

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func bench(ctx context.Context, in *invocation) (int, error) {
	log := in.flags.String("decisions", "", "a decision log, as replay takes it: what it asks is decided, too")
	each := in.flags.Duration("time", 3*time.Second, "how long to measure each policy")
	known := in.directory()
	most := in.flags.Float64("max-allocs", 0, "allocations of a decision above which to fail; 0: any number will do. It hardly depends on the machine")
	dirs, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(dirs) == 0 {
		dirs = []string{"policies"}
	}
	var policies []*author.Policy
	for _, dir := range dirs {
		p, err := in.open(dir, *known)
		if err != nil {
			return Failure, err
		}
		policies = append(policies, p)
	}
	var logged []author.Question
	if *log != "" {
		var skipped map[string]int
		if logged, skipped, err = author.Questions(ctx, time.Now(), in.records([]string{*log}, span{}), policies...); err != nil {
			return Failure, err
		}
		if left := words(skipped); left != "" {
			fmt.Fprintf(in.Err, "%s: left out: %s\n", *log, left)
		}
	}
	code := OK
	var all []author.Bench
	for _, p := range policies {
		b, err := p.Bench(ctx, logged, *each)
		if err != nil {
			return Failure, err
		}
		if *most > 0 && b.Allocs > *most {
			code = Findings
		}
		all = append(all, b)
	}
	if in.json {
		return code, in.document(all)
	}
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\trequests\trounds\tp50 µs\tp99 µs\tmean µs\tallocations\tbytes\n")
	for _, b := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.1f\t%.1f\t%.1f\t%.0f\t%.0f\n", b.Dir, b.Requests, b.Rounds, b.Cost.P50, b.Cost.P99, b.Mean, b.Allocs, b.Bytes)
	}
	_ = w.Flush() // into memory
	in.printf("%s", rows.String())
	if code == Findings {
		in.printf("a decision allocates more than %g times\n", *most)
	}
	return code, nil
}
