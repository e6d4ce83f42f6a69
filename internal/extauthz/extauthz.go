// Package extauthz speaks Envoy's external authorization over gRPC, as the answering side: the service
// envoy.service.auth.v3.Authorization with its one method, which is one message each way.
//
// Its Go package and grpc-go would double the edge's binary (docs/adr/envoy-grpc.md); what is needed of them are these field numbers,
// and gRPC's five bytes before each message.
package extauthz

import (
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Path is the method Check.
const Path = "/envoy.service.auth.v3.Authorization/Check"

// MaxMessage bounds a CheckRequest, in bytes: headers, and a body where one is looked at.
const MaxMessage = 1 << 20

// MaxWithBody bounds one where requests come with their bodies, as opa-envoy-plugin does.
const MaxWithBody = 4 << 20

// Codes of gRPC.
const (
	codeOK              = 0
	codeInvalidArgument = 3
	codeDenied          = 7
	codeUnimplemented   = 12
	codeUnauthenticated = 16
)

const contentType = "application/grpc"

// ErrMessage is every message that cannot be read.
var ErrMessage = errors.New("the message cannot be read")

var errNoCall = errors.New("not a gRPC call")

// Receive reads the message of a call, or ends the call and answers why. A call that fails has a status other than OK and no
// message: Envoy takes an empty message for a pass.
func Receive(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return ReceiveUpTo(w, r, MaxMessage)
}

// ReceiveUpTo is Receive for messages of at most so many bytes.
func ReceiveUpTo(w http.ResponseWriter, r *http.Request, most uint32) ([]byte, error) {
	w.Header().Set("Content-Type", contentType)
	if r.Method != http.MethodPost || !strings.HasPrefix(r.Header.Get("Content-Type"), contentType) || r.ProtoMajor < 2 {
		end(w, codeUnimplemented, errNoCall.Error())
		return nil, errNoCall
	}
	message, err := readMessage(r.Body, most)
	if err != nil {
		end(w, codeInvalidArgument, err.Error())
	}
	return message, err
}

// Reply sends a CheckResponse and ends the call.
func Reply(w http.ResponseWriter, response []byte) {
	w.Header().Set("Content-Type", contentType)
	framed := make([]byte, 5, 5+len(response))
	binary.BigEndian.PutUint32(framed[1:5], uint32(len(response))) //nolint:gosec // headers and a problem document
	if _, err := w.Write(append(framed, response...)); err != nil {
		return // Envoy is gone; there is nobody to tell
	}
	end(w, codeOK, "")
}

// end ends the call, in trailers.
func end(w http.ResponseWriter, code int, message string) {
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", strconv.Itoa(code))
	if message != "" {
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
	}
}

// readMessage reads the only message of a call, which is not compressed.
func readMessage(body io.Reader, most uint32) ([]byte, error) {
	var head [5]byte
	if _, err := io.ReadFull(body, head[:]); err != nil || head[0] != 0 {
		return nil, ErrMessage
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > most {
		return nil, ErrMessage
	}
	message := make([]byte, size)
	if _, err := io.ReadFull(body, message); err != nil {
		return nil, ErrMessage
	}
	if n, err := body.Read(head[:1]); n > 0 || !errors.Is(err, io.EOF) {
		return nil, ErrMessage
	}
	return message, nil
}
