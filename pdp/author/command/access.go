package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// mostNamed is how many people a line names; --json names all.
const mostNamed = 10

// reach is whom who-can and what-can ask about: roles, the people of a directory, or whom a running decision point knows.
type reach struct {
	dir, directory, pdp, token, tenant *string
	roles                              *string // of what-can alone
}

func (in *invocation) reach() reach {
	return reach{
		dir:       in.flags.String("policies", "policies", "the folder of the policy"),
		directory: in.flags.String("directory", "", "file of subjects and roles, as PDP_DIRECTORY_URL takes it: say who, and not only which roles"),
		pdp:       in.flags.String("pdp", "", "ask the running decision point at this URL (https://…, unix:///path) by AuthZEN's searches, about TYPE:ID"),
		token:     in.flags.String("token-file", os.Getenv("PDP_TOKEN_FILE"), "with --pdp: file of the token to show ($PDP_TOKEN_FILE)"),
		tenant:    in.flags.String("tenant", "", "with --pdp: the tenant that is asked about"),
	}
}

func whoCan(ctx context.Context, in *invocation) (int, error) {
	of := in.reach()
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 2 {
		return Failure, errors.New("who-can takes an action and a resource, such as DELETE order or GET /orders; with --pdp its type and id, as order:17 or order:/orders")
	}
	switch {
	case *of.pdp != "" && *of.directory != "":
		return Failure, errors.New("--pdp asks a decision point, which has a directory of its own")
	case *of.pdp != "":
		r := authzen.Request{Subject: authzen.Subject{Type: "user"}, Action: authzen.Action{Name: rest[0]}}
		return in.ask(ctx, of, authzen.Subjects, r, rest[1])
	case *of.directory != "":
		return in.people(ctx, of, "", rest, func(action, resource string) bool { return action == rest[0] && resource == rest[1] })
	}
	return in.access(ctx, *of.dir, rest, "", func(c author.Change) bool { return c.Action == rest[0] && c.Resource == rest[1] })
}

func whatCan(ctx context.Context, in *invocation) (int, error) {
	of := in.reach()
	of.roles = in.flags.String("roles", "", "with --pdp: roles that a token gives the subject, as clerk,admin; those of a directory that knows the subject count instead")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	switch {
	case *of.pdp != "" && *of.directory != "":
		return Failure, errors.New("--pdp asks a decision point, which has a directory of its own")
	case *of.pdp != "" && len(rest) != 2:
		return Failure, errors.New("with --pdp what-can takes a subject's id and a resource: its type and id, as order:17 or order:/orders")
	case *of.pdp != "":
		return in.ask(ctx, of, authzen.Actions, authzen.Request{Subject: authzen.Subject{Type: "user", ID: rest[0]}}, rest[1])
	case len(rest) != 1:
		return Failure, errors.New("what-can takes a role, or anonymous for those without a token; with --directory a subject's id")
	case *of.directory != "":
		return in.people(ctx, of, rest[0], nil, func(string, string) bool { return true })
	}
	return in.access(ctx, *of.dir, nil, rest[0], func(c author.Change) bool { return slices.Contains(strings.Split(c.Who, " + "), rest[0]) })
}

// ask asks a decision point.
func (in *invocation) ask(ctx context.Context, of reach, kind authzen.Kind, r authzen.Request, resource string) (int, error) {
	name, id, ok := strings.Cut(resource, ":")
	if !ok || name == "" || id == "" {
		return Failure, fmt.Errorf("%q is no type and id of a resource, such as order:17 or order:/orders", resource)
	}
	r.Resource = authzen.Resource{Type: name, ID: id}
	properties := map[string]any{}
	if *of.tenant != "" {
		properties["tenant"] = *of.tenant
	}
	if of.roles != nil && *of.roles != "" {
		properties["roles"] = strings.Split(*of.roles, ",")
	}
	if len(properties) > 0 {
		r.Subject.Properties = properties
	}
	var options []authzen.Option
	if *of.token != "" {
		token, err := web.ReadToken(*of.token)
		if err != nil {
			return Failure, fmt.Errorf("%s: %w", *of.token, err)
		}
		options = append(options, authzen.WithToken(token))
	}
	client, err := authzen.NewClient(*of.pdp, 30*time.Second, options...)
	if err != nil {
		return Failure, err
	}
	defer client.Close()
	found, about, err := client.Search(ctx, kind, r)
	if err != nil {
		return Failure, err
	}
	if in.json {
		if found == nil {
			found = []authzen.Entity{}
		}
		return OK, in.document(authzen.SearchResponse{Page: authzen.Page{Count: len(found)}, Context: &about, Results: found})
	}
	for _, one := range found {
		in.printf("%s\n", one.ID+one.Name)
	}
	what := map[authzen.Kind]string{authzen.Subjects: "subjects", authzen.Actions: "actions"}[kind]
	if of.roles != nil && *of.roles == "" && about.Directory == "" {
		in.printf("these %d %s of somebody without roles, by revision %s: the decision point has no directory, so name by --roles what a token would give\n", len(found), what, about.Revision)
		return OK, nil
	}
	if about.Complete {
		in.printf("these %d %s, and no others, by revision %s\n", len(found), what, about.Revision)
	} else {
		in.printf("these %d %s by revision %s; there may be others: %s\n", len(found), what, about.Revision, strings.Join(about.Reasons, ", "))
	}
	return OK, nil
}

