package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// demoLimit bounds the whole story.
const demoLimit = 2 * time.Minute

// runDemo plays the story against a stack of its own, which leaves nothing behind.
func runDemo(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) (err error) {
	o, err := readOptions("demo", true, args, getenv, stderr)
	if err != nil {
		return err
	}
	if o.DataDir, err = os.MkdirTemp("", "gatehouse-demo-"); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(o.DataDir)) }()
	ctx, cancel := context.WithTimeout(ctx, demoLimit)
	defer cancel()
	return withStack(ctx, o, func(ctx context.Context, s *stack.Stack) error {
		transport := &http.Transport{MaxIdleConnsPerHost: 16}
		defer transport.CloseIdleConnections()
		return story.Play(ctx, stack.Site(s, &http.Client{Transport: transport, Timeout: 10 * time.Second}), stdout)
	})
}
