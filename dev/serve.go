package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
)

// runServe runs everything until ctx ends, and says where it is once it answers.
func runServe(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	o, err := readOptions("serve", false, args, getenv, stderr)
	if err != nil {
		return err
	}
	begun := time.Now()
	return withStack(ctx, o, func(ctx context.Context, s *stack.Stack) error {
		people, err := stack.People(ctx, s, o.DataDir)
		if err != nil {
			return err
		}
		describe(stdout, o, s, people, time.Since(begun))
		<-ctx.Done()
		return nil
	})
}

// withStack runs the stack, and while it runs does what it is for; the end of either ends the other.
func withStack(ctx context.Context, o options, do func(context.Context, *stack.Stack) error) (err error) {
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	logs, err := os.OpenFile(filepath.Join(o.DataDir, "gatehouse.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("log: %w", err)
	}
	defer func() { err = errors.Join(err, logs.Close()) }()
	o.Log = telemetry.Logger(logs, slog.LevelInfo)
	s, err := stack.New(ctx, o.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- s.Run(ctx)
	}()
	ready, stop := context.WithTimeout(ctx, 30*time.Second)
	err = s.Ready(ready)
	stop()
	if err == nil {
		err = do(ctx, s)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // told to stop, or the stack's own failure says more
	}
	cancel()
	return errors.Join(err, <-ended)
}

func describe(w io.Writer, o options, s *stack.Stack, people []stack.Person, took time.Duration) {
	at := s.Addresses
	fmt.Fprintf(w, "Gatehouse runs; it was ready after %s. Ctrl-C ends it.\n\n", took.Round(10*time.Millisecond))
	for _, l := range [][2]string{
		{at.Gateway, "the gateway: what " + o.KongFile + " guards"},
		{at.Authsvc, "authsvc: accounts, sessions, profiles"},
		{at.Admin, "authsvc for admins: roles and who holds them, at /admin/v1"},
		{at.PDP, "the decision point, with the policies in " + o.PolicyDir},
		{at.Mailbox, "the mailbox: a page with the mails sent"},
		{at.Orders1, "orders, the sample upstream that knows nothing of Gatehouse"},
		{at.Orders2, "orders, the second copy"},
		{at.Status, "the plugin's /readyz"},
	} {
		fmt.Fprintf(w, "  http://%-22s %s\n", l[0], l[1])
	}
	fmt.Fprintf(w, "  %-29s the log, and what outlives the process\n\nAccounts, made at the first start:\n\n", o.DataDir)
	for _, p := range people {
		fmt.Fprintf(w, "  %-18s %s  (%s)\n", p.Email, p.Password, p.Role)
	}
	ann := people[0]
	fmt.Fprintf(w, `
To paste into another shell:

  # a token
  TOKEN=$(curl -s %[1]s/auth/login -H 'Content-Type: application/json' -d '{"email":"%[2]s","password":"%[3]s"}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  # allowed: 200
  curl -i %[1]s/orders -H "Authorization: Bearer $TOKEN"
  # denied: 403, order 1 is somebody else's, although the API itself would delete it
  curl -i -X DELETE %[1]s/orders/1 -H "Authorization: Bearer $TOKEN"
  # limited: 429 after 60 in a minute
  for i in $(seq 70); do curl -s -o /dev/null -w '%%{http_code} ' %[1]s/orders -H "Authorization: Bearer $TOKEN"; done; echo
`, s.URL(), ann.Email, ann.Password)
}
