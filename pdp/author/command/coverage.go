package command

import (
	"context"
	"errors"
	"fmt"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func coverageOf(ctx context.Context, in *invocation) (int, error) {
	dir := in.flags.String("policies", "policies", "the folder of the policy")
	least := in.flags.Float64("fail-under", 100, "percent of protected operations below which to fail")
	closed := in.flags.Bool("fail-on-open", false, "take for unprotected also what the file itself leaves open")
	verbose := in.flags.Bool("v", false, "name the operations that are protected, too")
	known := in.directory()
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 1 {
		return Failure, errors.New("coverage takes a kong.yml or an OpenAPI 3 document")
	}
	if !(*least >= 0 && *least <= 100) { // NaN is none either
		return Failure, fmt.Errorf("--fail-under: %g is no percentage", *least)
	}
	routes, _, err := in.routes(rest[0])
	if err != nil {
		return Failure, err
	}
	p, err := in.open(*dir, *known)
	if err != nil {
		return Failure, err
	}
	all, err := p.Protection(ctx, routes)
	if err != nil {
		return Failure, fmt.Errorf("%s: %w", rest[0], err)
	}
	if *closed {
		all = all.Closed()
	}
	code := OK
	if all.Percent < *least {
		code = Findings
	}
	if in.json {
		return code, in.document(all)
	}
	in.protection(all, *verbose)
	in.printf("%.1f %% protected: %d of %d operations%s", all.Percent, all.Protected, all.Protected+all.Unprotected, below(all.Percent, *least))
	if all.Open > 0 {
		in.printf("; %d more are open, as %s says", all.Open, rest[0])
	}
	in.printf("; as far as %d requests tell\n", all.Requests)
	return code, nil
}

// protection lists what is not protected, and what could be meant otherwise.
func (in *invocation) protection(all author.Protection, verbose bool) {
	for _, s := range all.Operations {
		if s.State == author.Protected && !verbose {
			continue
		}
		place := s.File
		if s.Line > 0 {
			place = fmt.Sprintf("%s:%d", s.File, s.Line)
		}
		what := s.Method + " " + s.Pattern
		if s.Pattern == "" {
			what = s.Route
		}
		in.printf("%s: %s: %s: %s\n", place, what, s.State, s.Why)
	}
}

// routes reads what a gateway or an API offers, and answers the text of it, too.
func (in *invocation) routes(file string) (author.Routes, []byte, error) {
	text, err := in.read(file)
	if err != nil {
		return author.Routes{}, nil, err
	}
	routes, err := author.ParseRoutes(file, text)
	return routes, text, err
}
