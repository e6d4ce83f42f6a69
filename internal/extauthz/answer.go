package extauthz

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Answer is a CheckResponse of which every part is said, for decisions that are not ours to phrase. Without HTTP it is the plain
// word alone: Envoy then answers a refusal with an empty 403.
type Answer struct {
	Allowed  bool
	HTTP     *HTTP
	Metadata map[string]any // dynamic_metadata, as encoding/json decodes it, numbers as json.Number
}

// HTTP is what becomes of a request that passes, or of its answer.
type HTTP struct {
	Headers []Header // of the request that passes, or of the answer to one that does not
	Remove  []string // of the request's headers
	Respond []Header // of the upstream's answer

	SetQuery    []Header
	RemoveQuery []string

	Status int // of the answer to a request that does not pass
	Body   string
}

// Header is one value of a header, or of a query parameter.
type Header struct {
	Name, Value string
	Overwrite   bool // whatever there is; else it is as Envoy takes a header of which nothing is said
}

// Append appends the CheckResponse. Metadata must be what JSON can hold.
func (a Answer) Append(b []byte) []byte {
	var status []byte
	if !a.Allowed {
		status = appendNumber(nil, 1, codeDenied)
	}
	b = appendText(b, 1, string(status))
	switch {
	case a.HTTP == nil:
	case a.Allowed:
		b = appendText(b, 3, string(a.HTTP.passed())) // ok_response
	default:
		b = appendText(b, 2, string(a.HTTP.denied())) // denied_response
	}
	if a.Metadata != nil {
		b = appendText(b, 4, string(structure(a.Metadata)))
	}
	return b
}

// passed encodes an OkHttpResponse.
func (h *HTTP) passed() []byte {
	b := appendHeaders(nil, 2, h.Headers)
	b = appendTexts(b, 5, h.Remove)
	b = appendHeaders(b, 6, h.Respond)
	for _, q := range h.SetQuery {
		b = appendText(b, 7, string(appendText(appendText(nil, 1, q.Name), 2, q.Value)))
	}
	return appendTexts(b, 8, h.RemoveQuery)
}

// denied encodes a DeniedHttpResponse.
func (h *HTTP) denied() []byte {
	b := appendText(nil, 1, string(appendNumber(nil, 1, uint64(h.Status)))) //nolint:gosec // a status is positive
	b = appendHeaders(b, 2, h.Headers)
	if h.Body != "" {
		b = appendText(b, 3, h.Body)
	}
	return b
}

func appendHeaders(b []byte, number protowire.Number, headers []Header) []byte {
	for _, h := range headers {
		option := appendText(nil, 1, string(appendText(appendText(nil, 1, h.Name), 2, h.Value)))
		if h.Overwrite {
			option = appendNumber(option, 3, overwrite)
		}
		b = appendText(b, number, string(option))
	}
	return b
}

func appendTexts(b []byte, number protowire.Number, texts []string) []byte {
	for _, text := range texts {
		b = appendText(b, number, text)
	}
	return b
}

// structure encodes a google.protobuf.Struct.
func structure(object map[string]any) (b []byte) {
	for _, name := range slices.Sorted(maps.Keys(object)) {
		b = appendText(b, 1, string(appendText(appendText(nil, 1, valid(name)), 2, string(valued(object[name])))))
	}
	return b
}

// valued encodes a google.protobuf.Value. What JSON does not have is null.
func valued(v any) []byte {
	switch v := v.(type) {
	case json.Number:
		f, _ := v.Float64() // what is too large is an infinity
		return double(f)
	case float64:
		return double(v)
	case string:
		return appendText(nil, 3, valid(v))
	case bool:
		return appendNumber(nil, 4, protowire.EncodeBool(v))
	case map[string]any:
		return appendText(nil, 5, string(structure(v)))
	case []any:
		var items []byte
		for _, item := range v {
			items = appendText(items, 1, string(valued(item)))
		}
		return appendText(nil, 6, string(items))
	}
	return appendNumber(nil, 1, 0)
}

func double(f float64) []byte {
	return protowire.AppendFixed64(protowire.AppendTag(nil, 2, protowire.Fixed64Type), math.Float64bits(f))
}

func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
