package forwardauth

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// The service envoy.service.auth.v3.Authorization has one method, which is one message each way. Its Go package and grpc-go
// would double the edge binary; what is needed of them are these numbers, and gRPC's five bytes before each message.

// grpcPath is the method Check.
const grpcPath = "/envoy.service.auth.v3.Authorization/Check"

// maxMessage bounds a CheckRequest, in bytes. Headers are all that it needs to hold.
const maxMessage = 1 << 20

// Codes of gRPC.
const (
	codeOK              = 0
	codeInvalidArgument = 3
	codeDenied          = 7
	codeUnimplemented   = 12
	codeUnauthenticated = 16
)

// checkGRPC answers one call of Check. A call that fails has a status other than OK and no message: Envoy takes an empty message
// for a pass.
func (h *Handler) checkGRPC(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") || r.ProtoMajor < 2 {
		endGRPC(w, codeUnimplemented, "not a gRPC call")
		return
	}
	message, err := readMessage(r.Body)
	if err != nil {
		h.Log.WarnContext(r.Context(), "call by Envoy failed", "error", err)
		endGRPC(w, codeInvalidArgument, err.Error())
		return
	}
	answer := appendVerdict(make([]byte, 5, 1024), h.verdict(r.Context(), func() (guard.Request, error) { return readCheck(message) }))
	binary.BigEndian.PutUint32(answer[1:5], uint32(len(answer)-5))
	_, err = w.Write(answer)
	if err != nil {
		return // Envoy is gone; there is nobody to tell
	}
	endGRPC(w, codeOK, "")
}

// endGRPC ends the call, in trailers.
func endGRPC(w http.ResponseWriter, code int, message string) {
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
	if message != "" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
	}
}

var errMessage = errors.New("the message cannot be read")

// readMessage reads the only message of a call, which is not compressed.
func readMessage(body io.Reader) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(body, head[:]); err != nil || head[0] != 0 {
		return nil, errMessage
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxMessage {
		return nil, errMessage
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(body, message); err != nil {
		return nil, errMessage
	}
	if n, err := body.Read(head[:1]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, errMessage
	}
	return message, nil
}

// readCheck answers the original request out of a CheckRequest. The client's address is the one that Envoy believes (S15).
func readCheck(message []byte) (guard.Request, error) {
	c := check{header: map[string][]string{}, raw: map[string][]string{}}
	if err := within(message, 1, c.attributes); err != nil {
		return guard.Request{}, errWords.Because(err)
	}
	out := guard.Request{Method: c.method, Host: c.host, Header: c.header}
	if len(c.raw) > 0 {
		out.Header = c.raw
	}
	var err error
	if out.Addr, err = netip.ParseAddr(c.address); err != nil || out.Addr.Zone() != "" {
		return out, unreadable("source.address is not an address")
	}
	out.Addr = out.Addr.Unmap()
	return out, complete(&out, c.path)
}

// check is what is read of a CheckRequest.
type check struct {
	method, path, host, address string
	header, raw                 map[string][]string
}

func (c *check) attributes(field protowire.Number, value []byte) error {
	switch field {
	case 1: // source: Peer, of which address: Address, of which socket_address: SocketAddress
		return within(value, 1, only(1, func(v []byte) error { return each(v, c.socketAddress) }))
	case 4: // request: Request, of which http: HttpRequest
		return within(value, 2, c.http)
	}
	return nil
}

func (c *check) socketAddress(field protowire.Number, value []byte) error {
	if field == 2 {
		return once(&c.address, value)
	}
	return nil
}

func (c *check) http(field protowire.Number, value []byte) error {
	switch field {
	case 2:
		return once(&c.method, value)
	case 3: // headers: map of text; equal names are joined by Envoy
		return add(c.header, value)
	case 4:
		return once(&c.path, value)
	case 5:
		return once(&c.host, value)
	case 8:
		if len(value) > 0 {
			return errors.New("the target has a fragment")
		}
	case 13: // header_map: HeaderMap, with encode_raw_headers
		return each(value, only(1, func(v []byte) error { return add(c.raw, v) }))
	}
	return nil
}

// add reads a map's entry or a HeaderValue, which have the same numbers.
func add(to map[string][]string, entry []byte) error {
	var name, text, raw string
	err := each(entry, func(field protowire.Number, value []byte) error {
		switch field {
		case 1:
			name = strings.ToLower(string(value))
		case 2:
			text = string(value)
		case 3:
			raw = string(value)
		}
		return nil
	})
	if err != nil || name == "" || name[0] == ':' {
		return err // pseudo-headers have fields of their own
	}
	if raw != "" {
		text = raw
	}
	to[name] = append(to[name], text)
	return nil
}

// once sets what a message may say once.
func once(to *string, value []byte) error {
	if *to != "" {
		return errMessage
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
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return errMessage
		}
		message = message[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(field, kind, message); n < 0 {
				return errMessage
			}
			message = message[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(message)
		if n < 0 {
			return errMessage
		}
		if err := visit(field, value); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}

// appendVerdict encodes a CheckResponse.
func appendVerdict(b []byte, v guard.Verdict) []byte {
	if v.Forward {
		var ok []byte // OkHttpResponse
		for name, value := range v.SetHeaders {
			if value == "" {
				ok = appendText(ok, 5, strings.ToLower(name)) // headers_to_remove
			} else {
				ok = appendHeader(ok, 2, name, value) // headers
			}
		}
		for name, value := range v.Respond {
			if name == "Set-Cookie" { // beside those of the upstream
				ok = appendText(ok, 6, string(appendText(nil, 1, string(headerValue(name, value)))))
				continue
			}
			ok = appendHeader(ok, 6, name, value) // response_headers_to_add
		}
		return appendText(appendText(b, 1, ""), 3, string(ok)) // status OK, ok_response
	}
	code := uint64(codeDenied)
	if v.Status == http.StatusUnauthorized {
		code = codeUnauthenticated
	}
	b = appendText(b, 1, string(appendNumber(nil, 1, code)))                               // status
	denied := appendText(nil, 1, string(appendNumber(nil, 1, uint64(max(v.Status, 300))))) // DeniedHttpResponse.status
	for name, value := range v.Header {
		denied = appendHeader(denied, 2, name, value)
	}
	denied = appendText(denied, 3, strings.ToValidUTF8(string(v.Body), "\uFFFD"))
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