// tried refuses what no case and no table speaks of: that nobody may do it would be said without having tried. An ask and a role
// may be missing.
func tried(p *author.Policy, ask []string, role string) error {
	all, err := p.Spoken()
	if err != nil {
		return err
	}
	if what := strings.Join(ask, " "); what != "" && !slices.Contains(all.Asks, what) {
		return fmt.Errorf("no case and no table of %s speaks of %s, but of %s", p.Dir, what, some(all.Asks))
	}
	if role != "" && !slices.Contains(all.Who, role) {
		return fmt.Errorf("no case and no table of %s speaks of the role %s, but of %s; people are named by --directory or --pdp", p.Dir, role, some(all.Who))
	}
	return nil
}

// some is a list of at most 20 words.
func some(words []string) string {
	const most = 20
	switch n := len(words); {
	case n == 0:
		return "none"
	case n > most:
		return strings.Join(words[:most], ", ") + fmt.Sprintf(" and %d more", n-most)
	}
	return strings.Join(words, ", ")
}

// people shows who of a directory may do what.
func (in *invocation) people(ctx context.Context, of reach, id string, ask []string, wanted func(action, resource string) bool) (int, error) {
	p, err := in.open(*of.dir, *of.directory)
	if err != nil {
		return Failure, err
	}
	if err := tried(p, ask, ""); err != nil {
		return Failure, err
	}
	all, err := p.People(ctx, id, wanted)
	if err != nil {
		return Failure, fmt.Errorf("%s: %w", *of.directory, err)
	}
	if in.json {
		return OK, in.document(all)
	}
	rows := make([]row, len(all.May))
	for i, m := range all.May {
		who := strings.Join(m.Who[:min(mostNamed, len(m.Who))], ", ")
		if more := len(m.Who) - mostNamed; more > 0 {
			who += fmt.Sprintf(" and %d more", more)
		}
		rows[i] = row{who, author.Change{Action: m.Action, Resource: m.Resource, When: m.When, Unless: m.Unless}}
	}
	in.rows(rows)
	in.printf("of %d subjects, in %d kinds that the rules cannot tell apart, as far as %d requests tell, made up from all that the cases and tables speak of\n", all.Subjects, all.Kinds, all.Requests)
	if all.LeftOut > 0 {
		in.printf("%d subjects were left out: there are too many kinds; ask a decision point by --pdp\n", all.LeftOut)
	}
	return OK, nil
}

// row is one answer: who, and what when.
type row struct {
	who string
	author.Change
}

func (in *invocation) rows(all []row) {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, r := range all {
		for i, condition := range conditions(r.Change) {
			who, what := r.who, r.Action+" "+r.Resource
			if i > 0 {
				who, what = "", ""
			}
			if len(r.When)+len(r.Unless) == 0 {
				condition = "always"
			}
			_, _ = w.Write([]byte(who + "\t" + what + "\t" + condition + "\n")) // into memory
		}
	}
	_ = w.Flush() // into memory
	in.printf("%s", text.String())
	if len(all) == 0 {
		in.printf("nobody, and nothing\n")
	}
}

// access shows what of all that may be done is wanted.
func (in *invocation) access(ctx context.Context, dir string, ask []string, role string, wanted func(author.Change) bool) (int, error) {
	p, err := author.Open(dir)
	if err != nil {
		return Failure, err
	}
	if err := tried(p, ask, role); err != nil {
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
	rows := make([]row, len(all.Changes))
	for i, c := range all.Changes {
		rows[i] = row{c.Who, c}
	}
	in.rows(rows)
	in.printf("as far as %d requests tell, made up from all that the cases and tables speak of\n", all.Requests)
	return OK, nil
}
