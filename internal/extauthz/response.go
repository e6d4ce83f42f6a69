package extauthz

import (
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Pass lets a request through. A header of Set overwrites what the client sent; one whose value is "" is removed.
type Pass struct {
	Set     map[string]string // on the request
	Respond map[string]string // on the upstream's answer
}

// Refusal is answered instead of the upstream.
type Refusal struct {
	Status int // below 300 it becomes 300: Envoy would send the client a success
	Header map[string]string
	Body   []byte
}

// Append appends the CheckResponse.
func (p Pass) Append(b []byte) []byte {
	var ok []byte // OkHttpResponse
	for name, value := range p.Set {
		if value == "" {
			ok = appendText(ok, 5, strings.ToLower(name)) // headers_to_remove
		} else {
			ok = appendHeader(ok, 2, name, value) // headers
		}
	}
	for name, value := range p.Respond {
		if name == "Set-Cookie" { // beside those of the upstream
			ok = appendText(ok, 6, string(appendText(nil, 1, string(headerValue(name, value)))))
			continue
		}
		ok = appendHeader(ok, 6, name, value) // response_headers_to_add
	}
	return appendText(appendText(b, 1, ""), 3, string(ok)) // status OK, ok_response
}

// Append appends the CheckResponse.
func (r Refusal) Append(b []byte) []byte {
	code := uint64(codeDenied)
	if r.Status == http.StatusUnauthorized {
		code = codeUnauthenticated
	}
	b = appendText(b, 1, string(appendNumber(nil, 1, code)))                               // status
	denied := appendText(nil, 1, string(appendNumber(nil, 1, uint64(max(r.Status, 300))))) // DeniedHttpResponse.status
	for name, value := range r.Header {
		denied = appendHeader(denied, 2, name, value)
	}
	denied = appendText(denied, 3, strings.ToValidUTF8(string(r.Body), "\uFFFD"))
	return appendText(b, 2, string(denied)) // denied_response
}

// overwrite is HeaderValueOption.append_action OVERWRITE_IF_EXISTS_OR_ADD.
const overwrite = 2

func appendHeader(b []byte, field protowire.Number, name, value string) []byte {
	return appendText(b, field, string(appendNumber(appendText(nil, 1, string(headerValue(name, value))), 3, overwrite)))
}

// headerValue encodes a HeaderValue.
func headerValue(name, value string) []byte {
	return appendText(appendText(nil, 1, strings.ToLower(name)), 2, strings.ToValidUTF8(value, "\uFFFD"))
}

func appendText(b []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}

func appendNumber(b []byte, field protowire.Number, value uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), value)
}
