package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// errExit ends an event at kong.response.exit: Kong never answers that call and abandons the connection.
var errExit = errors.New("the plugin answered the request itself")

// exchange is what the plugin can see and change of one request.
type exchange struct {
	id          string // 32 hexadecimal digits
	request     *http.Request
	target      string // path and query as the client sent them
	upstreamURI string // path that the upstream will get
	address     string // of the client
	route       *route
	body        *requestBody

	upstream http.Header // what the upstream will get
	response http.Header // added to the answer to the client
	exit     *exit       // set when the plugin answered itself

	logged []byte // what kong.log.serialize answers, in the phase log; nil in any other
}

type exit struct {
	status int
	header http.Header
	body   []byte
}

// serve answers PDK calls until the plugin sends an empty method name.
func (ex *exchange) serve(w *wire) error {
	for {
		method, err := w.read()
		if err != nil {
			return err
		}
		if len(method) == 0 {
			return nil
		}
		args, err := w.read()
		if err != nil {
			return err
		}
		answer, err := ex.call(string(method), args)
		if err != nil {
			return err
		}
		if err := w.write(answer); err != nil {
			return err
		}
	}
}

func (ex *exchange) call(method string, args []byte) ([]byte, error) {
	if ex.logged != nil {
		if method == "kong.log.serialize" {
			return encodeString(string(ex.logged)), nil
		}
		return nil, fmt.Errorf("%s: not here in the phase log", method)
	}
	switch method {
	case "kong.request.get_headers":
		var limit protocol.Int
		if err := proto.Unmarshal(args, &limit); err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		return ex.headers(int(limit.GetV()))
	case "kong.request.get_header":
		name, err := stringArg(method, args)
		if err != nil {
			return nil, err
		}
		return ex.header(name), nil
	case "kong.request.get_raw_body":
		return ex.body.raw()
	case "kong.request.get_method":
		return encodeString(ex.request.Method), nil
	case "kong.request.get_path_with_query":
		return encodeString(ex.target), nil
	case "kong.client.get_forwarded_ip":
		return encodeString(ex.address), nil
	case "kong.nginx.get_var":
		name, err := stringArg(method, args)
		if err != nil {
			return nil, err
		}
		return encodeString(ex.variable(name)), nil
	case "kong.router.get_route":
		return ex.route.message()
	case "kong.router.get_service":
		return ex.route.service.message()
	case "kong.service.request.set_headers":
		return nil, setAll(method, ex.upstream, args)
	case "kong.service.request.clear_header":
		name, err := stringArg(method, args)
		if err != nil {
			return nil, err
		}
		ex.upstream.Del(name)
		return nil, nil
	case "kong.response.set_headers":
		return nil, setAll(method, ex.response, args)
	case "kong.response.set_header":
		var kv protocol.KV
		if err := proto.Unmarshal(args, &kv); err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		return nil, setOne(ex.response, kv.GetK(), kv.GetV())
	case "kong.response.exit":
		return nil, ex.leave(args)
	}
	return nil, fmt.Errorf("method %q not found", method)
}

