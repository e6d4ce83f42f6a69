// Package command is the command line of those who write policies: gatehouse-pdp test, explain, diff, lint, fmt, …
//
// Every command takes --json and answers by its exit code: 0 is well, 1 found something, 2 could not be done. What it found goes
// to stdout as "file:line: what", errors go to stderr.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// Exit codes.
const (
	OK       = 0
	Findings = 1
	Failure  = 2
)

// command is one of the table.
type command struct {
	name, args, what string
	run              func(ctx context.Context, in *invocation) (code int, err error)
}

func (c command) usage() string {
	return strings.TrimSpace(fmt.Sprintf("gatehouse-pdp %s [flags] %s", c.name, c.args))
}

// errFlags is behind flags that cannot be read.
var errFlags = errors.New("")

func table() []command {
	return []command{
		{"test", "[DIR]", "run the tests, cases and matrices of a policy; what they cover, and which mistakes they would miss", test},
		{"coverage", "FROM", "list the operations of a kong.yml or an OpenAPI 3 document that nothing protects", coverageOf},
		{"explain", "FILE", "say why a case or a request is allowed or denied, and what is nearest to the opposite", explain},
		{"diff", "OLD NEW", "say who gains and who loses what from one policy to another", diff},
		{"replay", "LOG…", "decide again what a decision log holds, by another policy; say who gains and who loses what", replay},
		{"shadow", "status|test ID", "say where a candidate decides otherwise than the policy in force, on live requests; make a case of it", shadowing},
		{"promote", "[REVISION]", "put the candidate of a running decision point in force", promote},
		{"rollback", "", "put the policy in force that decided before", rollback},
		{"release", "", "let what the sources of bundles send decide again, where that was taken back", release},
		{"who-can", "ACTION RESOURCE", "say who may do something, and under which conditions", whoCan},
		{"what-can", "ROLE|SUBJECT", "say what a role, or a subject of a directory, may do, and under which conditions", whatCan},
		{"lint", "[DIR]", "find what should not be in a policy", lint},
		{"fmt", "[DIR]", "write the Rego of a folder as opa fmt does", formatting},
		{"price", "[DIR]", "measure what each rule costs, and whether OPA indexes it", price},
		{"bench", "[DIR]…", "measure what a decision costs, of one policy or several", bench},
		{"schema", "[FROM]…", "write what a policy's input can hold, from a kong.yml, OpenAPI 3 documents and lists of claims", schemaOf},
		{"init", "FROM DIR", "begin a policy from the routes of a kong.yml or an OpenAPI 3 document", initialise},
	}
}

// Usage lists the commands, one a line.
func Usage() string {
	var b strings.Builder
	for _, c := range table() {
		fmt.Fprintf(&b, "  %-9s%s\n", c.name, c.what)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Run runs the command that args begin with. It answers false where there is none of that name.
func Run(ctx context.Context, args []string, s Streams) (code int, known bool) {
	if len(args) == 0 {
		return Failure, false
	}
	for _, c := range table() {
		if c.name != args[0] {
			continue
		}
		in := &invocation{Streams: s, args: args[1:], flags: flag.NewFlagSet(c.name, flag.ContinueOnError)}
		in.flags.SetOutput(io.Discard) // what is wrong is said once, below
		in.flags.Usage = func() {}
		in.flags.BoolVar(&in.json, "json", false, "write one JSON document")
		code, err := c.run(ctx, in)
		switch {
		case errors.Is(err, flag.ErrHelp):
			in.printf("usage: %s\n\n%s\n\n", c.usage(), c.what)
			in.flags.SetOutput(s.Out)
			in.flags.PrintDefaults()
			return OK, true
		case errors.Is(err, errFlags):
			fmt.Fprintf(s.Err, "%v\nusage: %s (-h lists the flags)\n", err, c.usage())
			return Failure, true
		case err != nil:
			fmt.Fprintln(s.Err, err)
			return Failure, true
		}
		return code, true
	}
	return Failure, false
}

// invocation is one run of a command.
type invocation struct {
	Streams
	args  []string
	flags *flag.FlagSet
	json  bool
}

// parse reads flags wherever they stand, and answers the other arguments.
func (in *invocation) parse() ([]string, error) {
	var rest []string
	for args := in.args; ; {
		switch err := in.flags.Parse(args); {
		case errors.Is(err, flag.ErrHelp):
			return nil, err
		case err != nil:
			return nil, fmt.Errorf("%w%w", err, errFlags)
		}
		args = in.flags.Args()
		if len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// dir is the one folder that a command takes, "policies" where none is named.
func (in *invocation) dir() (string, error) {
	rest, err := in.parse()
	switch {
	case err != nil:
		return "", err
	case len(rest) > 1:
		return "", fmt.Errorf("%s takes one folder", in.flags.Name())
	case len(rest) == 1:
		return rest[0], nil
	}
	return "policies", nil
}

func (in *invocation) printf(format string, args ...any) { fmt.Fprintf(in.Out, format, args...) }

// document writes v as JSON.
func (in *invocation) document(v any) error {
	enc := json.NewEncoder(in.Out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
