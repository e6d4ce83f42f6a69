// Command gatehouse-dev is all of Gatehouse in one process, for development: `serve` runs it, `demo` plays a story against it
// and fails at the first surprise, `orders` serves the sample upstream alone.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: gatehouse-dev [serve] [flags]   everything in one process
       gatehouse-dev demo [flags]      the same on free ports, and a story played against it
       gatehouse-dev orders [flags]    the sample upstream alone`

func main() {
	err := run(context.Background(), os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-dev:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	command := "serve"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	switch command {
	case "serve":
		return runServe(ctx, args, getenv, stdout, stderr)
	case "demo":
		return runDemo(ctx, args, getenv, stdout, stderr)
	case "orders":
		return runOrders(ctx, args, stderr)
	}
	return errors.New("no such command\n" + usage)
}
