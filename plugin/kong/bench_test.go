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
)

// BenchmarkEvent is one allowed request through the socket, as its Kong sees it: go-pdk's own server beside ours, each in a
// process of its own, doing the same. Ours is measured twice, for a plugin that runs for several routes (the same six calls) and
// for one of one route (five). cpu-ns/op is the server's processor time alone.
func BenchmarkEvent(b *testing.B) {
	for _, c := range []struct{ name, server, config string }{
		{"go-pdk", theirs, open}, {"gatehouse-6-calls", ours, open}, {"gatehouse", ours, ofRoute},
	} {
		b.Run(c.name, func(b *testing.B) {
			socket := server(b, c.server)
			id := dial(b, socket).start(c.config)
			k := newQuickKong(b, socket, id)
			for range 200 {
				k.event(b, k.line)
			}
			before := k.spent(b)
			for b.Loop() {
				k.event(b, k.line)
			}
			b.ReportMetric(float64(k.spent(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// quickKong is Kong's side of one connection with all answers made beforehand, so that little but the plugin is measured.
type quickKong struct {
	conn                                             net.Conn
	in                                               *bufio.Reader
	buf                                              []byte
	call, headers, line, spentLine, uri, addr, route []byte // frames
	set                                              []byte // the arguments of the last set_headers
}

func newQuickKong(b *testing.B, socket string, id int32) *quickKong {
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
	return &quickKong{
		conn: conn, in: bufio.NewReader(conn), buf: make([]byte, 64<<10),
		call:    frame(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}}),
		headers: frame(&h), line: frame(&protocol.String{V: "GET /orders HTTP/1.1"}), spentLine: frame(&protocol.String{V: "GET /spent HTTP/1.1"}),
		uri: frame(&protocol.String{V: "/orders"}), addr: frame(&protocol.String{V: "192.0.2.1"}), route: frame(&protocol.Route{Id: "r1", Name: "orders"}),
	}
}

func (k *quickKong) frame(b *testing.B) []byte {
	b.Helper()
	if _, err := io.ReadFull(k.in, k.buf[:4]); err != nil {
		b.Fatal(err)
	}
	n := binary.LittleEndian.Uint32(k.buf)
	if _, err := io.ReadFull(k.in, k.buf[:n]); err != nil {
		b.Fatal(err)
	}
	return k.buf[:n]
}

// event plays one event whose request line is in the frame line.
func (k *quickKong) event(b *testing.B, line []byte) {
	b.Helper()
	answer := k.call
	variables := 0
	for {
		if answer != nil {
			if _, err := k.conn.Write(answer); err != nil {
				b.Fatal(err)
			}
		}
		switch string(k.frame(b)) {
		case "":
			k.frame(b) // the return
			return
		case "kong.request.get_headers":
			answer = k.headers
		case "kong.nginx.get_var":
			if answer = k.uri; variables == 0 {
				answer = line
			}
			variables++
		case "kong.client.get_forwarded_ip":
			answer = k.addr
		case "kong.router.get_route":
			answer = k.route
		case "kong.service.request.set_headers":
			k.set, answer = append(k.set[:0], k.frame(b)...), []byte{0, 0, 0, 0}
			continue
		default:
			b.Fatal("an unexpected call")
		}
		k.frame(b) // the arguments
	}
}

// spent asks the server for its processor time so far, in nanoseconds.
func (k *quickKong) spent(b *testing.B) int64 {
	b.Helper()
	k.event(b, k.spentLine)
	var s structpb.Struct
	if err := proto.Unmarshal(k.set, &s); err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(first(s.GetFields()["X-Spent"]), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
