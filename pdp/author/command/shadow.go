package command

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/control"
	"github.com/gatehouse-auth/gatehouse/pdp/shadow"
)

// socket is the --control flag of commands that ask a running decision point.
func (in *invocation) socket() *string {
	return in.flags.String("control", os.Getenv("PDP_CONTROL"), "Unix socket of the decision point ($PDP_CONTROL)")
}

var errNoSocket = errors.New("say by --control, or $PDP_CONTROL, which Unix socket the decision point listens at")

func shadowing(ctx context.Context, in *invocation) (int, error) {
	socket := in.socket()
	want := in.flags.String("want", shadow.Active, "test: whose decision the case wants, active or candidate")
	failOnWidening := in.flags.Bool("fail-on-widening", false, "status: exit with 1 if the candidate allows what is denied")
	failOnChange := in.flags.Bool("fail-on-change", false, "status: exit with 1 if the candidate decides anything otherwise")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	switch {
	case len(rest) == 1 && rest[0] == "status" && *socket != "":
		var st control.Status
		if err := control.Ask(ctx, *socket, http.MethodGet, "/status", nil, &st); err != nil {
			return Failure, err
		}
		code := OK
		if of := st.Shadow; of != nil && (*failOnWidening && of.Counts.Gains > 0 || *failOnChange && of.Counts.Gains+of.Counts.Loses > 0) {
			code = Findings
		}
		if in.json {
			return code, in.document(st)
		}
		in.status(st)
		return code, nil
	case len(rest) == 2 && rest[0] == "test" && *socket != "":
		var c shadow.Case
		if err := control.Ask(ctx, *socket, http.MethodGet, "/case/"+url.PathEscape(rest[1])+"?want="+url.QueryEscape(*want), nil, &c); err != nil {
			return Failure, err
		}
		code := OK
		if !c.Shows {
			code = Findings
			fmt.Fprintf(in.Err, "this case does not show the disagreement: the policy in force decides %s of it, the candidate %s; they look at what a case cannot say", c.Active, c.Now)
			if len(c.Hidden) > 0 {
				fmt.Fprintf(in.Err, ", or at what is masked: %s", strings.Join(c.Hidden, ", "))
			}
			fmt.Fprintln(in.Err)
		}
		if in.json {
			return code, in.document(c)
		}
		in.printf("%s", c.Case)
		return code, nil
	case (len(rest) == 1 && rest[0] == "status" || len(rest) == 2 && rest[0] == "test"):
		return Failure, errNoSocket
	}
	return Failure, errors.New("shadow status, or shadow test ID")
}

func (in *invocation) status(st control.Status) {
	in.printf("revision %s decides%s\n", st.Revision, map[bool]string{true: ", promoted over the policy folder's own"}[st.Promoted && st.Pinned == ""])
	if st.Pinned != "" {
		in.printf("  %s\n", st.Pinned)
	}
	of := st.Shadow
	if of == nil {
		in.printf("no candidate is compared\n")
		return
	}
	switch {
	case of.Candidate == "":
		in.printf("there is no candidate\n")
	case of.Since == nil:
		in.printf("candidate %s is compared on %g %% of the requests; there have been none yet\n", of.Candidate, 100*of.Share)
	default:
		in.printf("candidate %s is compared on %g %% of the requests, since %s\n", of.Candidate, 100*of.Share, of.Since.UTC().Format(time.RFC3339))
	}
	if of.Why != "" {
		in.printf("  %s\n", of.Why)
	}
	var rows strings.Builder
	w := tabwriter.NewWriter(&rows, 0, 0, 2, ' ', 0)
	for _, d := range of.Disagreements {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s %s\t%s  →  %s\t%d\n", d.ID, d.Direction, d.Who, d.Action, d.Resource, d.Before, d.After, d.Times)
	}
	_ = w.Flush() // into memory
	in.printf("%s", rows.String())
	c := of.Counts
	in.printf("%d compared: %d gained, %d lost, %d decided alike for other reasons, %d that the candidate could not decide; %d left out for want of room\n",
		c.Compared, c.Gains, c.Loses, c.OtherReasons, c.Failed, of.Dropped)
	if of.NotToldApart > 0 {
		in.printf("%d more disagreements are of too many kinds to be told apart\n", of.NotToldApart)
	}
}

func promote(ctx context.Context, in *invocation) (int, error) {
	socket := in.socket()
	rest, err := in.parse()
	switch {
	case err != nil:
		return Failure, err
	case len(rest) > 1:
		return Failure, errors.New("promote takes the revision of the candidate, as shadow status shows it, or nothing")
	case *socket == "":
		return Failure, errNoSocket
	}
	seen := map[string]string{}
	if len(rest) == 1 {
		seen["revision"] = rest[0]
	}
	return in.turn(ctx, *socket, "/promote", seen)
}

func rollback(ctx context.Context, in *invocation) (int, error) {
	return in.bare(ctx, "/rollback", "rollback takes nothing: it goes back to what decided before")
}

func release(ctx context.Context, in *invocation) (int, error) {
	return in.bare(ctx, "/release", "release takes nothing: it is about all sources")
}

// bare does what needs no more than a socket.
func (in *invocation) bare(ctx context.Context, path, takesNothing string) (int, error) {
	socket := in.socket()
	rest, err := in.parse()
	switch {
	case err != nil:
		return Failure, err
	case len(rest) > 0:
		return Failure, errors.New(takesNothing)
	case *socket == "":
		return Failure, errNoSocket
	}
	return in.turn(ctx, *socket, path, nil)
}

func (in *invocation) turn(ctx context.Context, socket, path string, body any) (int, error) {
	var done control.Turned
	if err := control.Ask(ctx, socket, http.MethodPost, path, body, &done); err != nil {
		return Failure, err
	}
	if in.json {
		return OK, in.document(done)
	}
	in.printf("revision %s decides, in place of %s\n", done.Revision, done.Before)
	return OK, nil
}
