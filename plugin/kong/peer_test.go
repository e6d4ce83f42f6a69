package kong_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// peer is Kong's side of one connection.
type peer struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

func dial(t testing.TB, socket string) *peer {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &peer{t, conn, bufio.NewReader(conn)}
}

func (p *peer) write(data []byte) {
	p.t.Helper()
	if _, err := p.conn.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...)); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(m proto.Message) {
	p.t.Helper()
	p.write(bytesOf(p.t, m))
}

func bytesOf(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (p *peer) read() ([]byte, error) {
	var n uint32
	if err := binary.Read(p.in, binary.LittleEndian, &n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(p.in, b)
	return b, err
}

func (p *peer) result() *protocol.RpcReturn {
	p.t.Helper()
	b, err := p.read()
	if err != nil {
		p.t.Fatal(err)
	}
	var r protocol.RpcReturn
	if err := proto.Unmarshal(b, &r); err != nil {
		p.t.Fatal(err)
	}
	return &r
}

func (p *peer) start(config string) int32 {
	p.t.Helper()
	p.send(&protocol.RpcCall{Sequence: 1, Call: &protocol.RpcCall_CmdStartInstance{CmdStartInstance: &protocol.CmdStartInstance{Name: "gatehouse", Config: []byte(config)}}})
	return p.result().GetInstanceStatus().GetInstanceId()
}

// request is what the stand-in answers reads with.
type request struct {
	headers []byte
	line    string
	uri     string
	joined  string          // "" where Kong has no such variable
	route   *protocol.Route // nil: orders
	body    []byte          // what kong.request.get_raw_body answers
	hold    <-chan struct{} // before it does; nil: at once
}

// outcome is what the plugin did in one event.
type outcome struct {
	calls   []string
	set     *structpb.Struct
	respond *structpb.Struct
	exit    *protocol.ExitArgs
	ended   bool
	broken  error
}

func (p *peer) event(id int32, r request) outcome {
	p.t.Helper()
	p.send(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}})
	var o outcome
	for {
		method, err := p.read()
		if err != nil {
			o.broken = err
			return o
		}
		if len(method) == 0 {
			if got := p.result().GetSequence(); got != 7 {
				p.t.Errorf("sequence %d", got)
			}
			o.ended = true
			return o
		}
		args, err := p.read()
		if err != nil {
			o.broken = err
			return o
		}
		o.calls = append(o.calls, string(method))
		switch string(method) {
		case "kong.request.get_headers":
			p.write(r.headers)
		case "kong.nginx.get_var":
			var name protocol.String
			if err := proto.Unmarshal(args, &name); err != nil {
				p.t.Fatal(err)
			}
			p.send(&protocol.String{V: map[string]string{"request": r.line, "upstream_uri": r.uri, kong.JoinedVariable: r.joined}[name.GetV()]})
		case "kong.client.get_forwarded_ip":
			p.send(&protocol.String{V: "192.0.2.1"})
		case "kong.router.get_route":
			if r.route == nil {
				r.route = &protocol.Route{Id: "r1", Name: "orders"}
			}
			p.send(r.route)
		case "kong.request.get_raw_body":
			if r.hold != nil {
				<-r.hold
			}
			if _, o.broken = p.conn.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(r.body))), r.body...)); o.broken != nil {
				return o // nobody waits for it any more
			}
		case "kong.service.request.set_headers":
			o.set = &structpb.Struct{}
			if err := proto.Unmarshal(args, o.set); err != nil {
				p.t.Fatal(err)
			}
			p.write(nil)
		case "kong.response.set_headers":
			o.respond = &structpb.Struct{}
			if err := proto.Unmarshal(args, o.respond); err != nil {
				p.t.Fatal(err)
			}
			p.write(nil)
		case "kong.response.exit":
			o.exit = &protocol.ExitArgs{}
			if err := proto.Unmarshal(args, o.exit); err != nil {
				p.t.Fatal(err)
			}
			return o // Kong never answers it
		}
	}
}

func headers(t testing.TB, m map[string]any) []byte {
	t.Helper()
	s, err := structpb.NewStruct(m)
	if err != nil {
		t.Fatal(err)
	}
	return bytesOf(t, s)
}

// first is a header's value, which go-pdk sends in a list.
func first(v *structpb.Value) string {
	if list := v.GetListValue().GetValues(); len(list) > 0 {
		v = list[0]
	}
	return v.GetStringValue()
}
