// Command gatehouse-plugin is Gatehouse's enforcement point: an external plugin for Kong 3.9.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-plugin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("gatehouse-plugin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", "/usr/local/kong/gatehouse.socket", "Unix socket that Kong connects to")
	dump := flags.Bool("dump", false, "print what Kong's query command expects, and end")
	docs := flags.Bool("docs", false, "print the configuration's documentation, docs/plugin.md, and end")
	status := flags.String("status", "127.0.0.1:8100", "private address of /healthz, /readyz, /metrics and the keys of assertions; empty for none")
	keyFile := flags.String("assertion-keys", "", "PEM file of P-256 keys for X-Gatehouse-Assertion, the same for all edges; empty for a key of this process alone")
	limitMemory := flags.Int64("limit-memory", limit.DefaultMemory>>20, "MiB that the limits over one Redis take at most")
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dump {
		return kong.Dump(stdout, *socket)
	}
	if *docs {
		return kong.Docs(stdout)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := telemetry.Logger(stderr, level)
	asserter, err := signer(*keyFile)
	if err != nil {
		return err
	}
	a := app.New(app.Options{Now: time.Now, Log: log, Asserter: asserter, LimitMemory: *limitMemory << 20})
	defer a.Close()
	server, err := kong.NewServer(a.Guard, time.Now, log)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, *socket)
	if err != nil {
		return err
	}
	services := []lifecycle.Service{a, lifecycle.Func(func(ctx context.Context) error { return server.Serve(ctx, ln) })}
	if *status != "" {
		private, err := new(net.ListenConfig).Listen(ctx, "tcp", *status)
		if err != nil {
			return errors.Join(fmt.Errorf("status: %w", err), ln.Close())
		}
		services = append(services, lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, private, a.Status(), log) }))
	}
	log.Info("serving Kong", "socket", *socket, "version", kong.Version)
	return lifecycle.Run(ctx, services...)
}

// signer makes what signs assertions, of the keys in a file or of one that dies with the process.
func signer(file string) (*assertion.Signer, error) {
	if file == "" {
		return assertion.NewSigner(time.Now)
	}
	text, err := os.ReadFile(file) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("assertion keys: %w", err)
	}
	return assertion.ReadSigner(text, time.Now)
}

// listen takes over the socket that a killed predecessor left behind, and refuses one that somebody still serves.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	if c, err := new(net.Dialer).DialContext(ctx, "unix", socket); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s is in use", socket), c.Close())
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("socket: %w", err), ln.Close())
	}
	return ln, nil
}
