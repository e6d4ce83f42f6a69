package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
)

// keepIdle is how many connections to the plugin are kept for the next request, and keepFor for how long, as in Kong's
// own pool.
const (
	keepIdle = 128
	keepFor  = 60 * time.Second
)

// client speaks with one plugin server.
type client struct {
	name    string
	socket  string
	timeout time.Duration
	log     *slog.Logger

	sequence atomic.Int64
	epoch    atomic.Int64 // counts the losses of the plugin server: instances of an earlier epoch are gone

	mu   sync.Mutex
	idle []idleWire
}

type idleWire struct {
	wire  *wire
	since time.Time
}

// instance is one plugin configuration, which the plugin server knows by a number that it gave out itself.
type instance struct {
	pluginID string
	config   []byte // JSON, with defaults filled

	turn  chan struct{} // holds one token: only one request at a time may start the instance
	id    int32
	epoch int64 // 0: never started
}

// workspace is the one that there is.
const workspace = "0dc6f45b-8f8d-40d2-a504-473544ee190b"

// owner is what a plugin is configured for: a route, a service, or (both empty) everything.
type owner struct{ routeID, serviceID string }

// newInstance adds to a configuration what Kong 3.9 adds (get_plugin_config in its runloop/plugins_iterator.lua).
func newInstance(plugin, pluginID string, sequence int, of owner, config map[string]any) (*instance, error) {
	full := maps.Clone(config)
	full["__seq__"], full["__plugin_id"], full["__ws_id"] = sequence, pluginID, workspace
	full["__key__"] = strings.Join([]string{"plugins", plugin, of.routeID, of.serviceID, "", "", workspace}, ":")
	if of.routeID != "" {
		full["route_id"] = of.routeID
	}
	if of.serviceID != "" {
		full["service_id"] = of.serviceID
	}
	text, err := json.Marshal(full)
	if err != nil {
		return nil, fmt.Errorf("plugin configuration: %w", err)
	}
	i := &instance{pluginID: pluginID, config: text, turn: make(chan struct{}, 1)}
	i.turn <- struct{}{}
	return i, nil
}

func newClient(name, socket string, timeout time.Duration, log *slog.Logger) *client {
	c := &client{name: name, socket: socket, timeout: timeout, log: log}
	c.epoch.Store(1)
	return c
}

// run runs one event of a request. After a lost connection or an unknown instance it starts all instances anew and runs the
// whole event once more, as Kong does.
func (c *client) run(ctx context.Context, phase string, inst *instance, begin func() *exchange) (*exchange, error) {
	for attempt := 0; ; attempt++ {
		ex := begin()
		epoch := c.epoch.Load()
		err := c.event(ctx, phase, inst, ex)
		if err == nil {
			return ex, nil
		}
		if attempt > 0 || !instanceLost(err) {
			return nil, err
		}
		c.log.WarnContext(ctx, "plugin server lost its instances; event runs again", "error", err)
		c.forget(epoch)
	}
}

// forget drops every instance and connection of an epoch; of several requests that notice the same loss, one does it.
func (c *client) forget(epoch int64) {
	if !c.epoch.CompareAndSwap(epoch, epoch+1) {
		return
	}
	c.closeIdle()
}

func (c *client) closeIdle() {
	c.mu.Lock()
	idle := c.idle
	c.idle = nil
	c.mu.Unlock()
	for _, w := range idle {
		_ = w.wire.conn.Close() // already useless
	}
}

func (c *client) event(ctx context.Context, phase string, inst *instance, ex *exchange) error {
	id, err := c.start(ctx, inst)
	if err != nil {
		return fmt.Errorf("start instance: %w", err)
	}
	_, err = c.call(ctx, &protocol.RpcCall{Call: &protocol.RpcCall_CmdHandleEvent{
		CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: phase},
	}}, ex)
	if errors.Is(err, errExit) {
		return nil
	}
	return err
}

// start answers the instance's number at the plugin server, asking for it if this epoch has none yet.
func (c *client) start(ctx context.Context, inst *instance) (int32, error) {
	select {
	case <-inst.turn:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	defer func() { inst.turn <- struct{}{} }()
	epoch := c.epoch.Load()
	if inst.epoch == epoch {
		return inst.id, nil
	}
	ret, err := c.call(ctx, &protocol.RpcCall{Call: &protocol.RpcCall_CmdStartInstance{
		CmdStartInstance: &protocol.CmdStartInstance{Name: c.name, Config: inst.config},
	}}, nil)
	if err != nil {
		return 0, err
	}
	status := ret.GetInstanceStatus()
	if status == nil {
		return 0, errors.New("answer without instance status")
	}
	inst.id, inst.epoch = status.GetInstanceId(), epoch
	return inst.id, nil
}

// call sends one RpcCall and, for an event, answers what the plugin asks until it ends the event.
func (c *client) call(ctx context.Context, call *protocol.RpcCall, ex *exchange) (*protocol.RpcReturn, error) {
	call.Sequence = c.sequence.Add(1)
	body, err := proto.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("encode call: %w", err)
	}
	w, err := c.take(ctx)
	if err != nil {
		return nil, err
	}
	healthy := false
	defer func() {
		if !healthy {
			_ = w.conn.Close() // nothing more is expected of it
			return
		}
		c.give(w)
	}()
	if err := w.write(body); err != nil {
		return nil, err
	}
	if ex != nil {
		if err := ex.serve(w); err != nil {
			return nil, err
		}
	}
	frame, err := w.read()
	if err != nil {
		return nil, err
	}
	ret := &protocol.RpcReturn{}
	if err := proto.Unmarshal(frame, ret); err != nil {
		return nil, fmt.Errorf("decode answer %.80q: %w", frame, err)
	}
	if ret.GetSequence() != call.GetSequence() {
		return nil, fmt.Errorf("answer %.80q is of sequence %d, not %d", frame, ret.GetSequence(), call.GetSequence())
	}
	healthy = true
	return ret, nil
}

func (c *client) take(ctx context.Context) (*wire, error) {
	c.mu.Lock()
	for len(c.idle) > 0 {
		last := c.idle[len(c.idle)-1]
		c.idle = c.idle[:len(c.idle)-1]
		if time.Since(last.since) < keepFor {
			c.mu.Unlock()
			return last.wire, nil
		}
		_ = last.wire.conn.Close() // too old
	}
	c.mu.Unlock()
	conn, err := (&net.Dialer{Timeout: c.timeout}).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("plugin server: %w", err)
	}
	return newWire(conn, c.timeout), nil
}

func (c *client) give(w *wire) {
	if w.w.Flush() != nil || w.r.Buffered() > 0 {
		_ = w.conn.Close() // out of step with the plugin
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= keepIdle {
		_ = w.conn.Close() // enough are kept
		return
	}
	c.idle = append(c.idle, idleWire{wire: w, since: time.Now()})
}

// instanceLost reports whether Kong would start its instances anew after err.
func instanceLost(err error) bool {
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.EPIPE} {
		if errors.Is(err, lost) {
			return true
		}
	}
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no plugin instance") || strings.Contains(text, "closed")
}
