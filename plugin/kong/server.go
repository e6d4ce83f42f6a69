// Package kong is the plugin's side of Kong's plugin-server protocol: frames, the event loop, the configuration schema.
// Only this folder knows Kong.
//
// An allowed request costs three PDK calls and two wake-ups: all reads are one batch, and the last write holds the identity
// headers, the end of the event and the call's return together. Where Kong's configuration lacks the JoinedVariable it costs
// five. A plugin that is configured for a service or for all costs one more, which asks for the route.
package kong

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Handler decides on one request.
type Handler interface {
	Check(ctx context.Context, r guard.Request) guard.Verdict
}

// Factory makes the handler of one plugin configuration.
type Factory func(guard.Config) (Handler, error)

const (
	// deadline bounds one event, far below the 60 s that Kong waits.
	deadline = 5 * time.Second
	// drain is how long events under way may take at shutdown, and Kong to close idle connections whose other end is closed.
	drain = time.Second
	// handover is how long a server that is to end goes on as before, for a successor that may wait to take its listener's place.
	handover = 200 * time.Millisecond
	// relief is the same where there is one.
	relief = 5 * time.Second
	// forgotten is when an instance that no event has used is dropped. Kong closes those that it replaces, but not those of
	// a worker that died or of a route that is gone; if it comes back to one, it starts it anew.
	forgotten = time.Hour
)

// Server answers Kong on a Unix socket. It is made by NewServer.
type Server struct {
	// Outcomes makes the listener of one configuration of the second plugin; nil: it is not served. Set it before Serve.
	Outcomes func(Outcome) (Listener, error)

	factory Factory
	log     *slog.Logger
	now     func() time.Time
	plans   plans
	joined  atomic.Pointer[joined]
	events  sync.Pool

	mu        sync.Mutex
	instances map[int32]*instance
	last      int32
	conns     map[net.Conn]bool // whether it is in the middle of a call
	draining  bool
	relieved  func() // nil where nobody can take over
}

// instance is one plugin configuration that Kong has started.
type instance struct {
	Handler               // nil for one of the second plugin
	listener Listener     // nil for one of the first
	used     atomic.Int64 // Unix time in seconds
	routeID  string       // of the one route that it is for, or ""
	route    atomic.Pointer[routeName]
}

// routeName is how Kong named an instance's one route lately.
type routeName struct {
	name string
	at   time.Time
}

// knownRoute answers the name of the instance's one route, if it need not be asked for.
func (i *instance) knownRoute(now time.Time) string {
	if r := i.route.Load(); r != nil && now.Sub(r.at) < recheck {
		return r.name
	}
	return ""
}

// NewServer makes a server.
func NewServer(f Factory, now func() time.Time, log *slog.Logger) (*Server, error) {
	s := &Server{factory: f, log: log, now: now, instances: map[int32]*instance{}, conns: map[net.Conn]bool{}}
	// A Kong worker may still hold ids of the process before this one. Were they given out again, it could meet another
	// route's configuration; a random start makes them unknown, which Kong heals.
	s.last = rand.Int32N(1 << 30) //nolint:gosec // uniqueness, not secrecy
	s.events.New = func() any { return &event{in: bufio.NewReader(nil)} }
	var err error
	s.plans, err = newPlans()
	return s, err
}

// yielder is a listener whose place another process may take.
type yielder interface {
	Yield(patience time.Duration) error
}

// ErrRelieved says that another process has asked for the listener's place.
var ErrRelieved = errors.New("another process takes over")

// Relieve asks the server at that socket to let another process take its place.
func Relieve(ctx context.Context, socket string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	_, err = conn.Write(appendFrame(nil, nil)) // a frame that Kong never sends
	return errors.Join(err, conn.Close())
}

// Serve answers connections of ln until ctx ends, or until it is relieved; then it takes no more and lets events under way end for
// a second. Where ln can be yielded it does so first and goes on meanwhile, so that Kong always finds somebody. It may be called again.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	_, yields := ln.(yielder)
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s.mu.Lock()
	s.draining = false
	if s.relieved = nil; yields {
		s.relieved = func() { end(ErrRelieved) }
	}
	s.mu.Unlock()
	events, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() {
		if y, ok := ln.(yielder); ok {
			patience := handover
			if errors.Is(context.Cause(ctx), ErrRelieved) {
				patience = relief
			}
			_ = y.Yield(patience) // what fails here fails when it is closed, too
		}
		_ = ln.Close() // Accept tells
		s.drain(cut)
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil && ctx.Err() != nil {
			if err = context.Cause(ctx); errors.Is(err, ErrRelieved) {
				return err
			}
			return nil
		}
		if err != nil {
			s.drain(cut)
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		if !s.enter(conn, true) { // Kong connects for a call, and begins with it at once
			return nil
		}
		wg.Go(func() { s.serve(events, conn) })
	}
}

// enter notes whether conn is in a call; it closes and refuses a connection that shall not begin one.
func (s *Server) enter(conn net.Conn, busy bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining && busy {
		_ = conn.Close() // nothing of it is under way
		return false
	}
	s.conns[conn] = busy
	if s.draining {
		leave(conn)
	}
	return true
}

// relieve begins to make room for another process, if there can be one.
func (s *Server) relieve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.relieved == nil {
		return false
	}
	s.relieved()
	return true
}

