// Command bench measures gatehouse-pdp beside OPA's own server, of the version that gatehouse-pdp embeds, on one scenario: both
// are asked the same over Unix sockets in turns, log every decision to one collector, and every answer is checked against a
// reference in Go. `make bench-pdp` runs it. Figures are medians of the rounds; the ratios say more than they do, for what else
// the machine is doing changes both alike.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	rounds := flag.Int("rounds", 5, "of every measurement")
	users := flag.Int("users", 1000, "of the scenario")
	seed := flag.Uint64("seed", 1, "of the questions")
	bindings := flag.Int("bindings", 1_000_000, "role bindings of the large relation; 0 to leave it out")
	each := flag.Duration("time", 1500*time.Millisecond, "of one measurement of a server")
	full := flag.Duration("log-time", time.Minute, "at full load, of which every record is looked for")
	only := flag.String("only", "servers,process,growth,publish,log", "which parts")
	nothing := flag.String("serve-nothing", "", "serve one fixed answer at this Unix socket and do nothing else; the measurement of the servers starts it")
	flag.Parse()
	if *nothing != "" {
		return serveNothing(ctx, *nothing)
	}
	b := &bench{users: *users}
	var err error
	if b.dir, err = os.MkdirTemp("", "bench-pdp"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if err := b.build(ctx); err != nil {
		return err
	}
	if b.logs, err = collect(ctx); err != nil {
		return err
	}
	defer func() { _ = b.logs.server.Close() }()
	all := questions(20_000, *users, *seed)
	for _, part := range []struct {
		name string
		run  func() error
	}{
		{"servers", func() error { return b.servers(ctx, all, *rounds, *each) }},
		{"process", func() error { return b.inProcess(ctx, all, *rounds) }},
		{"growth", func() error { return b.growth(ctx, *bindings, *rounds) }},
		{"publish", func() error { return b.publish(ctx, *bindings, *rounds) }},
		{"log", func() error { return b.records(ctx, all, *rounds, *full) }},
	} {
		if slices.Contains(strings.Split(*only, ","), part.name) {
			if err := part.run(); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	return ctx.Err()
}

// build makes both programs.
func (b *bench) build(ctx context.Context) error {
	b.opa, b.pdp = filepath.Join(b.dir, "opa"), filepath.Join(b.dir, "gatehouse-pdp")
	version := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "github.com/open-policy-agent/opa" {
				version = m.Version
			}
		}
	}
	if version == "" {
		return errors.New("which OPA is embedded is not known")
	}
	fmt.Println("OPA", version)
	for _, c := range [][]string{
		{"go", "install", "github.com/open-policy-agent/opa@" + version},
		{"go", "build", "-o", b.pdp, "github.com/gatehouse-auth/gatehouse/pdp"},
	} {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...) //nolint:gosec // the version is that of our own build
		cmd.Env = append(os.Environ(), "GOBIN="+b.dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(c, " "), err, out)
		}
	}
	return nil
}

func median(of []float64) float64 {
	if len(of) == 0 {
		return 0
	}
	slices.Sort(of)
	return of[len(of)/2]
}
