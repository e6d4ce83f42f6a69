package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func diff(ctx context.Context, in *invocation) (int, error) {
	log := in.flags.String("log", "", "a decision log, one JSON document a line; those with an input are decided, too")
	markdown := in.flags.Bool("markdown", false, "write a table for a pull request")
	failOnWidening := in.flags.Bool("fail-on-widening", false, "exit with 1 if anybody gains access")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 2 {
		return Failure, errors.New("diff takes two folders, the old policy and the new")
	}
	before, err := author.Open(rest[0])
	if err != nil {
		return Failure, err
	}
	after, err := author.Open(rest[1])
	if err != nil {
		return Failure, err
	}
	var logged []author.Question
	if *log != "" {
		if logged, err = in.logged(*log); err != nil {
			return Failure, err
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

// logged reads those lines of a decision log that say what was asked.
func (in *invocation) logged(name string) ([]author.Question, error) {
	f, err := os.Open(name) //nolint:gosec // the file that the user named
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []author.Question
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, mostInput)
	row, skipped := 0, 0
	for lines.Scan() {
		row++
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		q, err := author.ParseQuestion(fmt.Sprintf("%s:%d", name, row), []byte(text), time.Now())
		if err != nil {
			if skipped++; skipped == 1 {
				fmt.Fprintf(in.Err, "%v\n", err)
			}
			continue
		}
		all = append(all, q)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", name, row+1, err)
	}
	if skipped > 0 {
		fmt.Fprintf(in.Err, "%s: %d of %d lines hold no request and were left out\n", name, skipped, row)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s holds no requests", name)
	}
	return all, nil
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
	cell := strings.NewReplacer("|", `\|`, "\n", "<br>", "<", "&lt;", "`", "'").Replace
	for _, c := range d.Changes {
		sign := "🔻 loses"
		if c.Direction == author.Gains {
			sign = "🔺 **gains**"
		}
		lines := conditions(c)
		for i := range lines {
			lines[i] = cell(lines[i])
		}
		in.printf("| %s | %s | %s | %s | %s | %s | %d |\n", sign, cell(c.Who), cell(c.Action+" "+c.Resource),
			strings.Join(lines, "<br>"), cell(c.Before), cell(c.After), c.Logged)
	}
	in.printf("\n%s.\n", summary(d))
}
