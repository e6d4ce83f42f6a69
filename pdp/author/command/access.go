package command

import (
	"context"
	"errors"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func whoCan(ctx context.Context, in *invocation) (int, error) {
	dir := in.flags.String("policies", "policies", "the folder of the policy")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 2 {
		return Failure, errors.New("who-can takes an action and a resource, such as DELETE order or GET /orders")
	}
	return in.access(ctx, *dir, func(c author.Change) bool { return c.Action == rest[0] && c.Resource == rest[1] })
}

func whatCan(ctx context.Context, in *invocation) (int, error) {
	dir := in.flags.String("policies", "policies", "the folder of the policy")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 1 {
		return Failure, errors.New("what-can takes a role, or anonymous for those without a token")
	}
	return in.access(ctx, *dir, func(c author.Change) bool { return slices.Contains(strings.Split(c.Who, " + "), rest[0]) })
}

// access shows what of all that may be done is wanted.
func (in *invocation) access(ctx context.Context, dir string, wanted func(author.Change) bool) (int, error) {
	p, err := author.Open(dir)
	if err != nil {
		return Failure, err
	}
	all, err := p.Access(ctx)
	if err != nil {
		return Failure, err
	}
	all.Changes = slices.DeleteFunc(all.Changes, func(c author.Change) bool { return !wanted(c) })
	if in.json {
		return OK, in.document(all)
	}
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	for _, c := range all.Changes {
		for i, condition := range conditions(c) {
			who, what := c.Who, c.Action+" "+c.Resource
			if i > 0 {
				who, what = "", ""
			}
			if len(c.When)+len(c.Unless) == 0 {
				condition = "always"
			}
			_, _ = w.Write([]byte(who + "\t" + what + "\t" + condition + "\n")) // into memory
		}
	}
	_ = w.Flush() // into memory
	in.printf("%s", rows.String())
	if len(all.Changes) == 0 {
		in.printf("nobody, and nothing\n")
	}
	in.printf("as far as %d requests tell, made up from all that the cases and tables speak of\n", all.Requests)
	return OK, nil
}
