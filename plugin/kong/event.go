package kong

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// maxHeaders is the most that kong.request.get_headers may be asked for.
const maxHeaders = 1000

// errExited says that the request was answered by kong.response.exit: Kong abandons the connection.
var errExited = errors.New("the request was answered")

// event is one connection and its buffers. Kong abandons a connection at each denial, so buffers outlive connections.
type event struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte // the last frames written
	buf  []byte // the last frame read

	owed   bool  // Kong's answer to a question that was not waited for
	broken error // why the frames are out of step with Kong
}

// maxKept bounds the buffers that are kept for the next connection, in bytes.
const maxKept = 64 << 10

func (e *event) open(conn net.Conn) {
	e.conn = conn
	e.in.Reset(conn)
}

// close reports whether e is small enough to be used again.
func (e *event) close() bool {
	e.conn, e.owed, e.broken = nil, false, nil
	e.in.Reset(nil)
	return cap(e.out) <= maxKept && cap(e.buf) <= maxKept
}

// read takes the next frame into e.buf.
func (e *event) read() error {
	frame, err := readFrame(e.in, e.buf)
	if err == nil {
		e.buf = frame
	}
	return err
}

// ask writes all reads of a plan at once, then takes their answers. It reads all of them, whatever they hold: Kong must not be
// cut off before it gets to the answer.
func (e *event) ask(p plan) (a answers, err error) {
	if _, err := e.conn.Write(p.batch); err != nil {
		return a, err
	}
	for _, what := range p.reads {
		if err := e.read(); err != nil {
			return a, err
		}
		if err := a.fill(what, e.buf); err != nil && a.Malformed == "" {
			a.Malformed = err.Error()
		}
	}
	return a, nil
}

// answer ends the event as the verdict says, in one write. It answers how many answers of Kong are to be read afterwards.
func (e *event) answer(v guard.Verdict, sequence int64) (pending int, err error) {
	out := e.out[:0]
	if v.Forward {
		pending = 1
		if len(v.Respond) > 0 {
			pending++
			if out, err = appendHeaders(out, "kong.response.set_headers", v.Respond); err != nil {
				return 0, err
			}
		}
		if out, err = appendHeaders(out, "kong.service.request.set_headers", v.SetHeaders); err != nil {
			return 0, err
		}
		out = appendFrame(out, nil) // the end of the event
		out, err = appendMessage(out, &protocol.RpcReturn{Sequence: sequence})
	} else {
		out, err = appendCall(out, "kong.response.exit", &protocol.ExitArgs{Status: int32(v.Status), Body: v.Body, Headers: fields(v.Header)})
	}
	if err != nil {
		return 0, err
	}
	e.out = out
	if _, err = e.conn.Write(out); err == nil && !v.Forward {
		err = errExited
	}
	return pending, err
}

func fields(m map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(m))}
	for name, v := range m {
		s.Fields[name] = structpb.NewStringValue(v)
	}
	return s
}

// check runs the handler and makes a panic an error: one request's panic must not end the process for all.
func check(ctx context.Context, h Handler, phase string, r guard.Request) (v guard.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	if phase != "access" {
		return guard.Verdict{}, fmt.Errorf("event %q was not declared", phase)
	}
	v = h.Check(ctx, r)
	if !v.Forward && !v.Served && v.Status < 400 && v.Status != http.StatusNoContent && v.Status != http.StatusSeeOther {
		return guard.Verdict{}, fmt.Errorf("neither forwarded nor denied: status %d", v.Status)
	}
	return v, nil
}

// failure is the denial where the handler came to none.
func failure(ctx context.Context, log *slog.Logger, err error) guard.Verdict {
	trace, id := web.NewTraceID(), uuid.NewString()
	log.ErrorContext(ctx, "event failed", "decision_id", id, "trace_id", trace, "error", err)
	p := web.NewProblem(trace, http.StatusInternalServerError, "guard_failed", "")
	p.DecisionID = id
	return guard.Verdict{
		Status: p.Status, Body: p.JSON(),
		Header: map[string]string{"Content-Type": p.ContentType(""), "Cache-Control": "no-store", principal.HeaderDecision: id},
	}
}
