package extauthz

import (
	"errors"
	"math"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Request is what a CheckRequest says. Whatever of it is empty, Envoy does not know.
type Request struct {
	Address   string // of the client, the one that Envoy believes
	Principal string // of the client's certificate, where Envoy verified one: its first URI or DNS name, or its subject

	ID, Method, Path, Host, Scheme, Protocol string // Path is the target as it was sent, with its query

	// Header has the request's headers by name in lower case, without pseudo-headers: each value on its own where Envoy sends them
	// raw, else those of a name joined by commas.
	Header map[string][]string

	// Body is the request's, or the beginning of it, where Envoy is told to send it (with_request_body).
	Body string

	Extensions map[string]string // of the route, by Envoy's own configuration (context_extensions)

	metadata map[string][]byte // encoded Structs (metadata_context)
}

// Read reads a CheckRequest. Fields that it does not know are passed over.
func Read(message []byte) (Request, error) {
	c := check{raw: map[string][]string{}}
	c.Header, c.Extensions, c.metadata = map[string][]string{}, map[string]string{}, map[string][]byte{}
	if err := within(message, 1, c.attributes); err != nil {
		return Request{}, err
	}
	if len(c.raw) > 0 {
		c.Header = c.raw
	}
	return c.Request, nil
}

type check struct {
	Request
	raw map[string][]string
}

func (c *check) attributes(field protowire.Number, value []byte) error {
	switch field {
	case 1: // source: Peer
		return each(value, c.source)
	case 4: // request: Request, of which http: HttpRequest
		return within(value, 2, c.http)
	case 10: // context_extensions: map of text
		name, text, _, err := entry(value)
		c.Extensions[name] = string(text)
		return err
	case 11: // metadata_context: Metadata, of which filter_metadata: map of Struct
		return each(value, only(1, c.filterMetadata))
	}
	return nil
}

func (c *check) source(field protowire.Number, value []byte) error {
	switch field {
	case 1: // address: Address, of which socket_address: SocketAddress
		return each(value, only(1, func(v []byte) error { return each(v, c.socketAddress) }))
	case 4:
		return once(&c.Principal, value)
	}
	return nil
}

func (c *check) socketAddress(field protowire.Number, value []byte) error {
	if field == 2 {
		return once(&c.Address, value)
	}
	return nil
}

func (c *check) http(field protowire.Number, value []byte) error {
	switch field {
	case 1:
		return once(&c.ID, value)
	case 2:
		return once(&c.Method, value)
	case 3: // headers: map of text; equal names are joined by Envoy
		return addHeader(c.Header, value)
	case 4:
		return once(&c.Path, value)
	case 5:
		return once(&c.Host, value)
	case 6:
		return once(&c.Scheme, value)
	case 8:
		if len(value) > 0 {
			return errors.New("the target has a fragment")
		}
	case 10:
		return once(&c.Protocol, value)
	case 11, 12: // body, raw_body
		return once(&c.Body, value)
	case 13: // header_map: HeaderMap, with encode_raw_headers
		return each(value, only(1, func(v []byte) error { return addHeader(c.raw, v) }))
	}
	return nil
}

func (c *check) filterMetadata(value []byte) error {
	name, encoded, _, err := entry(value)
	c.metadata[name] = encoded
	return err
}

// Metadata answers what one of Envoy's filters has told of the request, as encoding/json would decode it; nil if it told nothing.
func (r Request) Metadata(filter string) (map[string]any, error) {
	encoded, told := r.metadata[filter]
	if !told {
		return nil, nil
	}
	return structOf(encoded, 0)
}

// addHeader adds a map's entry or a HeaderValue, which have the same numbers.
func addHeader(to map[string][]string, value []byte) error {
	name, text, raw, err := entry(value)
	if name = strings.ToLower(name); err != nil || name == "" || name[0] == ':' {
		return err // pseudo-headers have fields of their own
	}
	if len(raw) > 0 {
		text = raw
	}
	to[name] = append(to[name], string(text))
	return nil
}

// entry reads a map's entry, or a HeaderValue with its raw value.
func entry(message []byte) (name string, value, raw []byte, err error) {
	err = each(message, func(field protowire.Number, v []byte) error {
		switch field {
		case 1:
			name = string(v)
		case 2:
			value = v
		case 3:
			raw = v
		}
		return nil
	})
	return name, value, raw, err
}

// maxNesting bounds how deep metadata may nest.
const maxNesting = 16

// structOf reads a google.protobuf.Struct.
func structOf(message []byte, depth int) (map[string]any, error) {
	if depth > maxNesting {
		return nil, ErrMessage
	}
	object := map[string]any{}
	return object, each(message, only(1, func(field []byte) error {
		name, value, _, err := entry(field)
		if err != nil || !utf8.ValidString(name) {
			return errors.Join(ErrMessage, err)
		}
		object[name], err = valueOf(value, depth)
		return err
	}))
}

// valueOf reads a google.protobuf.Value, whose last field counts.
func valueOf(message []byte, depth int) (v any, err error) {
	err = walk(message, func(field protowire.Number, kind protowire.Type, one []byte) (err error) {
		switch {
		case field == 1 && kind == protowire.VarintType:
			v = nil
		case field == 2 && kind == protowire.Fixed64Type:
			bits, _ := protowire.ConsumeFixed64(one)
			number := math.Float64frombits(bits)
			if math.IsNaN(number) || math.IsInf(number, 0) {
				return ErrMessage
			}
			v = number
		case field == 4 && kind == protowire.VarintType:
			bit, _ := protowire.ConsumeVarint(one)
			v = protowire.DecodeBool(bit)
		case kind == protowire.BytesType:
			v, err = composed(field, one, depth, v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return v, nil
}

// composed reads a text, an object or a list; other fields leave the value as it was.
func composed(field protowire.Number, encoded []byte, depth int, was any) (any, error) {
	switch field {
	case 3:
		if !utf8.Valid(encoded) {
			return nil, ErrMessage
		}
		return string(encoded), nil
	case 5:
		return structOf(encoded, depth+1)
	case 6:
		if depth >= maxNesting {
			return nil, ErrMessage
		}
		list := []any{}
		err := each(encoded, only(1, func(item []byte) error {
			v, err := valueOf(item, depth+1)
			list = append(list, v)
			return err
		}))
		return list, err
	}
	return was, nil
}

// once sets what a message may say once.
func once(to *string, value []byte) error {
	if *to != "" {
		return ErrMessage
	}
	*to = string(value)
	return nil
}

// visitor is called with each field that is a text or a message.
type visitor func(field protowire.Number, value []byte) error

// only visits the fields of one number.
func only(number protowire.Number, visit func(value []byte) error) visitor {
	return func(field protowire.Number, value []byte) error {
		if field != number {
			return nil
		}
		return visit(value)
	}
}

// within visits the fields of the message that is a field of message.
func within(message []byte, number protowire.Number, visit visitor) error {
	return each(message, only(number, func(v []byte) error { return each(v, visit) }))
}

func each(message []byte, visit visitor) error {
	return walk(message, func(field protowire.Number, kind protowire.Type, value []byte) error {
		if kind != protowire.BytesType {
			return nil
		}
		return visit(field, value)
	})
}

// walk visits the fields of a message in their order. A value is as it is encoded, but for the length before bytes.
func walk(message []byte, visit func(field protowire.Number, kind protowire.Type, value []byte) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return ErrMessage
		}
		message = message[n:]
		var value []byte
		if kind == protowire.BytesType {
			value, n = protowire.ConsumeBytes(message)
		} else if n = protowire.ConsumeFieldValue(field, kind, message); n >= 0 {
			value = message[:n]
		}
		if n < 0 {
			return ErrMessage
		}
		message = message[n:]
		if err := visit(field, kind, value); err != nil {
			return err
		}
	}
	return nil
}
