// Command gatehouse-pdp is Gatehouse's policy decision point: Rego policies behind the OpenID AuthZEN API.
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
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/policies"
)

const usage = `usage: gatehouse-pdp serve [flags]

  serve   decide by AuthZEN: POST /access/v1/evaluation`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Getenv, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-pdp:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stderr io.Writer) error {
	if len(args) == 0 || args[0] != "serve" {
		return errors.New("no such command\n" + usage)
	}
	flags := flag.NewFlagSet("gatehouse-pdp serve", flag.ContinueOnError)
	flags.SetOutput(stderr)
	address := flags.String("listen", env(getenv, "PDP_LISTEN", ":8181"), "host:port or unix:///path ($PDP_LISTEN)")
	dir := flags.String("policies", getenv("PDP_POLICIES"), "folder of policies; without one, those built in ($PDP_POLICIES)")
	services := flags.String("services", getenv("PDP_SERVICES"),
		"where look-ups go: name=url|url,name=url ($PDP_SERVICES)")
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return errors.New("serve takes flags only")
	}
	known, err := parseServices(*services)
	if err != nil {
		return err
	}
	log := telemetry.Logger(stderr, level)
	opts := engine.Options{Dir: *dir, Services: known, Log: log}
	if *dir == "" {
		opts.Policies = policies.FS
	}
	e, err := engine.Open(ctx, opts)
	if err != nil {
		return err
	}
	ln, err := listen(ctx, *address)
	if err != nil {
		return err
	}
	decisions := decisionlog.New(log)
	handler := server.New(server.Options{Engine: e, DecisionLog: decisions, Log: log})
	log.InfoContext(ctx, "deciding", "address", ln.Addr().String(), "revision", e.Revision())
	return lifecycle.Run(ctx, e, lifecycle.Func(func(ctx context.Context) error {
		// The decision log outlives the last request, so that no denial made while draining is lost.
		writing, stop := context.WithCancel(context.WithoutCancel(ctx))
		written := make(chan error, 1)
		go func() { written <- decisions.Run(writing) }()
		err := web.Serve(ctx, ln, handler, log)
		stop()
		return errors.Join(err, <-written)
	}))
}

func env(getenv func(string) string, name, absent string) string {
	if v := getenv(name); v != "" {
		return v
	}
	return absent
}

// parseServices reads "orders=http://a:9000|http://b:9000,users=http://c".
func parseServices(text string) (map[string][]string, error) {
	known := map[string][]string{}
	for entry := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, urls, ok := strings.Cut(strings.TrimSpace(entry), "=")
		if !ok || name == "" || known[name] != nil {
			return nil, errors.New("services: each must be name=url|url, and be named once")
		}
		for base := range strings.SplitSeq(urls, "|") {
			u, err := url.Parse(base)
			if err != nil || u.Host == "" {
				return nil, fmt.Errorf("services: %s: not a URL", name)
			}
			known[name] = append(known[name], base)
		}
	}
	return known, nil
}

// listen opens a TCP port or a Unix socket; it takes over the socket that a killed predecessor left behind.
func listen(ctx context.Context, address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix://")
	if !unix {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("socket %s is in use", path), c.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket: %w", err)
	}
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
