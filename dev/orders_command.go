package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/orders"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// runOrders serves the sample upstream alone, as the compose file does: several listeners over one store.
func runOrders(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("gatehouse-dev orders", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:9000,127.0.0.1:9001", "addresses to listen on, separated by commas")
	if err := flags.Parse(args); err != nil {
		return err
	}
	log := telemetry.Logger(stderr, slog.LevelInfo)
	store := orders.NewStore(time.Now)
	var services []lifecycle.Service
	var listeners []net.Listener
	for addr := range strings.SplitSeq(*listen, ",") {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", strings.TrimSpace(addr))
		if err != nil {
			for _, open := range listeners {
				err = errors.Join(err, open.Close())
			}
			return fmt.Errorf("listen: %w", err)
		}
		listeners = append(listeners, ln)
		log.InfoContext(ctx, "orders listens", "address", ln.Addr().String())
		services = append(services, lifecycle.Func(func(ctx context.Context) error {
			return web.Serve(ctx, ln, orders.Handler(store, ln.Addr().String()), log)
		}))
	}
	return lifecycle.Run(ctx, services...)
}
