package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// serveNothing answers every request with one decision that nobody made: what a server in Go can reach at all on this machine.
func serveNothing(ctx context.Context, socket string) error {
	l, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	s := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"decision":true,"result":true}`))
	})}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// ceiling measures that server as the others are.
func (b *bench) ceiling(ctx context.Context, all []question, rounds int, each time.Duration) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	socket := filepath.Join(b.dir, "nothing.sock")
	p, err := start(ctx, "nothing", socket, self, "-serve-nothing", socket)
	if err != nil {
		return err
	}
	defer p.stop()
	for i := range all {
		all[i].want = true // all that it says
	}
	requests := dataAPI.requests(all)
	var speed, cpu, p50, p99 []float64
	for range rounds {
		busy, err := (load{api: dataAPI, requests: requests, conns: 16, time: each}).run(ctx, p)
		if err != nil {
			return err
		}
		quiet, err := (load{api: dataAPI, requests: requests, conns: 1, time: each / 2}).run(ctx, p)
		if err != nil {
			return err
		}
		speed, cpu, p50, p99 = append(speed, busy.perSecond), append(cpu, busy.cpu), append(p50, quiet.p50), append(p99, quiet.p99)
	}
	fmt.Printf("\nnet/http that decides nothing: %.0f answers/s by 16 connections, CPU µs per answer %.1f; by one p50 %.0f µs, p99 %.0f µs\n",
		median(speed), median(cpu), median(p50), median(p99))
	return nil
}
