// Command gatehouse-authsvc keeps accounts, sessions and profiles, and issues the tokens that the edge verifies.
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

	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/authsvc/store"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

const usage = `usage: gatehouse-authsvc COMMAND [flags]

  serve         serve the roles of $AUTHSVC_ROLES
  migrate       bring the database to the version that this program needs
  user create   make an account whose address counts as proved
  role set      make a role, or replace what it is
  role grant    give a role; how the first admin comes about
  role revoke   take a role away
  role list     list the roles, or those that somebody holds
  directory new-epoch
                after a restore from a backup: decision points begin again with a snapshot

The configuration is in the environment; docs/operations.md lists it`

func main() {
	redisx.Quiet()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gatehouse-authsvc:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	cfg, err := app.Load(getenv)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	switch {
	case len(args) > 0 && args[0] == "serve":
		return serve(ctx, cfg, args[1:], stderr)
	case len(args) > 0 && args[0] == "migrate":
		return migrate(ctx, cfg, args[1:], stderr)
	case len(args) > 1 && args[0] == "user" && args[1] == "create":
		return createUser(ctx, cfg, args[2:], stdin, stdout, stderr)
	case len(args) > 1 && args[0] == "role" || len(args) > 1 && args[0] == "directory":
		if command, known := roleCommands()[args[0]+" "+args[1]]; known {
			return command(ctx, cfg, args[2:], stdout, stderr)
		}
	}
	return errors.New("no such command\n" + usage)
}

// parse reads the flags of a command that takes nothing else.
func parse(flags *flag.FlagSet, args []string, stderr io.Writer) error {
	flags.SetOutput(stderr)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes flags only", flags.Name())
	}
	return nil
}

func serve(ctx context.Context, cfg app.Config, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("gatehouse-authsvc serve", flag.ContinueOnError)
	flags.StringVar(&cfg.Listen, "listen", cfg.Listen, "host:port ($AUTHSVC_LISTEN)")
	level := slog.LevelInfo
	flags.TextVar(&level, "log-level", level, "debug, info, warn or error")
	if err := parse(flags, args, stderr); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	log := telemetry.Logger(stderr, level)
	db, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	client, err := redisx.Open(cfg.RedisURL.Reveal())
	if err != nil {
		return fmt.Errorf("AUTHSVC_REDIS_URL: %w", err)
	}
	defer client.Close()
	a, err := app.Build(cfg, app.Parts{DB: db, Redis: client, Now: time.Now, Log: log})
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("AUTHSVC_LISTEN: %w", err)
	}
	log.InfoContext(ctx, "serving", "address", ln.Addr().String(), "roles", cfg.Roles, "issuer", cfg.Issuer)
	if !cfg.Has(app.Admin) {
		return a.Run(ctx, ln)
	}
	more, err := administration(ctx, cfg, a, log)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	return a.Run(ctx, ln, more...)
}

func open(ctx context.Context, cfg app.Config) (*store.DB, error) {
	db, err := store.Open(ctx, cfg.DatabaseURL.Reveal())
	if err != nil {
		return nil, fmt.Errorf("AUTHSVC_DATABASE_URL: %w", err)
	}
	return db, nil
}

func migrate(ctx context.Context, cfg app.Config, args []string, stderr io.Writer) error {
	if err := parse(flag.NewFlagSet("gatehouse-authsvc migrate", flag.ContinueOnError), args, stderr); err != nil {
		return err
	}
	if err := cfg.ValidateDatabase(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	db, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Migrate(ctx)
}
