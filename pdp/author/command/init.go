package command

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/schema"
	"github.com/gatehouse-auth/gatehouse/policies"
)

func initialise(_ context.Context, in *invocation) (int, error) {
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	if len(rest) != 2 {
		return Failure, errors.New("init takes a kong.yml or an OpenAPI 3 document, and the folder to make")
	}
	routes, text, err := in.routes(rest[0])
	if err != nil {
		return Failure, err
	}
	written, err := author.Skeleton(routes, policies.FS, rest[1])
	if err != nil {
		return Failure, err
	}
	known, err := inputOf(rest[0], text)
	if err != nil {
		return Failure, err
	}
	name := filepath.Join(rest[1], schema.File)
	if err := os.WriteFile(name, known, 0o644); err != nil { //nolint:gosec // for all who read the policies
		return Failure, err
	}
	written = append(written, name)
	if in.json {
		return OK, in.document(map[string]any{"written": written, "routes": routes})
	}
	for _, name := range written {
		in.printf("%s\n", name)
	}
	if !routes.Gateway {
		in.printf("in kong.yml, as the plugin's resources:\n")
		seen := map[string]bool{}
		for _, o := range routes.Operations {
			if !seen[o.Pattern] {
				seen[o.Pattern] = true
				in.printf("  - {pattern: %q, type: %s}\n", o.Pattern, o.Type)
			}
		}
	}
	in.printf("%d operations are for the role admin alone\n", len(routes.Operations))
	for _, open := range routes.Open {
		in.printf("no policy is asked about %s\n", open)
	}
	for _, nowhere := range routes.Nowhere {
		in.printf("all is denied, for no resource stands for it: %s\n", nowhere)
	}
	return OK, nil
}

// inputOf is what policies will see of requests, so that a misspelt member is an error from the first rule on.
func inputOf(file string, text []byte) ([]byte, error) {
	var from schema.Sources
	if err := from.Add(file, text); err != nil {
		return nil, err
	}
	return from.Schema().Text()
}
