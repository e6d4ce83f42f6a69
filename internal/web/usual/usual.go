// Package usual serves HTTP/1.1 where the time of a request counts that asks for little: it answers requests of the form that nearly
// all have, and leaves connections on which anything else comes to net/http, with what has come. So it has no reading of its own of
// anything that can be read in two ways: chunked bodies, other methods, queries, escapes, folded lines, two lengths, HTTP/1.0, large
// bodies, slow clients. See docs/adr/usual-requests.md for what it is worth, and why it is not another server.
//
// Handlers, their middleware and their answers are the same either way. A client that goes ends its request by the context, though up
// to two of look's turns later.
package usual

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	drain = time.Second            // for requests under way at the end, as with package web
	turn  = 100 * time.Millisecond // between two looks for requests that take long
)

// server is what connections have in common.
type server struct {
	begin   func() (context.Context, context.CancelFunc) // of a request
	handler http.Handler
	log     *slog.Logger
	others  *handedOver
	said    atomic.Pointer[date]

	mu    sync.Mutex
	conns map[*conn]struct{}
	empty chan struct{} // closed when the server ends and the last connection has; nil before it ends
	end   atomic.Bool
}

// Serve serves h on ln until ctx ends, then lets requests under way end for a second and cuts the rest, as web.Serve does, which
// serves what is not usual.
func Serve(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	base := context.WithoutCancel(ctx)
	s := &server{
		begin:   func() (context.Context, context.CancelFunc) { return context.WithCancel(base) },
		handler: h, log: log, conns: map[*conn]struct{}{},
		others: &handedOver{conns: make(chan net.Conn), closed: make(chan struct{}), at: ln.Addr()},
	}
	serving, stop := context.WithCancel(ctx)
	defer stop()
	others, accepting := make(chan error, 1), make(chan error, 1)
	go func() { others <- web.Serve(serving, s.others, h, log) }()
	go func() { accepting <- s.accept(serving, ln) }()
	looking := time.NewTicker(turn)
	defer looking.Stop()
	var errs []error
	for on := true; on; {
		select {
		case <-looking.C:
			s.each((*conn).look)
		case err := <-accepting:
			errs, on = append(errs, err), false
			accepting <- nil
		case err := <-others:
			errs, on = append(errs, err), false
			others <- nil
		case <-ctx.Done():
			on = false
		}
	}
	stop() // before the listener is closed, so that this is no failure
	errs = append(errs, ln.Close())
	s.close()
	return errors.Join(append(errs, <-accepting, <-others)...)
}

// accept takes connections until ctx ends. What passes by itself, such as too many open files, it waits for.
func (s *server) accept(ctx context.Context, ln net.Listener) error {
	for wait := time.Duration(0); ; {
		c, err := ln.Accept()
		switch {
		case err == nil:
			wait = 0
			s.take(c)
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it is closed
		case passes(err):
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			s.log.WarnContext(ctx, "no connection could be accepted", "error", err)
			again := time.NewTimer(wait)
			select {
			case <-again.C:
			case <-ctx.Done():
			}
			again.Stop()
		default:
			return fmt.Errorf("serve %s: %w", ln.Addr(), err)
		}
	}
}

func passes(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ECONNABORTED, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// take begins to serve a connection, unless the server ends: nobody would close it then.
func (s *server) take(nc net.Conn) {
	c := newConn(nc, s)
	s.mu.Lock()
	ending := s.ending()
	if !ending {
		s.conns[c] = struct{}{}
	}
	s.mu.Unlock()
	if ending {
		_ = nc.Close()
		return
	}
	go c.serve()
}

// handOver leaves a connection to net/http.
func (s *server) handOver(c *conn) bool {
	rest := begun{c.Conn, c.come}
	if c.template.TLS != nil {
		return s.others.give(&begunTLS{rest, *c.template.TLS})
	}
	return s.others.give(&rest)
}

func (s *server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if len(s.conns) == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

func (s *server) ending() bool { return s.end.Load() }

func (s *server) each(do func(*conn)) {
	s.mu.Lock()
	all := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		do(c)
	}
}

// close ends connections: those with nothing under way at once, the others after their answer, or when drain is over.
func (s *server) close() {
	s.end.Store(true)
	s.mu.Lock()
	empty := make(chan struct{})
	if len(s.conns) == 0 {
		close(empty)
	} else {
		s.empty = empty
	}
	s.mu.Unlock()
	s.each(func(c *conn) { c.stop(false) })
	patience := time.NewTimer(drain)
	defer patience.Stop()
	select {
	case <-empty:
	case <-patience.C:
		s.each(func(c *conn) { c.stop(true) })
	}
}

// date is the time as answers have it, for the second that it is in.
type date struct {
	second int64
	text   string
}

func (s *server) date(now time.Time) string {
	d := s.said.Load()
	if d == nil || d.second != now.Unix() {
		d = &date{now.Unix(), now.UTC().Format(http.TimeFormat)}
		s.said.Store(d)
	}
	return d.text
}
