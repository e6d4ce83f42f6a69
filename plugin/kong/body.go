package kong

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// overdue is how long Kong may take for a body beyond what the event has time for. It cannot be answered before, and were the connection
// closed under it, the client would get a 500 in place of the refusal.
const overdue = 30 * time.Second

// Body asks Kong for the request's body (guard.Body). Kong reads all of it first, which takes as long as the client does, and what
// does not fit into its buffer goes to a file; of that one it tells the path, which is not ours to open.
func (e *event) Body(ctx context.Context) ([]byte, error) {
	call, err := appendCall(nil, "kong.request.get_raw_body", nil)
	if err != nil {
		return nil, err
	}
	if _, err := e.conn.Write(call); err != nil {
		return nil, err
	}
	stop := cutOff(ctx, e.conn)
	_, err = e.in.Peek(1) // takes nothing: of a frame in pieces nobody would know where the next begins
	if !stop() && errors.Is(err, os.ErrDeadlineExceeded) {
		e.owed = true
		return nil, guard.ErrBodyLate.Because(err)
	}
	if err == nil {
		err = e.read()
	}
	if err != nil {
		e.broken = err
		return nil, err
	}
	return bodyOf(e.buf)
}

// await takes what Kong still owes, until ctx ends.
func (e *event) await(ctx context.Context) {
	if e.broken = e.conn.SetReadDeadline(time.Now().Add(overdue)); e.broken != nil {
		return
	}
	defer cutOff(ctx, e.conn)()
	e.broken = e.read()
}

// cutOff ends reads of conn with ctx. stop answers whether it came before that.
func cutOff(ctx context.Context, conn net.Conn) (stop func() bool) {
	return context.AfterFunc(ctx, func() {
		_ = conn.SetReadDeadline(time.Now()) // fails only on a closed connection
	})
}

// bodyOf reads a RawBodyResult. A body of no bytes may come as one, or as nothing at all.
func bodyOf(answer []byte) ([]byte, error) {
	var r protocol.RawBodyResult
	if err := proto.Unmarshal(answer, &r); err != nil {
		return nil, guard.ErrBodyUnread.Because(errors.New("the answer cannot be decoded"))
	}
	switch r.GetKind().(type) {
	case *protocol.RawBodyResult_BodyFilepath:
		return nil, guard.ErrBodyBuffered.Because(errors.New("it is in a file; nginx_http_client_body_buffer_size is smaller than it"))
	case *protocol.RawBodyResult_Error:
		return nil, guard.ErrBodyUnread.Because(errors.New("the gateway cannot read it"))
	}
	return r.GetContent(), nil
}
