package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/forwardauth"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// forwardAuth is the command forward-auth: the guard for proxies that ask over HTTP.
type forwardAuth struct {
	shared
	config, proxy, listen, from, address string
}

func (f *forwardAuth) flags(stderr io.Writer) *flag.FlagSet {
	flags := flag.NewFlagSet("gatehouse-plugin forward-auth", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&f.config, "config", "kong.yml", "what is guarded, and how: Kong's declarative configuration; {vault://env/name} is read from the environment")
	flags.StringVar(&f.proxy, "proxy", "", "nginx, traefik, caddy, envoy or envoy-grpc: who asks; needed, for each tells of the original request by other headers")
	flags.StringVar(&f.listen, "listen", "127.0.0.1:8102", "private address that the proxy asks at: host:port, or unix:path for a Unix socket of mode 0660")
	flags.StringVar(&f.from, "from", "", "networks that the proxies are in, such as 10.0.1.0/24,10.0.2.7/32; needed unless only this machine can reach the listener")
	flags.StringVar(&f.address, "client-address", "", "header in which the proxy tells the client's address; empty for X-Real-IP with nginx, X-Forwarded-For with the others")
	f.shared.add(flags)
	return flags
}

// runForwardAuth serves until ctx ends, then lets requests under way end.
func runForwardAuth(ctx context.Context, args []string, lookup func(string) (string, bool), stderr io.Writer) error {
	var f forwardAuth
	if err := f.flags(stderr).Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := telemetry.Logger(stderr, f.level)
	a, end, err := f.app(lookup, log)
	if err != nil {
		return err
	}
	defer end()
	h, err := f.handler(a, lookup, log)
	if err != nil {
		return err
	}
	ln, err := f.open(ctx, h.Peers)
	if err != nil {
		return err
	}
	over := web.Serve
	if h.Proxy == forwardauth.EnvoyGRPC {
		over = web.ServeHTTP2
	}
	serve := lifecycle.Func(func(ctx context.Context) error { return over(ctx, ln, h.HTTP(), log) })
	log.Info("serving a proxy", "proxy", f.proxy, "address", ln.Addr().String(), "version", kong.Version)
	status := lifecycle.Func(func(ctx context.Context) error { return f.serveStatus(ctx, a, log, 0) })
	return lifecycle.Run(ctx, a, serve, status)
}

func (f *forwardAuth) handler(a *app.App, lookup func(string) (string, bool), log *slog.Logger) (*forwardauth.Handler, error) {
	peers, err := prefixes(f.from)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(f.config)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	routes, err := forwardauth.Load(text, forwardauth.Proxy(f.proxy), kong.Environment(lookup), a.Guard)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(routes.Rewritten) > 0 {
		log.Warn("routes rewrite the path; the proxy has to rewrite it likewise", "routes", routes.Rewritten)
	}
	if len(routes.Unheard) > 0 {
		log.Warn("failed log-ins of routes cannot be seen here and are not counted", "routes", routes.Unheard)
	}
	if len(routes.Unshown) > 0 {
		log.Warn("requests of routes that name objects in their body are refused, for the proxy does not show it", "routes", routes.Unshown)
	}
	if len(routes.Unguarded) > 0 {
		log.Warn("routes without the plugin are refused", "routes", routes.Unguarded)
	}
	return forwardauth.New(forwardauth.Options{
		Proxy: forwardauth.Proxy(f.proxy), AddressHeader: f.address, Peers: peers, Routes: routes, Meter: a.Meter(), Log: log,
		NewID: func() string { return uuid.Must(uuid.NewV7()).String() },
	})
}

func (f *forwardAuth) open(ctx context.Context, peers []netip.Prefix) (net.Listener, error) {
	if path, ok := strings.CutPrefix(f.listen, "unix:"); ok {
		if len(peers) > 0 {
			return nil, errors.New("from: the mode of a Unix socket says who may ask")
		}
		return web.ListenUnix(ctx, path, 0o660) // the proxy's workers are in the group
	}
	return forwardauth.Listen(ctx, f.listen, peers)
}

func prefixes(list string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for one := range strings.SplitSeq(list, ",") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		p, err := netip.ParsePrefix(one)
		if err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
