package main

import (
	"context"
	"os"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
)

// authorTools runs what args ask of the policy author's tools and leaves; it comes back where they ask for something else.
func authorTools(ctx context.Context, args []string) {
	if code, known := command.Run(ctx, args, command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}); known {
		os.Exit(code)
	}
}

// authorUsage lists the policy author's tools.
func authorUsage() string { return command.Usage() }
