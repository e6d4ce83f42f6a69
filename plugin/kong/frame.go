package kong

import (
	"encoding/binary"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// maxFrame bounds what is read of one frame, in bytes: well above 1,000 headers of a Kong with default buffers.
const maxFrame = 4 << 20

// readFrame reads one frame: a little-endian uint32 length and that many bytes. buf is used where it is large enough.
func readFrame(r io.Reader, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, fmt.Errorf("frame of %d bytes: at most %d", n, maxFrame)
	}
	if uint32(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		return nil, fmt.Errorf("frame is truncated: %w", err)
	}
	return buf, nil
}

func appendFrame(out, data []byte) []byte {
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}

func appendMessage(out []byte, m proto.Message) ([]byte, error) {
	at := len(out)
	out = append(out, 0, 0, 0, 0)
	out, err := proto.MarshalOptions{}.MarshalAppend(out, m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	binary.LittleEndian.PutUint32(out[at:], uint32(len(out)-at-4))
	return out, nil
}

// appendCall appends one PDK call: the method's name, then its arguments (nil for none).
func appendCall(out []byte, method string, args proto.Message) ([]byte, error) {
	out = appendFrame(out, []byte(method))
	if args == nil {
		return appendFrame(out, nil), nil
	}
	return appendMessage(out, args)
}
