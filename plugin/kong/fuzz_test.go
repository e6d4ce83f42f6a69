package kong_test

import (
	"io"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Whatever Kong answers, the event ends by a decision, and the server goes on.
func FuzzAnswers(f *testing.F) {
	subject := bytesOf(f, &protocol.String{V: "GET /a HTTP/1.1"})
	f.Add(headers(f, map[string]any{"host": "h", "accept": []any{"a", "b"}}), subject, bytesOf(f, &protocol.String{V: "/a"}), bytesOf(f, &protocol.String{V: "192.0.2.1"}), bytesOf(f, &protocol.Route{Id: "r", Name: "n"}))
	f.Add([]byte{0xff}, []byte{0x0a, 0x80}, []byte(nil), []byte{0x0a, 0x01, 0xff}, []byte{0x0a})
	var seen guard.Request
	socket, _ := serve(f, func(r guard.Request) guard.Verdict { seen = r; return forward(r) })
	f.Fuzz(func(t *testing.T, header, line, uri, address, route []byte) {
		p := dial(t, socket)
		id := p.start(open)
		p.send(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}})
		for _, answer := range [][]byte{header, line, uri, address, route} {
			for range 2 { // the method and its arguments
				if _, err := p.read(); err != nil {
					t.Fatal(err)
				}
			}
			p.write(answer)
		}
		method, err := p.read()
		if err != nil || string(method) != "kong.service.request.set_headers" {
			t.Fatalf("the event ends by %q, %v", method, err)
		}
		if seen.Malformed == "" && (!seen.Addr.IsValid() || seen.Method == "" && seen.Path == "" || seen.UpstreamPath == "") {
			t.Errorf("nothing is said to be wrong with %+v", seen)
		}
	})
}

// Whatever arrives on the socket, the server answers a good call afterwards.
func FuzzFrames(f *testing.F) {
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Add([]byte{3, 0, 0, 0, 0x12, 0x01, 0x00, 0, 0})
	socket, _ := serve(f, forward)
	f.Fuzz(func(t *testing.T, data []byte) {
		p := dial(t, socket)
		if _, err := p.conn.Write(data); err == nil {
			closed := p.conn.(interface{ CloseWrite() error })
			_ = closed.CloseWrite()
			_, _ = io.Copy(io.Discard, p.in)
		}
		if dial(t, socket).start(open) == 0 {
			t.Error("no instance is started any more")
		}
	})
}
