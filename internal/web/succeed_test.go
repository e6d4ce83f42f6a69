package web_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// At each moment somebody listens: the predecessor until the successor has taken its place, and after that too.
func TestASocketGoesFromOneProcessToTheNext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // what a killed one left
		t.Fatal(err)
	}
	never := func() { t.Error("there is nobody to wait for") }
	first, err := web.SucceedUnix(t.Context(), path, 0o600, never)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(path); err != nil || i.Mode() != fs.ModeSocket|0o600 {
		t.Fatalf("%v, %v", i, err)
	}
	waiting := make(chan struct{})
	type result struct {
		*web.Succession
		error
	}
	second := make(chan result)
	go func() {
		s, err := web.SucceedUnix(t.Context(), path, 0o600, func() { close(waiting) })
		second <- result{s, err}
	}()
	<-waiting
	meets(t, path, first, "while it has the socket")
	if err := first.Yield(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	s := <-second
	if s.error != nil {
		t.Fatal(s.error)
	}
	meets(t, path, s, "after the other has yielded")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	meets(t, path, s, "after the other has closed")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := web.SucceedUnix(t.Context(), path, 0o600, never)
	if err != nil {
		t.Fatal(err)
	}
	meets(t, path, third, "after one has gone without yielding")
	if err := errors.Join(third.Yield(0), third.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the last leaves the socket behind: %v", err)
	}
}

func meets(t *testing.T, path string, ln net.Listener, when string) {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("%s nobody listens: %v", when, err)
	}
	defer c.Close()
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	_ = accepted.Close() // that it came was all
}

func TestWhoWaitsForASocketCanBeTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	first, err := web.SucceedUnix(t.Context(), path, 0o600, func() {})
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := web.SucceedUnix(ctx, path, 0o600, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want to be told", err)
	}
	if _, err := web.SucceedUnix(ctx, filepath.Join(path, "none"), 0o600, cancel); err == nil {
		t.Error("a socket without a folder opens")
	}
}
