package command

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func diff(ctx context.Context, in *invocation) (int, error) {
	log := in.flags.String("decisions", "", "a decision log, as replay takes it: what it asks is decided, too")
	in.flags.StringVar(log, "log", "", "the same as --decisions")
	markdown := in.flags.Bool("markdown", false, "write a table for a pull request")
	failOnWidening := in.flags.Bool("fail-on-widening", false, "exit with 1 if anybody gains access")
	known := in.directory()
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 2 {
		return Failure, errors.New("diff takes two folders, the old policy and the new")
	}
	before, err := in.open(rest[0], *known)
	if err != nil {
		return Failure, err
	}
	after, err := in.open(rest[1], *known)
	if err != nil {
		return Failure, err
	}
	var logged []author.Question
	if *log != "" {
		var skipped map[string]int
		if logged, skipped, err = author.Questions(ctx, time.Now(), in.records([]string{*log}, span{}), before, after); err != nil {
			return Failure, err
		}
		if left := words(skipped); left != "" {
			fmt.Fprintf(in.Err, "%s: left out: %s\n", *log, left)
		}
		if len(logged) == 0 {
			return Failure, fmt.Errorf("%s holds no requests that both policies can decide", *log)
		}
	}
	d, err := author.Compare(ctx, before, after, logged)
	if err != nil {
		return Failure, err
	}
	code := OK
	if *failOnWidening && len(d.Gained()) > 0 {
		code = Findings
	}
	switch {
	case in.json:
		return code, in.document(d)
	case *markdown:
		in.markdown(d)
	default:
		in.table(d)
	}
	return code, nil
}

// conditions are those of a change, one a line, not too many.
func conditions(c author.Change) []string {
	const most = 5
	lead, words := "when ", c.When
	switch {
	case len(c.Unless) > 0:
		lead, words = "unless ", c.Unless
	case len(words) == 0 && c.Logged > 0:
		return []string{"in the log"}
	case len(words) == 0 && c.Direction == author.Gains:
		return []string{"wherever it was denied"}
	case len(words) == 0:
		return []string{"wherever it was allowed"}
	}
	lines := make([]string, 0, most+1)
	for i, w := range words {
		if i == most {
			lines = append(lines, fmt.Sprintf("or %d more", len(words)-most))
			break
		}
		lines = append(lines, lead+w)
		lead = "or "
	}
	return lines
}

func summary(d author.Diff) string {
	gained := len(d.Gained())
	s := fmt.Sprintf("%d gained, %d lost, %d decided alike for other reasons; %d requests decided by both", gained, len(d.Changes)-gained, d.OtherReasons, d.Requests)
	if d.Logged > 0 {
		s += fmt.Sprintf(", %d of the log among them", d.Logged)
	}
	return s
}

func (in *invocation) table(d author.Diff) {
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	for _, c := range d.Changes {
		fmt.Fprintf(w, "%s\t%s\t%s %s\t%s  →  %s", c.Direction, c.Who, c.Action, c.Resource, c.Before, c.After)
		if c.Logged > 0 {
			fmt.Fprintf(w, "  (%d times in the log)", c.Logged)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // into memory
	for i, row := range strings.Split(strings.TrimSuffix(rows.String(), "\n"), "\n") {
		if i < len(d.Changes) {
			in.printf("%s\n       %s\n", row, strings.Join(conditions(d.Changes[i]), "\n       "))
		}
	}
	in.printf("%s\n", summary(d))
}

func (in *invocation) markdown(d author.Diff) {
	if len(d.Changes) == 0 {
		in.printf("Nobody gains or loses access: %s.\n", summary(d))
		return
	}
	in.printf("| | who | what | when | before | after | logged |\n|---|---|---|---|---|---|---|\n")
	for _, c := range d.Changes {
		lines := conditions(c)
		for i := range lines {
			lines[i] = cell(lines[i])
		}
		in.printf("| %s | %s | %s | %s | %s | %s | %d |\n", sign(c.Direction), cell(c.Who), cell(c.Action+" "+c.Resource),
			strings.Join(lines, "<br>"), cell(c.Before), cell(c.After), c.Logged)
	}
	in.printf("\n%s.\n", summary(d))
}

func sign(direction string) string {
	if direction == author.Gains {
		return "🔺 **gains**"
	}
	return "🔻 loses"
}

// cell is text that breaks no table.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "\n", "<br>", "<", "&lt;", "`", "'").Replace(text)
}
