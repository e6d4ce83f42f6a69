package gateway

import (
	"bufio"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
)

// fake is a plugin server whose access event is a Go function.
type fake struct {
	t      *testing.T
	socket string
	event  func(p *peer)

	mu      sync.Mutex
	ln      net.Listener
	conns   map[net.Conn]bool
	started []map[string]any
	nextID  int32
	known   map[int32]bool
	wg      sync.WaitGroup
}

// peer is the plugin's side of one event.
type peer struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	gone bool

	phase string // of the event
}

var errGone = errors.New("connection gone")

func (p *peer) ask(method string, args, out proto.Message) error {
	var body []byte
	if args != nil {
		body, _ = proto.Marshal(args)
	}
	if writeFrame(p.conn, []byte(method)) != nil || writeFrame(p.conn, body) != nil {
		return errGone
	}
	answer, err := readFrame(p.r)
	if err != nil {
		return err
	}
	if out != nil {
		return proto.Unmarshal(answer, out)
	}
	return nil
}

func (p *peer) text(method string, args proto.Message) string {
	var s protocol.String
	if err := p.ask(method, args, &s); err != nil {
		p.t.Errorf("%s: %v", method, err)
	}
	return s.GetV()
}

func newFake(t *testing.T, event func(*peer)) *fake {
	t.Helper()
	f := &fake{t: t, socket: filepath.Join(t.TempDir(), "p.sock"), event: event}
	f.listen()
	t.Cleanup(f.stop)
	return f
}

func (f *fake) listen() {
	ln, err := net.Listen("unix", f.socket)
	if err != nil {
		f.t.Fatal(err)
	}
	f.mu.Lock()
	f.ln, f.conns, f.known = ln, map[net.Conn]bool{}, map[int32]bool{}
	f.mu.Unlock()
	f.wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns[conn] = true
			f.mu.Unlock()
			f.wg.Go(func() { f.serve(conn) })
		}
	})
}

// stop closes everything, as the death of the process would.
func (f *fake) stop() {
	f.mu.Lock()
	_ = f.ln.Close()
	for c := range f.conns {
		_ = c.Close()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

func (f *fake) serve(conn net.Conn) {
	defer conn.Close()
	p := &peer{t: f.t, conn: conn, r: bufio.NewReader(conn)}
	for {
		body, err := readFrame(p.r)
		if err != nil {
			return
		}
		var call protocol.RpcCall
		if err := proto.Unmarshal(body, &call); err != nil {
			f.t.Errorf("call: %v", err)
			return
		}
		ret := &protocol.RpcReturn{Sequence: call.GetSequence()}
		if start := call.GetCmdStartInstance(); start != nil {
			var config map[string]any
			if err := json.Unmarshal(start.GetConfig(), &config); err != nil {
				f.t.Errorf("config: %v", err)
			}
			f.mu.Lock()
			f.nextID++
			f.started = append(f.started, config)
			f.known[f.nextID] = true
			ret.Return = &protocol.RpcReturn_InstanceStatus{InstanceStatus: &protocol.InstanceStatus{Name: start.GetName(), InstanceId: f.nextID}}
			f.mu.Unlock()
		}
		if ev := call.GetCmdHandleEvent(); ev != nil {
			f.mu.Lock()
			known := f.known[ev.GetInstanceId()]
			f.mu.Unlock()
			if !known {
				return // as the PDK's own server: an error closes the connection
			}
			p.phase = ev.GetEventName()
			f.event(p)
			if p.gone || writeFrame(conn, nil) != nil {
				return
			}
		}
		out, _ := proto.Marshal(ret)
		if writeFrame(conn, out) != nil {
			return
		}
	}
}

func (f *fake) starts() []map[string]any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]map[string]any(nil), f.started...)
}
