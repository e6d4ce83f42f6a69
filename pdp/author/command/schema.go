package command

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/schema"
)

func schemaOf(_ context.Context, in *invocation) (int, error) {
	dir := in.flags.String("policies", "", "folder of the policy whose look-ups say what is known of objects")
	out := in.flags.String("o", "", "file to write, such as policies/schema.json, rather than stdout")
	rest, err := in.parse()
	if err != nil {
		return Failure, err
	}
	var from schema.Sources
	for _, name := range rest {
		text, err := in.read(name)
		if err != nil {
			return Failure, err
		}
		if err := from.Add(name, text); err != nil {
			return Failure, err
		}
	}
	if *dir != "" {
		p, err := author.Open(*dir)
		if err != nil {
			return Failure, err
		}
		gatehouse, _ := p.Data["gatehouse"].(map[string]any)
		from.Lookups(gatehouse["lookups"])
	}
	text, err := from.Schema().Text()
	if err != nil {
		return Failure, err
	}
	if *out == "" {
		in.printf("%s", text) // JSON already
		return OK, nil
	}
	before, err := os.ReadFile(*out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Failure, err
	}
	changed := string(before) != string(text)
	if changed {
		if err := os.WriteFile(*out, text, 0o644); err != nil { //nolint:gosec // for all who read the policies
			return Failure, err
		}
	}
	if in.json {
		return OK, in.document(map[string]any{"written": *out, "changed": changed})
	}
	in.printf("%s\n", *out)
	return OK, nil
}
