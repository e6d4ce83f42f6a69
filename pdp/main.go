// Command gatehouse-pdp is Gatehouse's policy decision point: Rego policies behind the OpenID AuthZEN API, and OPA's Data API.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/memory"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/internal/web/usual"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/pdp/traced"
	"github.com/gatehouse-auth/gatehouse/policies"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	authorTools(ctx, os.Args[1:])
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-pdp:", err)
		os.Exit(exitCode(os.Args[1:], err)) //nolint:gocritic // nothing is left to be stopped
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	if len(args) == 0 || args[0] != "serve" {
		return other(ctx, args, os.Stdout, stderr)
	}
	c, err := readConfig(args[1:], getenv, stderr)
	if err != nil {
		return err
	}
	if c.policies != "" {
		if _, err := os.ReadDir(c.policies); err != nil {
			return err // names the folder, which is all that the engine cannot
		}
	}
	log := telemetry.Logger(stderr, c.level)
	memory.Limit(log)
	tracer, err := tracing.New(tracing.Options{To: c.traces, Service: "gatehouse-pdp", Lookup: func(name string) (string, bool) { v := getenv(name); return v, v != "" }, Log: log})
	if err != nil {
		return err
	}
	defer tracer.Close()
	opts := engine.Options{Dir: c.policies, Services: c.services, Tokens: c.tokenFiles, Skip: c.skip, OtherInputs: c.otherInputs(), Log: log, NoNative: !c.native, NoPartial: !c.partial, Span: traced.Parts(tracer), Now: now, Gauge: new(pace.Gauge)}
	sources, err := feeds(c.bundles, &opts)
	if err != nil {
		return err
	}
	if c.policies == "" && c.bundles == "" {
		opts.Policies = policies.FS
	}
	known, err := openDirectory(c.directory, log)
	if err != nil {
		return err
	}
	opts.Directory = known.Directory
	operation, err := operate(c, &opts, log)
	if err != nil {
		return err
	}
	e, err := engine.Open(ctx, opts)
	if err != nil {
		return err
	}
	decisions, err := recording.Open("gatehouse-pdp", c.decisionLog, log)
	if err != nil {
		return err
	}
	if err := operation.start(ctx, c, sources, e, known.Directory, decisions.Masks(), log); err != nil {
		return fmt.Errorf("operation: %w", err)
	}
	in, err := open(ctx, c, log)
	if err != nil {
		return err
	}
	meter := metrics.New(e.Stats, now)
	decisions.Measure(meter)
	operation.measure(meter)
	known.measure(meter)
	if tracer != nil {
		meter.Register(tracer)
	}
	doors := server.New(server.Options{
		Now: now, Engine: traced.Engine(tracer, decisions.Engine(operation.engine(e))), Search: decisions.Searcher(e), SearchCallers: c.searchers, DecisionLog: decisions.Lines, Checks: operation.checks(known.checks(decisions.Checks(), false), false), Log: log, Meter: meter, Callers: in.callers, BaseURL: c.baseURL, DataPaths: c.dataPaths,
		OPAVersion: engine.OPAVersion(), MaxBody: c.maxBody, MaxBatch: c.maxBatch, MaxConcurrent: c.maxConcurrent,
	})
	handler := traced.Handler(tracer, doors)
	proxy, err := doors.Envoy(c.envoy)
	if err != nil {
		return errors.Join(fmt.Errorf("envoy: %w", err), in.Close())
	}
	envoy, err := in.envoy(ctx, c, log)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	services := append(in.parts, memory.Pacer{})
	services = append(services, operation.parts...)
	services = append(services, known.services()...)
	services = append(services, e, lifecycle.Func(func(ctx context.Context) error {
		// The decision log outlives the last request, so that no denial made while draining is lost.
		writing, stop := context.WithCancel(context.WithoutCancel(ctx))
		written := make(chan error, 1)
		go func() { written <- decisions.Run(writing) }()
		err := serveAll(ctx, in, handler, envoy, proxy, log)
		stop()
		return errors.Join(err, <-written)
	}))
	told := []any{slog.String("address", in.Addr().String()), slog.String("revision", e.Revision())}
	if envoy != nil {
		told = append(told, slog.String("envoy", envoy.Addr().String()))
	}
	if c.status != "none" {
		private, err := new(net.ListenConfig).Listen(ctx, "tcp", c.status)
		if err != nil {
			return errors.Join(fmt.Errorf("status: %w", err), in.Close())
		}
		told = append(told, slog.String("status", private.Addr().String()))
		services = append(services, lifecycle.Func(func(ctx context.Context) error {
			return web.Serve(ctx, private, server.Status(e, meter.Handler(log), operation.checks(known.checks(decisions.Checks(), true), true)), log)
		}))
	}
	log.InfoContext(ctx, "deciding", told...)
	return lifecycle.Run(ctx, services...)
}

// serveAll serves both doors until ctx ends, or one of them fails. The second may have no listener.
func serveAll(ctx context.Context, first net.Listener, h http.Handler, second net.Listener, envoy http.Handler, log *slog.Logger) error {
	doors := []lifecycle.Service{lifecycle.Func(func(ctx context.Context) error { return usual.Serve(ctx, first, h, log) })}
	if second != nil {
		doors = append(doors, lifecycle.Func(func(ctx context.Context) error { return web.ServeHTTP2(ctx, second, envoy, log) }))
	}
	return lifecycle.Run(ctx, doors...)
}
