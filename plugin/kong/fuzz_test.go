package kong_test

import (
	"io"
	"testing"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Whatever Kong answers, the event ends by a decision, and the server goes on. joined is the answer of the one variable, or of the
// request line where there is none.
func FuzzAnswers(f *testing.F) {
	text := func(s string) []byte { return bytesOf(f, &protocol.String{V: s}) }
	good := headers(f, map[string]any{"host": "h", "accept": []any{"a", "b"}})
	f.Add(good, text("GET /a HTTP/1.1"), text("/a"), text("192.0.2.1"), bytesOf(f, &protocol.Route{Id: "r", Name: "n"}), false)
	f.Add(good, text("i1 192.0.2.1 /a GET /a HTTP/1.1"), []byte(nil), []byte(nil), bytesOf(f, &protocol.Route{Id: "r", Name: "n"}), true)
	f.Add([]byte{0xff}, []byte{0x0a, 0x80}, []byte(nil), []byte{0x0a, 0x01, 0xff}, []byte{0x0a}, false)
	var seen guard.Request
	began := time.Now()
	sockets := map[bool]string{}
	for joined, value := range map[bool]string{false: "", true: "i1 192.0.2.1 /a GET /a HTTP/1.1"} {
		// Its clock stands still: what the first event tells of the variable goes on to hold.
		sockets[joined], _ = serveAt(f, func() time.Time { return began }, func(r guard.Request) guard.Verdict { seen = r; return forward(r) })
		p := dial(f, sockets[joined])
		p.event(p.start(open), request{headers: good, line: "GET /a HTTP/1.1", uri: "/a", joined: value})
	}
	f.Fuzz(func(t *testing.T, header, line, uri, address, route []byte, joined bool) {
		answers := [][]byte{header, line, uri, address, route}
		if joined {
			answers = [][]byte{header, line, route}
			var s protocol.String
			if proto.Unmarshal(line, &s) != nil || s.GetV() == "" {
				t.Skip() // more is asked then, and the variable taken for gone
			}
		}
		p := dial(t, sockets[joined])
		id := p.start(open)
		p.send(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}})
		for _, answer := range answers {
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
		if seen.Malformed == "" && (!seen.Addr.IsValid() || seen.Method == "" && seen.Path == "" || seen.UpstreamPath == "" || joined && seen.ID == "") {
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
