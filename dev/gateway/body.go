package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"
)

// bodyBuffer is client_body_buffer_size, as deploy/kong.conf sets it, in bytes. What is larger NGINX keeps in a file.
const bodyBuffer = 16 << 10

// bodyFile is the kind of path that Kong tells of a body in a file. Here there is none: the rest stays where it is.
const bodyFile = "/usr/local/kong/client_body_temp/0000000001"

// requestBody is what a plugin may see of a request's body, which the upstream gets all the same. It outlives an event that is run
// again.
type requestBody struct {
	r    *http.Request
	read bool
	head []byte // nil where it did not fit
	err  error
}

// raw answers kong.request.get_raw_body as Kong does to plugin servers: a RawBodyResult with the content (1) of what fits into the
// buffer, or else the path of a file (2). They have no way to say how large a file they would take.
func (b *requestBody) raw() ([]byte, error) {
	if !b.read {
		b.read = true
		b.head, b.err = b.buffer()
	}
	switch {
	case b.err != nil:
		return nil, b.err
	case b.head == nil:
		return protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), bodyFile), nil
	default:
		return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), b.head), nil
	}
}

// buffer reads as much as fits, and puts it back in front of the rest.
func (b *requestBody) buffer() ([]byte, error) {
	if b.r.Body == nil || b.r.Body == http.NoBody {
		return []byte{}, nil
	}
	whole := b.r.Body
	head, err := io.ReadAll(io.LimitReader(whole, bodyBuffer+1))
	if err != nil {
		return nil, errBody
	}
	b.r.Body = &resumed{io.MultiReader(bytes.NewReader(head), whole), whole}
	if len(head) > bodyBuffer {
		return nil, nil
	}
	return head, nil
}

// resumed is a body whose beginning has been read.
type resumed struct {
	io.Reader
	io.Closer
}

var errBody = errors.New("the request's body ended early or is malformed")
