package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

// mostInput is how large a request, or a file of them, may be, in bytes.
const mostInput = 64 << 20

func explain(ctx context.Context, in *invocation) (int, error) {
	dir := in.flags.String("policies", "policies", "the folder of the policy")
	title := in.flags.String("case", "", "of a file of cases or a matrix, those whose titles hold this text")
	id := in.flags.String("id", "", "of a decision log, one JSON document a line, the decision of this id")
	verbose := in.flags.Bool("v", false, "tell of every rule that did not hold")
	known := in.directory()
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 1 {
		return Failure, errors.New("explain takes a file of cases (*.yaml), a request (*.json), a decision log with --id, or - for stdin")
	}
	p, err := in.open(*dir, *known)
	if err != nil {
		return Failure, err
	}
	questions, then, err := in.questions(p, rest[0], *title, *id)
	if err != nil {
		return Failure, err
	}
	all := make([]author.Explanation, len(questions))
	for i, q := range questions {
		if all[i], err = p.Explain(ctx, q); err != nil {
			return Failure, err
		}
		if now := all[i].Rules; then != nil && !slices.Equal(now, then) {
			fmt.Fprintf(in.Err, "%s: it was denied by %s, says its record; these policies are others\n", q.Title, strings.Join(then, ", "))
		}
	}
	if in.json {
		return OK, in.document(all)
	}
	for i, e := range all {
		if i > 0 {
			in.printf("\n")
		}
		in.explanation(e, *verbose)
	}
	return OK, nil
}

// questions reads a request, the decision id of a log, or the cases of a file that hold title. then are the rules of a denial in a log.
func (in *invocation) questions(p *author.Policy, name, title, id string) (all []author.Question, then []string, err error) {
	if id != "" {
		return in.decided(name, title, id)
	}
	text, err := in.read(name)
	if err != nil {
		return nil, nil, err
	}
	ext := filepath.Ext(name)
	switch cases := ext == ".yaml" || ext == ".yml"; {
	case !cases && title != "":
		return nil, nil, errors.New("--case is for files of cases (*.yaml)")
	case !cases:
		q, err := p.ParseQuestion(name, text, time.Now())
		return []author.Question{q}, nil, err
	}
	cases, err := author.ParseCases(name, text)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range cases {
		if !strings.Contains(c.Title, title) {
			continue
		}
		q, err := author.AsQuestion(c)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, q)
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("%s: no case %q", name, title)
	}
	return all, nil, nil
}

// decided reads the decision of an id, with what was known then, at its time.
func (in *invocation) decided(name, title, id string) (all []author.Question, then []string, err error) {
	if title != "" || filepath.Ext(name) == ".yaml" {
		return nil, nil, errors.New("--id is for decision logs")
	}
	r, err := in.recorded(name, id)
	if err != nil {
		return nil, nil, err
	}
	q, hidden, err := r.AsQuestion()
	if then = r.Rules; err == nil && len(hidden) > 0 {
		then = nil // the policies may look at what is unknown
		fmt.Fprintf(in.Err, "%s: masked when it was recorded, and so unknown here: %s\n", r.Title, strings.Join(hidden, ", "))
	}
	return []author.Question{q}, then, err
}

// read reads a file, or stdin where its name is -.
func (in *invocation) read(name string) ([]byte, error) {
	from := in.In
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // the file that the user named
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, mostInput+1))
	if err == nil && len(text) > mostInput {
		err = fmt.Errorf("%s is larger than %d bytes", name, mostInput)
	}
	return text, err
}

func (in *invocation) explanation(e author.Explanation, verbose bool) {
	word := "denied"
	switch {
	case e.Error != "":
		word = "not decided"
	case e.Allow:
		word = "allowed"
	}
	in.printf("%s\n%s: %s", e.Title, word, e.Asked)
	if len(e.Reasons) > 0 {
		in.printf("  [%s]", strings.Join(e.Reasons, ", "))
	}
	if len(e.Rules) > 0 {
		in.printf("\n  by %s", strings.Join(e.Rules, ", "))
	}
	if e.Error != "" {
		in.printf("\n  %s", e.Error)
	}
	in.printf("\n\nthese rules held\n")
	for _, h := range e.Held {
		in.printf("  %s:%d: %s%s%s\n", h.File, h.Line, h.ID, with(h.With), titled(h.Title))
	}
	shown := 0
	for _, h := range e.Failed {
		if !verbose && !h.Near {
			continue
		}
		if shown++; shown == 1 {
			in.printf("\nthese did not")
			if !verbose {
				in.printf(", and would by the first of the changes below")
			}
			in.printf("\n")
		}
		in.printf("  %s:%d: %s%s\n      failed on %s%s\n", h.File, h.Line, h.ID, titled(h.Title), h.Failed, with(h.With))
	}
	turn := "allowed"
	if e.Allow {
		turn = "denied"
	}
	if len(e.Near) == 0 {
		in.printf("\nno one or two changes of who asks, when, whence and of what is known were found by which it would be %s (%d tried)\n", turn, e.Searched)
		return
	}
	in.printf("\nit would be %s, if\n", turn)
	for _, n := range e.Near {
		in.printf("  %s", strings.Join(n.Changes, " and "))
		if len(n.Reasons) > 0 {
			in.printf("  [%s]", strings.Join(n.Reasons, ", "))
		}
		in.printf("\n")
	}
	if len(e.Could) > 0 {
		in.printf("\nso it is open to\n  %s\n", strings.Join(e.Could, "\n  "))
	}
}

func with(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return "  (" + strings.Join(values, ", ") + ")"
}

func titled(title string) string {
	if title == "" {
		return ""
	}
	return "  " + title
}
