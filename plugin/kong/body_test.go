package kong_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// S56: what Kong answers in place of a body is a refusal, and never an empty body.
func TestABodyIsAskedForWhereItIsRead(t *testing.T) {
	t.Parallel()
	var text []byte
	var failed error
	read := true
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		if read {
			text, failed = r.Body.Body(t.Context())
		}
		return forward(r)
	})
	p := dial(t, socket)
	id := p.start(ofRoute)
	for name, c := range map[string]struct {
		answer []byte
		want   string
		err    error
	}{
		"a body":        {bytesOf(t, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_Content{Content: []byte("{\xff}")}}), "{\xff}", nil},
		"none":          {bytesOf(t, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_Content{}}), "", nil},
		"nothing":       {nil, "", nil},
		"in a file":     {bytesOf(t, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_BodyFilepath{BodyFilepath: "/etc/passwd"}}), "", guard.ErrBodyBuffered},
		"an error":      {bytesOf(t, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_Error{Error: "x"}}), "", guard.ErrBodyUnread},
		"not decodable": {[]byte{0xff}, "", guard.ErrBodyUnread},
	} {
		text, failed = nil, nil
		o := p.event(id, request{headers: headers(t, nil), line: "POST / HTTP/1.1", uri: "/", body: c.answer})
		if !o.ended || string(text) != c.want || !errors.Is(failed, c.err) {
			t.Errorf("%s: %q, %v; %+v", name, text, failed, o)
		}
		if failed != nil && strings.Contains(failed.Error(), "passwd") {
			t.Errorf("%s: %v tells the path", name, failed)
		}
	}
	read = false
	if o := p.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}); strings.Contains(strings.Join(o.calls, " "), "body") {
		t.Errorf("asked for %v", o.calls)
	}
}

// A client that is slow to send its body is refused, and Kong finds the refusal when it has the body at last.
func TestABodyThatIsLateIsRefused(t *testing.T) {
	t.Parallel()
	refused := make(chan struct{})
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := r.Body.Body(ctx)
		if !errors.Is(err, guard.ErrBodyLate) {
			t.Errorf("error %v", err)
		}
		close(refused)
		return guard.Verdict{Status: 408, Body: []byte("late")}
	})
	p := dial(t, socket)
	o := p.event(p.start(open), request{headers: headers(t, nil), line: "POST / HTTP/1.1", uri: "/", hold: refused, body: []byte("x")})
	if o.exit.GetStatus() != 408 || o.broken != nil {
		t.Errorf("outcome %+v", o)
	}
}

// In observe mode such a request goes on when Kong has its body, and on a connection that is used no more.
func TestALateBodyHoldsUpNoRequestThatIsOnlyObserved(t *testing.T) {
	t.Parallel()
	late := make(chan struct{})
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = r.Body.Body(ctx)
		close(late)
		return forward(r)
	})
	p := dial(t, socket)
	o := p.event(p.start(open), request{headers: headers(t, nil), line: "POST / HTTP/1.1", uri: "/", hold: late, body: bytesOf(t, &protocol.RawBodyResult{})})
	if !o.ended || o.set.GetFields()["X-Gatehouse-Subject"].GetStringValue() != "u1" {
		t.Errorf("outcome %+v", o)
	}
	if _, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("after a late body: %v, want the end of the connection", err)
	}
}

// S56: a frame that breaks off leaves nobody knowing where the next begins; nothing passes on such a connection.
func TestNothingPassesBehindABrokenBody(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		if _, err := r.Body.Body(t.Context()); err == nil {
			t.Error("half a frame is a body")
		}
		return forward(r)
	})
	p := dial(t, socket)
	id := p.start(open)
	p.send(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}})
	answers := map[string][]byte{"kong.request.get_headers": headers(t, nil), "kong.router.get_route": bytesOf(t, &protocol.Route{Id: "r"})}
	for {
		method, err := p.read()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.read(); err != nil {
			t.Fatal(err)
		}
		if string(method) == "kong.request.get_raw_body" {
			break
		}
		if answer, known := answers[string(method)]; known {
			p.write(answer)
		} else {
			p.send(&protocol.String{V: "POST / HTTP/1.1"})
		}
	}
	if _, err := p.conn.Write([]byte{9, 0, 0, 0, 0x0a}); err != nil { // five bytes of thirteen
		t.Fatal(err)
	}
	if err := p.conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("behind half a frame: %q, %v", got, err)
	}
}

// The end of the server does not wait for a client that sends its body for ever.
func TestALateBodyDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	refused, hold := make(chan struct{}), make(chan struct{})
	socket, stop := serve(t, func(r guard.Request) guard.Verdict {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = r.Body.Body(ctx)
		close(refused)
		return guard.Verdict{Status: 408}
	})
	p := dial(t, socket)
	id := p.start(open)
	done := make(chan outcome, 1)
	go func() {
		done <- p.event(id, request{headers: headers(t, nil), line: "POST / HTTP/1.1", uri: "/", hold: hold})
	}()
	<-refused
	stop()
	close(hold)
	<-done
}

// Whatever Kong answers, a body is content, or an error.
func FuzzBody(f *testing.F) {
	f.Add(bytesOf(f, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_Content{Content: []byte("{}")}}))
	f.Add(bytesOf(f, &protocol.RawBodyResult{Kind: &protocol.RawBodyResult_BodyFilepath{BodyFilepath: "/x"}}))
	f.Add([]byte{0x0a, 0x80})
	var failed error
	var text []byte
	socket, _ := serve(f, func(r guard.Request) guard.Verdict {
		text, failed = r.Body.Body(context.Background())
		return forward(r)
	})
	f.Fuzz(func(t *testing.T, answer []byte) {
		p := dial(t, socket)
		o := p.event(p.start(open), request{headers: headers(t, nil), line: "POST / HTTP/1.1", uri: "/", body: answer})
		if !o.ended || failed != nil && len(text) > 0 {
			t.Errorf("%q, %v: %+v", text, failed, o)
		}
	})
}
