package command

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func replay(ctx context.Context, in *invocation) (int, error) {
	candidate := in.flags.String("candidate", "policies", "the folder of the policy that decides again")
	since := in.flags.String("since", "", "only what was decided since: a time (RFC 3339), or how long ago, as 24h")
	until := in.flags.String("until", "", "only what was decided until then")
	markdown := in.flags.Bool("markdown", false, "write a table for a pull request")
	failOnWidening := in.flags.Bool("fail-on-widening", false, "exit with 1 if anybody gains access")
	failOnChange := in.flags.Bool("fail-on-change", false, "exit with 1 if anybody gains or loses access")
	known := in.directory()
	names, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(names) == 0 {
		return Failure, errors.New("replay takes decision logs: files of JSON lines, folders of spools, or - for stdin")
	}
	within, err := spanOf(*since, *until, time.Now())
	if err != nil {
		return Failure, err
	}
	p, err := in.open(*candidate, *known)
	if err != nil {
		return Failure, err
	}
	r, err := p.Replay(ctx, in.records(names, within))
	if err != nil {
		return Failure, err
	}
	if r.Decided == 0 {
		return Failure, fmt.Errorf("%s: nothing to decide again among %d entries; left out: %s", strings.Join(names, ", "), r.Read, cmp.Or(words(r.Skipped), "none"))
	}
	code := OK
	if *failOnWidening && len(r.Gained()) > 0 || *failOnChange && len(r.Changes) > 0 {
		code = Findings
	}
	switch {
	case in.json:
		return code, in.document(r)
	case *markdown:
		in.replayedMarkdown(r)
	default:
		in.replayed(r)
	}
	return code, nil
}

// times is how often something was decided: as counted, and in all where only samples were recorded.
func times(c author.Replayed) string {
	if int(c.About) > c.Times {
		return fmt.Sprintf("%d, of about %.0f", c.Times, c.About)
	}
	return fmt.Sprint(c.Times)
}

func (in *invocation) replayed(r author.Replay) {
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	for _, c := range r.Changes {
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s  →  %s\t(%s)\n", c.Direction, c.Who, c.Action, c.Resource, c.Before, c.After, times(c))
	}
	_ = w.Flush() // into memory
	for i, row := range strings.Split(strings.TrimSuffix(rows.String(), "\n"), "\n") {
		if i >= len(r.Changes) {
			break
		}
		c := r.Changes[i]
		in.printf("%s\n", row)
		if c.Rule != "" {
			in.printf("       by %s (%s:%d)%s\n", c.Rule, c.File, c.Line, others(c))
		}
		in.printf("       such as %s\n", strings.Join(c.Decisions, ", "))
	}
	in.printf("%s\n", ofReplay(r))
}

// others are the rules of a denial besides the one of the decision.
func others(c author.Replayed) string {
	s := ""
	for _, id := range c.Rules {
		if id != c.Rule {
			s += ", " + id
		}
	}
	return s
}

func ofReplay(r author.Replay) string {
	gained, lost := 0, 0
	for _, c := range r.Changes {
		if c.Direction == author.Gains {
			gained += c.Times
		} else {
			lost += c.Times
		}
	}
	s := fmt.Sprintf("%d decisions gained, %d lost, %d decided alike for other reasons; %d of %d entries decided again", gained, lost, r.OtherReasons, r.Decided, r.Read)
	if r.From != nil && r.To != nil {
		s += fmt.Sprintf(", %s to %s", r.From.UTC().Format(time.RFC3339), r.To.UTC().Format(time.RFC3339))
	}
	if left := words(r.Skipped); left != "" {
		s += "; left out: " + left
	}
	return s
}

func (in *invocation) replayedMarkdown(r author.Replay) {
	if len(r.Changes) > 0 {
		in.printf("| | who | what | logged | now | times | rule | such as |\n|---|---|---|---|---|---|---|---|\n")
	}
	for _, c := range r.Changes {
		in.printf("| %s | %s | %s | %s | %s | %s | %s | %s |\n", sign(c.Direction), cell(c.Who), cell(c.Action+" "+c.Resource), cell(c.Before), cell(c.After), times(c), cell(c.Rule), cell(c.Decisions[0]))
	}
	if len(r.Changes) > 0 {
		in.printf("\n")
	}
	in.printf("%s.\n", ofReplay(r))
}
