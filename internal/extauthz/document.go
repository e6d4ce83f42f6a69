package extauthz

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Document answers a CheckRequest as opa-envoy-plugin shows it to policies: each message an object by protobuf's JSON names, fields
// that are not set left out, bytes as base64, times as seconds and nanos, numbers as json.Number. Fields that are not
// known here are passed over. What is no text, or is there twice where it should be once, is ErrMessage.
func Document(message []byte) (map[string]any, error) {
	return checkRequest().read(message)
}

// fields of a message by their numbers.
type fields map[protowire.Number]field

type field struct {
	name  string
	wire  protowire.Type
	value func(encoded []byte) (any, error) // nil for what is as good as not set
	one   string                            // the oneof that it belongs to
	list  bool
	keyed bool // a map: each value is an entry, of which value reads the value
}

func (m fields) read(message []byte) (map[string]any, error) {
	out, chosen := map[string]any{}, map[string]bool{}
	err := walk(message, func(number protowire.Number, wire protowire.Type, encoded []byte) error {
		f, known := m[number]
		if !known || wire != f.wire {
			return nil
		}
		if chosen[f.one] {
			return ErrMessage
		}
		chosen[f.one] = f.one != ""
		return f.add(out, encoded)
	})
	if err != nil {
		return nil, ErrMessage
	}
	return out, nil
}

// add puts what a field says into its message's object.
func (f field) add(out map[string]any, encoded []byte) error {
	if f.keyed {
		name, value, _, err := entry(encoded)
		if err != nil || !utf8.ValidString(name) {
			return ErrMessage
		}
		all, _ := out[f.name].(map[string]any)
		if all == nil {
			all = map[string]any{}
		}
		if _, twice := all[name]; twice {
			return ErrMessage
		}
		all[name], err = f.value(value)
		out[f.name] = all
		return err
	}
	value, err := f.value(encoded)
	if err != nil || value == nil {
		return err
	}
	if f.list {
		all, _ := out[f.name].([]any)
		out[f.name] = append(all, value)
		return nil
	}
	if _, twice := out[f.name]; twice {
		return ErrMessage
	}
	out[f.name] = value
	return nil
}

// oneOf makes a field of a oneof, which is set where it is sent, also to nothing.
func oneOf(one string, f field, nothing any) field {
	f = set(f, nothing)
	f.one = one
	return f
}

// set makes a field whose value is there also where it is nothing.
func set(f field, nothing any) field {
	read := f.value
	f.value = func(encoded []byte) (any, error) {
		v, err := read(encoded)
		if err == nil && v == nil {
			v = nothing
		}
		return v, err
	}
	return f
}

func list(f field) field { f.list = true; return f }

func keyed(f field, nothing any) field { f = set(f, nothing); f.keyed = true; return f }

func sub(name string, m func() fields) field {
	return field{name: name, wire: protowire.BytesType, value: func(encoded []byte) (any, error) { return m().read(encoded) }}
}

func text(name string) field {
	return field{name: name, wire: protowire.BytesType, value: func(encoded []byte) (any, error) {
		if !utf8.Valid(encoded) {
			return nil, ErrMessage
		}
		if len(encoded) == 0 {
			return nil, nil
		}
		return string(encoded), nil
	}}
}

func octets(name string) field {
	return field{name: name, wire: protowire.BytesType, value: func(encoded []byte) (any, error) {
		if len(encoded) == 0 {
			return nil, nil
		}
		return base64.StdEncoding.EncodeToString(encoded), nil
	}}
}

// varint makes a field of a number, of which show answers "" for what is not set.
func varint(name string, show func(v uint64) any) field {
	return field{name: name, wire: protowire.VarintType, value: func(encoded []byte) (any, error) {
		v, _ := protowire.ConsumeVarint(encoded)
		return show(v), nil
	}}
}

func signed(v int64) any {
	if v == 0 {
		return nil
	}
	return json.Number(strconv.FormatInt(v, 10))
}

func int64s(name string) field { return varint(name, func(v uint64) any { return signed(int64(v)) }) } //nolint:gosec // protobuf's own encoding
func int32s(name string) field {
	return varint(name, func(v uint64) any { return signed(int64(int32(v))) })
} //nolint:gosec // likewise
func uint32s(name string) field {
	return varint(name, func(v uint64) any { return signed(int64(uint32(v))) }) //nolint:gosec // likewise
}

func flag(name string) field {
	return varint(name, func(v uint64) any {
		if v == 0 {
			return nil
		}
		return true
	})
}

// structs is a map of google.protobuf.Struct.
func structs(name string) field {
	return field{name: name, wire: protowire.BytesType, keyed: true, value: func(encoded []byte) (any, error) {
		object, err := structOf(encoded, 0)
		if err != nil {
			return nil, err
		}
		return numbered(object), nil
	}}
}

// numbered writes numbers as json.Number, in place.
func numbered(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, member := range v {
			v[name] = numbered(member)
		}
	case []any:
		for i, item := range v {
			v[i] = numbered(item)
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return json.Number(strconv.FormatInt(int64(v), 10))
		}
		return json.Number(strconv.FormatFloat(v, 'g', -1, 64))
	}
	return v
}

// The messages, as envoy/service/auth/v3 and envoy/config/core/v3 have them.

func checkRequest() fields { return fields{1: sub("attributes", attributeContext)} }

func attributeContext() fields {
	return fields{
		1: sub("source", peer), 2: sub("destination", peer), 4: sub("request", request), 10: keyed(text("contextExtensions"), ""),
		11: sub("metadataContext", metadata), 12: sub("tlsSession", tlsSession), 13: sub("routeMetadataContext", metadata),
	}
}

func peer() fields {
	return fields{1: sub("address", address), 2: text("service"), 3: keyed(text("labels"), ""), 4: text("principal"), 5: text("certificate")}
}

func address() fields {
	return fields{
		1: oneOf("address", sub("socketAddress", socketAddress), nil), 2: oneOf("address", sub("pipe", pipe), nil), 3: oneOf("address", sub("envoyInternalAddress", internalAddress), nil),
	}
}

func socketAddress() fields {
	return fields{
		1: int32s("protocol"), 2: text("address"), 3: oneOf("port", uint32s("portValue"), json.Number("0")), 4: oneOf("port", text("namedPort"), ""), 5: text("resolverName"),
		6: flag("ipv4Compat"), 7: text("networkNamespaceFilepath"),
	}
}

func pipe() fields { return fields{1: text("path"), 2: uint32s("mode")} }

func internalAddress() fields {
	return fields{1: oneOf("name", text("serverListenerName"), ""), 2: text("endpointId")}
}

func request() fields { return fields{1: sub("time", timestamp), 2: sub("http", httpRequest)} }

func timestamp() fields { return fields{1: int64s("seconds"), 2: int32s("nanos")} }

func httpRequest() fields {
	return fields{
		1: text("id"), 2: text("method"), 3: keyed(text("headers"), ""), 4: text("path"), 5: text("host"), 6: text("scheme"), 7: text("query"), 8: text("fragment"),
		9: int64s("size"), 10: text("protocol"), 11: text("body"), 12: octets("rawBody"), 13: sub("headerMap", headerMap),
	}
}

func headerMap() fields { return fields{1: list(sub("headers", headerOf))} }

func headerOf() fields { return fields{1: text("key"), 2: text("value"), 3: octets("rawValue")} }

func metadata() fields {
	return fields{1: structs("filterMetadata"), 2: keyed(sub("typedFilterMetadata", anything), nil)}
}

func anything() fields { return fields{1: text("typeUrl"), 2: octets("value")} }

func tlsSession() fields { return fields{1: text("sni")} }
