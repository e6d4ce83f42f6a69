package kong_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// BenchmarkEvent is one allowed request through the socket, as its Kong sees it: go-pdk's own server beside ours, each in a
// process of its own, doing the same. Ours is measured for a plugin that runs for several routes under a Kong without the
// JoinedVariable (the same six calls), for one of one route (five), and with the variable (three). cpu-ns/op is the server's
// processor time alone.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct {
		name, server, config string
		joined               bool
	}{
		{"go-pdk", theirs, open, false}, {"gatehouse-6-calls", ours, open, false}, {"gatehouse-5-calls", ours, ofRoute, false}, {"gatehouse", ours, ofRoute, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			socket := server(b, c.server)
			id := dial(b, socket).start(c.config)
			k := newQuickKong(b, socket, id, c.joined)
			for range 200 {
				k.event(b, "/orders")
			}
			before := k.spent(b)
			for b.Loop() {
				k.event(b, "/orders")
			}
			b.ReportMetric(float64(k.spent(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// quickKong is Kong's side of one connection with all answers made beforehand, so that little but the plugin is measured.
type quickKong struct {
	conn    net.Conn
	in      *bufio.Reader
	method  []byte
	args    []byte
	call    []byte            // a frame
	answers map[string][]byte // frames by what is asked for
}

func newQuickKong(b *testing.B, socket string, id int32, joined bool) *quickKong {
	b.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	frame := func(m proto.Message) []byte {
		data := bytesOf(b, m)
		return append(binary.LittleEndian.AppendUint32(nil, uint32(len(data))), data...)
	}
	var h structpb.Struct
	if err := proto.Unmarshal(headers(b, map[string]any{
		"host": "api.test", "accept": "application/json", "user-agent": "bench", "x-subject": "u1", "authorization": "Bearer " + string(bytes.Repeat([]byte("a"), 900)),
	}), &h); err != nil {
		b.Fatal(err)
	}
	k := &quickKong{
		conn: conn, in: bufio.NewReader(conn), method: make([]byte, 64<<10), args: make([]byte, 64<<10),
		call: frame(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}}),
		answers: map[string][]byte{
			"kong.request.get_headers": frame(&h), "kong.client.get_forwarded_ip": frame(&protocol.String{V: "192.0.2.1"}),
			"kong.router.get_route": frame(&protocol.Route{Id: "r1", Name: "orders"}), "kong.service.request.set_headers": make([]byte, 4),
		},
	}
	for _, path := range []string{"/orders", "/spent"} {
		line, whole := "GET "+path+" HTTP/1.1", ""
		if joined {
			whole = "0af7651916cd43dd8448eb211c80319c 192.0.2.1 " + path + " " + line
		}
		k.answers[path+"request"], k.answers[path+"upstream_uri"] = frame(&protocol.String{V: line}), frame(&protocol.String{V: path})
		k.answers[path+kong.JoinedVariable] = frame(&protocol.String{V: whole})
	}
	return k
}

func (k *quickKong) read(b *testing.B, into []byte) []byte {
	b.Helper()
	if _, err := io.ReadFull(k.in, into[:4]); err != nil {
		b.Fatal(err)
	}
	n := binary.LittleEndian.Uint32(into)
	if _, err := io.ReadFull(k.in, into[:n]); err != nil {
		b.Fatal(err)
	}
	return into[:n]
}

// event plays one event. It answers the arguments of the last call.
func (k *quickKong) event(b *testing.B, path string) (args []byte) {
	b.Helper()
	answer := k.call
	for {
		if _, err := k.conn.Write(answer); err != nil {
			b.Fatal(err)
		}
		method := k.read(b, k.method)
		if len(method) == 0 {
			k.read(b, k.method) // the return
			return args
		}
		args = k.read(b, k.args)
		name := string(method)
		if name == "kong.nginx.get_var" {
			name = path + string(args[2:]) // after the tag and the length of a short text
		}
		if answer = k.answers[name]; answer == nil {
			b.Fatalf("an unexpected call %q", name)
		}
	}
}

// spent asks the server for its processor time so far, in nanoseconds.
func (k *quickKong) spent(b *testing.B) int64 {
	b.Helper()
	var s structpb.Struct
	if err := proto.Unmarshal(k.event(b, "/spent"), &s); err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(first(s.GetFields()["X-Spent"]), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