// leave ends an idle connection. It closes only its own end: on one that closes under its call Kong reads a reset, and answers 500
// where it would go on after an end.
func leave(conn net.Conn) {
	half, ok := conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		_ = conn.Close() // nothing of it is under way
		return
	}
	_ = conn.SetDeadline(time.Now().Add(drain)) // fails only on a closed connection
}

// drain ends idle connections, and the others when they are done or a second has passed; then it calls cut.
func (s *Server) drain(cut func()) {
	time.AfterFunc(drain, cut)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	for conn, busy := range s.conns {
		if busy {
			_ = conn.SetDeadline(time.Now().Add(drain)) // fails only on a closed connection
		} else {
			leave(conn)
		}
	}
}

func (s *Server) serve(ctx context.Context, conn net.Conn) {
	e, _ := s.events.Get().(*event)
	e.open(conn)
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "connection panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close() // Kong's side may be closed already
		if e.close() {
			s.events.Put(e)
		}
	}()
	for first := true; first || s.enter(conn, false); first = false {
		if err := e.read(); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
				s.log.WarnContext(ctx, "connection to Kong broke", "error", err)
			}
			return
		}
		if len(e.buf) == 0 && s.relieve() || !first && !s.enter(conn, true) {
			return
		}
		if err := s.call(ctx, e); err != nil {
			if !errors.Is(err, errExited) {
				s.log.WarnContext(ctx, "call by Kong failed", "error", err)
			}
			return
		}
	}
}

// call answers one RpcCall. An error closes the connection, which Kong takes as the failure of the call.
func (s *Server) call(ctx context.Context, e *event) error {
	var m protocol.RpcCall
	if err := proto.Unmarshal(e.buf, &m); err != nil {
		return errors.New("not an RpcCall")
	}
	answer := &protocol.RpcReturn{Sequence: m.GetSequence()}
	switch c := m.GetCall().(type) {
	case *protocol.RpcCall_CmdStartInstance:
		id, err := s.start(c.CmdStartInstance)
		if err != nil {
			return err
		}
		answer.Return = s.status(id)
	case *protocol.RpcCall_CmdGetInstanceStatus:
		id := c.CmdGetInstanceStatus.GetInstanceId()
		if _, err := s.instance(id); err != nil {
			return err
		}
		answer.Return = s.status(id)
	case *protocol.RpcCall_CmdCloseInstance:
		id := c.CmdCloseInstance.GetInstanceId()
		s.mu.Lock()
		delete(s.instances, id)
		s.mu.Unlock()
		answer.Return = s.status(id)
	case *protocol.RpcCall_CmdHandleEvent:
		return s.handle(ctx, e, c.CmdHandleEvent, m.GetSequence())
	default:
		return fmt.Errorf("unexpected call %T", c)
	}
	out, err := appendMessage(nil, answer)
	if err != nil {
		return err
	}
	_, err = e.conn.Write(out)
	return err
}

// handle takes one event. Kong's answers to the last write are read here, so that a connection is never closed under it.
// Once the instance is known, whatever goes wrong on this side is answered: Kong would run an event whose connection just
// closes again, and again.
func (s *Server) handle(ctx context.Context, e *event, c *protocol.CmdHandleEvent, sequence int64) error {
	h, err := s.instance(c.GetInstanceId())
	if err != nil {
		return err
	}
	now := s.now()
	h.used.Store(now.Unix())
	events := ctx
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	if h.listener != nil {
		return s.tell(ctx, e, h.listener, c.GetEventName(), sequence)
	}
	r, err := s.ask(e, h, now)
	if err != nil {
		return err
	}
	r.Body = e
	v, err := check(ctx, h, c.GetEventName(), r)
	if err != nil {
		v = failure(ctx, s.log, err)
	}
	late := e.owed
	if late && e.broken == nil {
		e.await(events)
	}
	if e.broken != nil {
		return e.broken
	}
	pending, err := e.answer(v, sequence)
	for ; err == nil && pending > 0; pending-- {
		err = e.read()
	}
	if err == nil && late {
		return errExited // its deadlines are spent
	}
	return err
}

func (s *Server) start(c *protocol.CmdStartInstance) (int32, error) {
	make := s.startGuard
	if c.GetName() == OutcomeName {
		make = s.startOutcome
	}
	made, err := make(c.GetConfig())
	if err != nil {
		return 0, fmt.Errorf("start instance: %w", err)
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, i := range s.instances {
		if i.used.Load() < now.Add(-forgotten).Unix() {
			delete(s.instances, id)
		}
	}
	s.last++
	made.used.Store(now.Unix())
	s.instances[s.last] = made
	return s.last, nil
}

func (s *Server) startGuard(config []byte) (*instance, error) {
	cfg, routeID, err := parse(config)
	if err != nil {
		return nil, err
	}
	h, err := s.factory(cfg)
	return &instance{Handler: h, routeID: routeID}, err
}

// instance answers an error in the words at which Kong drops its instances and runs the event again.
func (s *Server) instance(id int32) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.instances[id]
	if !ok {
		return nil, fmt.Errorf("no plugin instance %d", id)
	}
	return h, nil
}

func (s *Server) status(id int32) *protocol.RpcReturn_InstanceStatus {
	return &protocol.RpcReturn_InstanceStatus{InstanceStatus: &protocol.InstanceStatus{Name: Name, InstanceId: id, StartedAt: s.now().Unix()}}
}
