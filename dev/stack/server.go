package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// The servers' names, for Stop and Start.
const (
	Gateway = "gateway"
	Authsvc = "authsvc"
	Admin   = "admin"
	PDP     = "pdp"
	Mailbox = "mailbox"
	Orders1 = "orders-1"
	Orders2 = "orders-2"
	Status  = "status"
)

// server is one listening part. It can be stopped and started again at the same address, as if its process had been.
type server struct {
	name  string
	serve func(ctx context.Context, ln net.Listener) error

	mu      sync.Mutex
	ln      net.Listener // nil while stopped
	address string
	cancel  context.CancelFunc // ends the serving that is under way
	ended   chan struct{}
	wake    chan struct{} // holds one token after Start
}

func listenAt(ctx context.Context, name, address string) (*server, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &server{name: name, ln: ln, address: ln.Addr().String(), wake: make(chan struct{}, 1)}, nil
}

// Run serves, and after a Stop waits for the next Start, until ctx ends.
func (s *server) Run(ctx context.Context) error {
	for {
		if err := s.once(ctx); err != nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		}
	}
}

func (s *server) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	s.mu.Lock()
	ln := s.ln
	s.cancel, s.ended = cancel, ended
	s.mu.Unlock()
	if ln == nil {
		return nil
	}
	return s.serve(ctx, ln)
}

// stop ends the serving and waits for its end.
func (s *server) stop() {
	s.mu.Lock()
	cancel, ended := s.cancel, s.ended
	s.ln = nil
	s.mu.Unlock()
	if cancel != nil {
		cancel()
		<-ended
	}
}

func (s *server) start(ctx context.Context) error {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.mu.Lock()
	s.ln = ln
	s.mu.Unlock()
	s.wake <- struct{}{}
	return nil
}

// listen takes every address before anything runs, so that each part knows where the others are.
func (s *Stack) listen(ctx context.Context, at Addresses) error {
	for _, p := range []struct {
		name string
		want string
		got  *string
	}{
		{Gateway, at.Gateway, &s.Addresses.Gateway},
		{Authsvc, at.Authsvc, &s.Addresses.Authsvc},
		{Admin, at.Admin, &s.Addresses.Admin},
		{PDP, at.PDP, &s.Addresses.PDP},
		{Mailbox, at.Mailbox, &s.Addresses.Mailbox},
		{Orders1, at.Orders1, &s.Addresses.Orders1},
		{Orders2, at.Orders2, &s.Addresses.Orders2},
		{Status, at.Status, &s.Addresses.Status},
	} {
		srv, err := listenAt(ctx, p.name, p.want)
		if err != nil {
			return err
		}
		s.servers = append(s.servers, srv)
		s.closers = append(s.closers, func() error {
			if srv.ln == nil {
				return nil
			}
			if err := srv.ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		*p.got = srv.address
	}
	return nil
}

func (s *Stack) find(name string) *server {
	for _, srv := range s.servers {
		if srv.name == name {
			return srv
		}
	}
	panic("stack: no server " + name) // a constant of this package was misspelt
}

// serve has the server of this name answer by h.
func (s *Stack) serve(name string, h http.Handler) {
	log := s.log.With(slog.String("server", name))
	s.find(name).serve = func(ctx context.Context, ln net.Listener) error { return web.Serve(ctx, ln, h, log) }
}

// Stop ends one server as if its process had been stopped; Run must be running.
func (s *Stack) Stop(name string) { s.find(name).stop() }

// Start serves again what Stop ended, at the same address.
func (s *Stack) Start(ctx context.Context, name string) error { return s.find(name).start(ctx) }
