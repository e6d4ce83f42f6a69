package kong

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
)

// OutcomeName is the second plugin of this program. Kong tells answers to the phase log alone, and would tell them of every
// request if the first plugin asked for it; so this one stands on the routes whose answers matter. Kong reads one plugin of a
// query command and no more, and lets two of them share a socket.
const OutcomeName = "gatehouse-outcome"

// outcomePriority: among the plugins of the phase log the order does not matter.
const outcomePriority = 10

// DumpOutcome writes what Kong's query command for the second plugin expects.
func DumpOutcome(w io.Writer, socket string) error {
	return dump(w, socket, object{"Name": OutcomeName, "Version": Version, "Priority": outcomePriority, "Phases": []string{"log"}, "Schema": OutcomeSchema()})
}

// OutcomeSchema is the configuration's schema in Kong's own form.
func OutcomeSchema() object {
	return schema(OutcomeName, record(
		field("statuses", object{
			"type": "array", "default": []int{401, 403}, "len_min": 1, "elements": object{"type": "integer", "between": []int{400, 599}},
		}, "what the upstream answers to a log-in that failed"),
		field("redis_url", object{"type": "string", "referenceable": true, "encrypted": true, "required": true}, "where failed log-ins are counted; that of the routes whose challenge.risk looks at them"),
	))
}

// Outcome is a configuration of the second plugin.
type Outcome struct {
	RedisURL telemetry.Secret
	Statuses []int
}

// Listener is told what clients were answered.
type Listener interface {
	Told(ctx context.Context, a challenge.Answer)
}

// ParseOutcome reads the JSON that Kong sends with a new instance, as ParseConfig does.
func ParseOutcome(data []byte) (Outcome, error) {
	v, _, err := conformed(OutcomeSchema(), data)
	if err != nil {
		return Outcome{}, err
	}
	o := Outcome{RedisURL: telemetry.Secret(v.at("redis_url").text())}
	for _, status := range v.at("statuses").list() {
		o.Statuses = append(o.Statuses, int(status.number()))
	}
	return o, nil
}

// startOutcome makes an instance of the second plugin.
func (s *Server) startOutcome(config []byte) (*instance, error) {
	if s.Outcomes == nil {
		return nil, fmt.Errorf("%s is not served here", OutcomeName)
	}
	cfg, err := ParseOutcome(config)
	if err != nil {
		return nil, err
	}
	l, err := s.Outcomes(cfg)
	return &instance{listener: l}, err
}

// tell takes an event of the phase log. It ends when the answer has been counted, for the next event on the connection may be a
// request that waits. Nothing that goes wrong is Kong's concern: the client has its answer.
func (s *Server) tell(ctx context.Context, e *event, l Listener, phase string, sequence int64) error {
	if phase == "log" {
		if err := s.told(ctx, e, l); err != nil {
			return err
		}
	}
	out, err := appendMessage(appendFrame(e.out[:0], nil), &protocol.RpcReturn{Sequence: sequence})
	if err != nil {
		return err
	}
	e.out = out
	_, err = e.conn.Write(out)
	return err
}

func (s *Server) told(ctx context.Context, e *event, l Listener) (err error) {
	out, err := appendCall(e.out[:0], "kong.log.serialize", nil)
	if err != nil {
		return err
	}
	if e.out = out; err == nil {
		_, err = e.conn.Write(out)
	}
	if err != nil {
		return err
	}
	if err := e.read(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.ErrorContext(ctx, "event failed", "plugin", OutcomeName, "error", fmt.Sprint("panic: ", p))
		}
	}()
	a, err := readAnswer(e.buf)
	if err != nil {
		s.log.WarnContext(ctx, "an answer was not told; a failed log-in may be missed", "error", err)
	}
	l.Told(ctx, a)
	return nil
}

var errSerialized = errors.New("what kong.log.serialize answers cannot be read")

// readAnswer reads a String that holds what Kong logs of a request, as JSON. The query and headers in it may hold any bytes, by
// which nobody shall get out of being counted: they are skipped, not checked.
func readAnswer(message []byte) (challenge.Answer, error) {
	number, kind, n := protowire.ConsumeTag(message)
	if n < 0 || number != 1 || kind != protowire.BytesType {
		return challenge.Answer{}, errSerialized
	}
	text, n := protowire.ConsumeBytes(message[n:])
	if n < 0 {
		return challenge.Answer{}, errSerialized
	}
	var said struct {
		Request struct {
			ID string `json:"id"`
		} `json:"request"`
		Response struct {
			Status int `json:"status"`
		} `json:"response"`
		Route struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"route"`
		Source   string `json:"source"`
		ClientIP string `json:"client_ip"`
	}
	if json.Unmarshal(text, &said) != nil { // its errors quote what they cannot read
		return challenge.Answer{}, errSerialized
	}
	a := challenge.Answer{Request: said.Request.ID, Route: said.Route.Name, Status: said.Response.Status, Upstream: said.Source == "upstream"}
	if a.Route == "" {
		a.Route = said.Route.ID
	}
	if addr, err := netip.ParseAddr(said.ClientIP); err == nil {
		a.Addr = addr
	}
	return a, nil
}
