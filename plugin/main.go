// Command gatehouse-plugin is Gatehouse's enforcement point: an external plugin for Kong 3.9, and with forward-auth what NGINX,
// Traefik, Caddy and Envoy ask before they pass a request on.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

func main() {
	redisx.Quiet()
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-plugin:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "forward-auth" {
		return runForwardAuth(ctx, args[1:], os.LookupEnv, stderr)
	}
	var s shared
	flags := flag.NewFlagSet("gatehouse-plugin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", "/usr/local/kong/gatehouse.socket", "Unix socket that Kong connects to")
	dump := flags.Bool("dump", false, "print what Kong's query command expects, and end")
	described := flags.String("plugin", kong.Name, "which plugin -dump describes: "+kong.Name+", or "+kong.OutcomeName+", which the same process serves on the same socket")
	docs := flags.Bool("docs", false, "print the configuration's documentation, docs/plugin.md, and end")
	s.add(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *dump {
		switch *described {
		case kong.Name:
			return kong.Dump(stdout, *socket)
		case kong.OutcomeName:
			return kong.DumpOutcome(stdout, *socket)
		}
		return fmt.Errorf("plugin: expected %s or %s", kong.Name, kong.OutcomeName)
	}
	if *docs {
		return kong.Docs(stdout)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := telemetry.Logger(stderr, s.level)
	a, end, err := s.app(os.LookupEnv, log)
	if err != nil {
		return err
	}
	defer end()
	server, err := kong.NewServer(a.Guard, time.Now, log)
	if err != nil {
		return err
	}
	server.Outcomes = a.Outcome
	turns := lifecycle.Func(func(ctx context.Context) error {
		err := s.turn(ctx, a, log, server, *socket, true)
		for errors.Is(err, kong.ErrRelieved) {
			err = s.turn(ctx, a, log, server, *socket, false)
		}
		return err
	})
	return lifecycle.Run(ctx, a, turns)
}

// turn serves Kong until ctx ends or another process takes over. At `kong reload` a new worker starts this program while the old
// worker's still serves. That one is asked to make room while it can still end its connections well: with its worker it is killed.
// Whoever has made room waits for its next turn: should the other have been started by mistake, it takes the socket back.
func (s *shared) turn(ctx context.Context, a *app.App, log *slog.Logger, server *kong.Server, socket string, ask bool) error {
	patience := time.Duration(0)
	ln, err := web.SucceedUnix(ctx, socket, 0o600, func() {
		log.Info("waiting for the process that serves the socket", "socket", socket)
		if patience = predecessor; ask {
			if err := kong.Relieve(ctx, socket); err != nil {
				log.Warn("the process that serves the socket cannot be asked to make room", "error", err)
			}
		}
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		return err
	}
	log.Info("serving Kong", "socket", socket, "version", kong.Version)
	serve := lifecycle.Func(func(ctx context.Context) error { return server.Serve(ctx, ln) })
	status := lifecycle.Func(func(ctx context.Context) error { return s.serveStatus(ctx, a, log, patience) })
	return lifecycle.Run(ctx, serve, status)
}

// shared is what both ways to serve can be told.
type shared struct {
	status, keyFile string
	traces          string
	limitMemory     int64
	tokenMemory     int64
	level           slog.Level
}

func (s *shared) add(flags *flag.FlagSet) {
	flags.StringVar(&s.status, "status", "127.0.0.1:8100", "private address of /healthz, /readyz, /metrics and the keys of assertions; empty for none")
	flags.StringVar(&s.keyFile, "assertion-keys", "", "PEM file of P-256 keys for X-Gatehouse-Assertion, the same for all edges; empty for a key of this process alone")
	flags.Int64Var(&s.limitMemory, "limit-memory", limit.DefaultMemory>>20, "MiB that the limits over one Redis take at most")
	flags.Int64Var(&s.tokenMemory, "token-memory", remember.DefaultMemory>>20, "MiB that verified tokens and issuers' answers take at most")
	flags.StringVar(&s.traces, "traces", tracing.None, "where spans go by OTLP over HTTP: none, otlp (OTEL_EXPORTER_OTLP_ENDPOINT), or a URL such as http://collector:4318")
	flags.TextVar(&s.level, "log-level", slog.LevelInfo, "debug, info, warn or error")
}

// app makes the App; end closes it and sends the last spans.
func (s *shared) app(lookup func(string) (string, bool), log *slog.Logger) (a *app.App, end func(), err error) {
	asserter, err := signer(s.keyFile)
	if err != nil {
		return nil, nil, err
	}
	tracer, err := tracing.New(tracing.Options{To: s.traces, Service: "gatehouse-plugin", Lookup: lookup, Log: log})
	if err != nil {
		return nil, nil, err
	}
	a = app.New(app.Options{Now: time.Now, Log: log, Asserter: asserter, LimitMemory: s.limitMemory << 20, TokenMemory: s.tokenMemory << 20, Tracer: tracer})
	return a, func() { a.Close(); tracer.Close() }, nil
}

// predecessor is how long the status address may stay in use after the socket has changed hands.
const predecessor = 5 * time.Second

// serveStatus serves the private address, unless there is none. It waits so long for one that is in use.
func (s *shared) serveStatus(ctx context.Context, a *app.App, log *slog.Logger, patience time.Duration) error {
	if s.status == "" {
		return nil
	}
	private, err := new(net.ListenConfig).Listen(ctx, "tcp", s.status)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); errors.Is(err, syscall.EADDRINUSE) && ctx.Err() == nil && time.Now().Before(end); <-tick.C {
		private, err = new(net.ListenConfig).Listen(ctx, "tcp", s.status)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // being told to stop is no failure
		}
		return fmt.Errorf("status: %w", err)
	}
	return web.Serve(ctx, private, a.Status(), log)
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
