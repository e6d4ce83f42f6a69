package kong

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// maxHeaders is the most that kong.request.get_headers may be asked for.
const maxHeaders = 1000

// reads is what an event asks Kong for, written as one batch: Kong answers in order. upstream_uri is set before any
// plugin's access phase, so it is the path after strip_path and the service's own path.
var reads = []struct {
	method string
	args   proto.Message
}{
	{"kong.request.get_headers", &protocol.Int{V: maxHeaders}},
	{"kong.nginx.get_var", &protocol.String{V: "request"}},
	{"kong.nginx.get_var", &protocol.String{V: "upstream_uri"}},
	{"kong.client.get_forwarded_ip", nil},
	{"kong.router.get_route", nil},
}

// errExited says that the request was answered by kong.response.exit: Kong abandons the connection.
var errExited = errors.New("the request was answered")

// event is one access event on a connection.
type event struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	buf  []byte
}

// ask writes all reads at once, then takes their answers.
func (e *event) ask(batch []byte) (guard.Request, error) {
	if _, err := e.conn.Write(batch); err != nil {
		return guard.Request{}, err
	}
	var r guard.Request
	for i := range reads {
		answer, err := readFrame(e.in, e.buf)
		if err != nil {
			return guard.Request{}, err
		}
		e.buf = answer
		if err := fill(&r, i, answer); err != nil && r.Malformed == "" {
			r.Malformed = err.Error()
		}
	}
	return r, nil
}

// fill puts the i-th answer into r. An answer that cannot be read makes the request malformed, never anonymous: one header
// byte that is not UTF-8 makes the whole struct unreadable.
func fill(r *guard.Request, i int, answer []byte) error {
	switch i {
	case 0:
		return headers(r, answer)
	case 1:
		s, err := text(answer)
		if err != nil {
			return err
		}
		return requestLine(r, s)
	case 2:
		s, err := text(answer)
		r.UpstreamPath, _, _ = strings.Cut(s, "?")
		return err
	case 3:
		s, err := text(answer)
		if err != nil {
			return err
		}
		if r.Addr, err = netip.ParseAddr(s); err != nil {
			return errors.New("the client's address cannot be read")
		}
		return nil
	default:
		var route protocol.Route
		if err := proto.Unmarshal(answer, &route); err != nil {
			return errors.New("the route cannot be read")
		}
		if r.Route = route.GetName(); r.Route == "" {
			r.Route = route.GetId()
		}
		return nil
	}
}

func text(answer []byte) (string, error) {
	var s protocol.String
	if err := proto.Unmarshal(answer, &s); err != nil {
		return "", errors.New("an answer is not UTF-8")
	}
	return s.GetV(), nil
}

func requestLine(r *guard.Request, line string) error {
	method, rest, ok := strings.Cut(line, " ")
	end := strings.LastIndexByte(rest, ' ')
	if !ok || end < 0 {
		return errors.New("the request line cannot be read")
	}
	r.Method = method
	r.Path, r.Query, _ = strings.Cut(rest[:end], "?")
	return nil
}

func headers(r *guard.Request, answer []byte) error {
	var s structpb.Struct
	if err := proto.Unmarshal(answer, &s); err != nil {
		return errors.New("the headers are not UTF-8")
	}
	r.Header = make(map[string][]string, len(s.GetFields()))
	n := 0
	for name, value := range s.GetFields() {
		var values []string
		switch v := value.GetKind().(type) {
		case *structpb.Value_StringValue:
			values = []string{v.StringValue}
		case *structpb.Value_ListValue:
			for _, e := range v.ListValue.GetValues() {
				s, ok := e.GetKind().(*structpb.Value_StringValue)
				if !ok {
					return errors.New("a header has no text")
				}
				values = append(values, s.StringValue)
			}
		case *structpb.Value_BoolValue: // how Kong tells of a header without a value
			values = []string{""}
		default:
			return errors.New("a header has no text")
		}
		name = strings.ToLower(name)
		r.Header[name] = append(r.Header[name], values...)
		n += len(values)
	}
	r.HeadersTruncated = n >= maxHeaders
	r.Host = strings.Join(r.Header["host"], ",")
	return nil
}

// answer ends the event as the verdict says, in one write.
func (e *event) answer(v guard.Verdict, sequence int64) error {
	var err error
	out := e.out[:0]
	if v.Forward {
		if out, err = appendCall(out, "kong.service.request.set_headers", fields(v.SetHeaders)); err != nil {
			return err
		}
		out = appendFrame(out, nil) // the end of the event
		out, err = appendMessage(out, &protocol.RpcReturn{Sequence: sequence})
	} else {
		out, err = appendCall(out, "kong.response.exit", &protocol.ExitArgs{Status: int32(v.Status), Body: v.Body, Headers: fields(v.Header)})
	}
	if err != nil {
		return err
	}
	e.out = out
	if _, err = e.conn.Write(out); err == nil && !v.Forward {
		err = errExited
	}
	return err
}

func fields(m map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(m))}
	for name, v := range m {
		s.Fields[name] = structpb.NewStringValue(v)
	}
	return s
}

// check runs the handler and makes a panic a 500: one request's panic must not end the process for all.
func check(ctx context.Context, h Handler, r guard.Request) (v guard.Verdict, failed any) {
	defer func() {
		if failed = recover(); failed != nil {
			v = guard.Verdict{Status: 500, Header: map[string]string{"Content-Type": "application/problem+json"},
				Body: []byte(`{"type":"about:blank","title":"Internal Server Error","status":500,"detail":"","code":"guard_failed","trace_id":""}`)}
		}
	}()
	v = h.Check(ctx, r)
	if !v.Forward && v.Status < 400 {
		panic(fmt.Sprintf("a denial with status %d", v.Status))
	}
	return v, nil
}