// headers encodes at most limit header lines, names in lower case: one value as a string, several as a list. Bytes that
// are not UTF-8 go out as they are, as from Kong; the plugin has to cope.
func (ex *exchange) headers(limit int) ([]byte, error) {
	if limit < 1 || limit > 1000 {
		return nil, fmt.Errorf("kong.request.get_headers: max_args must be 1..1000, not %d", limit)
	}
	names := make([]string, 0, len(ex.upstream)+1)
	for name := range ex.upstream {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []byte
	add := func(name string, values []string) {
		values = values[:min(len(values), limit)]
		limit -= len(values)
		if len(values) > 0 {
			out = protowire.AppendTag(out, 1, protowire.BytesType)
			out = protowire.AppendBytes(out, encodeEntry(strings.ToLower(name), values))
		}
	}
	add("host", []string{ex.request.Host})
	for _, name := range names {
		add(name, ex.upstream[name])
	}
	return out, nil
}

func (ex *exchange) header(name string) []byte {
	name = strings.ReplaceAll(name, "_", "-")
	if strings.EqualFold(name, "host") {
		return encodeString(ex.request.Host)
	}
	return encodeString(ex.upstream.Get(name))
}

// variable answers nginx's variables of that name; unknown ones are nil, which travels as an empty message.
func (ex *exchange) variable(name string) string {
	r := ex.request
	switch name {
	case "request":
		return r.Method + " " + r.RequestURI + " " + r.Proto
	case "request_uri":
		return ex.target
	case "request_method":
		return r.Method
	case "upstream_uri":
		return ex.upstreamURI
	case "remote_addr":
		return ex.address
	case "host":
		return strings.ToLower(r.Host)
	case "scheme":
		return "http"
	case "server_protocol":
		return r.Proto
	case "kong_request_id":
		return ex.id
	case "gatehouse_request": // deploy/gatehouse.nginx.conf
		return strings.Join([]string{ex.id, ex.address, ex.upstreamURI, ex.variable("request")}, " ")
	}
	return ""
}

func (ex *exchange) leave(args []byte) error {
	var e protocol.ExitArgs
	if err := proto.Unmarshal(args, &e); err != nil {
		return fmt.Errorf("kong.response.exit: %w", err)
	}
	if e.GetStatus() < 100 || e.GetStatus() > 599 {
		return fmt.Errorf("kong.response.exit: code must be a number between 100 and 599, not %d", e.GetStatus())
	}
	header := http.Header{}
	for name, v := range e.GetHeaders().GetFields() {
		if err := setOne(header, name, v); err != nil {
			return err
		}
	}
	ex.exit = &exit{status: int(e.GetStatus()), header: header, body: e.GetBody()}
	return errExit
}

func setAll(method string, h http.Header, args []byte) error {
	var s structpb.Struct
	if err := proto.Unmarshal(args, &s); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	for name, v := range s.GetFields() {
		if err := setOne(h, name, v); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
	}
	return nil
}

func setOne(h http.Header, name string, v *structpb.Value) error {
	var values []string
	items := []*structpb.Value{v}
	if list := v.GetListValue(); list != nil {
		items = list.GetValues()
	}
	for _, item := range items {
		switch kind := item.GetKind().(type) {
		case *structpb.Value_StringValue:
			values = append(values, kind.StringValue)
		case *structpb.Value_NumberValue:
			values = append(values, strconv.FormatFloat(kind.NumberValue, 'f', -1, 64))
		case *structpb.Value_BoolValue:
			values = append(values, strconv.FormatBool(kind.BoolValue))
		default:
			return fmt.Errorf("invalid value in %q: got nil, expected string, number, boolean or array of strings", name)
		}
	}
	h[http.CanonicalHeaderKey(name)] = values
	return nil
}

func stringArg(method string, args []byte) (string, error) {
	var s protocol.String
	if err := proto.Unmarshal(args, &s); err != nil {
		return "", fmt.Errorf("%s: %w", method, err)
	}
	return s.GetV(), nil
}

// encodeString makes a kong_plugin_protocol.String by hand: the generated code would refuse bytes that are not UTF-8.
func encodeString(s string) []byte {
	if s == "" {
		return nil
	}
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s)
}

// encodeEntry makes one entry of a google.protobuf.Struct: key 1, value 2; in a Value, string_value is 3 and list_value 6.
func encodeEntry(name string, values []string) []byte {
	text := func(s string) []byte {
		return protowire.AppendString(protowire.AppendTag(nil, 3, protowire.BytesType), s)
	}
	var value []byte
	if len(values) == 1 {
		value = text(values[0])
	} else {
		var list []byte
		for _, v := range values {
			list = protowire.AppendBytes(protowire.AppendTag(list, 1, protowire.BytesType), text(v))
		}
		value = protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), list)
	}
	out := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	return protowire.AppendBytes(protowire.AppendTag(out, 2, protowire.BytesType), value)
}

func (rt *route) message() ([]byte, error) {
	s := rt.spec
	protocols := s.Protocols
	if len(protocols) == 0 {
		protocols = []string{"http", "https"}
	}
	return proto.Marshal(&protocol.Route{
		Id: rt.id, Name: s.Name, Protocols: protocols, Methods: s.Methods, Hosts: s.Hosts, Paths: s.Paths, Tags: s.Tags,
		RegexPriority: int32(s.RegexPriority), StripPath: s.StripPath == nil || *s.StripPath, PreserveHost: s.PreserveHost,
		Service: &protocol.ServiceKey{Id: rt.service.id},
	})
}

func (s *service) message() ([]byte, error) {
	return proto.Marshal(&protocol.Service{
		Id: s.id, Name: s.spec.Name, Protocol: s.spec.Protocol, Host: s.spec.Host, Port: int32(s.spec.Port), Path: s.spec.Path,
		Retries: int32(s.retries()), ConnectTimeout: int32(s.spec.ConnectTimeout), ReadTimeout: int32(s.spec.ReadTimeout),
		WriteTimeout: int32(s.spec.WriteTimeout), Tags: s.spec.Tags,
	})
}

// retries is 5 by default, as in Kong.
func (s *service) retries() int {
	if s.spec.Retries == nil {
		return 5
	}
	return *s.spec.Retries
}
