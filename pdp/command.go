package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// authorTools runs what args ask of the policy author's tools and leaves; it comes back where they ask for something else.
func authorTools(ctx context.Context, args []string) {
	if code, known := command.Run(ctx, args, command.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}); known {
		os.Exit(code)
	}
}

// usage is what the program can do.
func usage() string {
	return "usage: gatehouse-pdp COMMAND …; COMMAND -h says more\n\n" +
		"  serve    decide: AuthZEN, and by choice OPA's Data API and Envoy's ext_authz\n" +
		"  bundle   build, sign and verify policy bundles\n" +
		"  version  say which version this is, and of OPA\n" + command.Usage()
}

// other runs what is neither serve nor an author's tool.
func other(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("there is no command\n" + usage())
	}
	switch args[0] {
	case "bundle":
		return bundleCommand(ctx, args[1:], stdout, stderr)
	case "help", "-h", "-help", "--help":
		_, err := fmt.Fprintln(stdout, usage())
		return err
	case "version", "-version", "--version":
		of := "(unknown)"
		if info, ok := debug.ReadBuildInfo(); ok {
			of = info.Main.Version
		}
		_, err := fmt.Fprintf(stdout, "gatehouse-pdp %s, OPA %s\n", of, engine.OPAVersion())
		return err
	}
	return fmt.Errorf("%q is no command\n%s", args[0], usage())
}

// exitCode of a command that failed, as author's tools have it: 1 where a bundle or a policy was found wanting, 2 where the command
// could not be done. It is 1 where serve ends.
func exitCode(args []string, err error) int {
	if errors.As(err, new(wanting)) || len(args) > 0 && args[0] == "serve" {
		return command.Findings
	}
	return command.Failure
}
