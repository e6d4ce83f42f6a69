package gateway

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// maxFrame bounds what a plugin may make the gateway allocate.
const maxFrame = 16 << 20

var errFrameTooLarge = errors.New("frame too large")

// wire is one connection to the plugin server. A frame is a little-endian uint32 length and that many bytes.
type wire struct {
	conn    net.Conn
	r       *bufio.Reader
	w       *bufio.Writer
	timeout time.Duration // of each wait, as Kong's lua_socket_read_timeout
}

func newWire(conn net.Conn, timeout time.Duration) *wire {
	return &wire{conn: conn, r: bufio.NewReaderSize(conn, 16<<10), w: bufio.NewWriterSize(conn, 16<<10), timeout: timeout}
}

func (c *wire) read() ([]byte, error) {
	if c.r.Buffered() == 0 {
		// Whatever was held back must go out before waiting for the other side.
		if err := c.w.Flush(); err != nil {
			return nil, fmt.Errorf("write frame: %w", err)
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(c.timeout)); err != nil {
			return nil, fmt.Errorf("read frame: %w", err)
		}
	}
	return readFrame(c.r)
}

// write keeps the frame until the next read that has to wait.
func (c *wire) write(body []byte) error { return writeFrame(c.w, body) }

func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxFrame {
		return nil, errFrameTooLarge
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	return body, nil
}

func writeFrame(w io.Writer, body []byte) error {
	if len(body) > maxFrame {
		return errFrameTooLarge
	}
	head := binary.LittleEndian.AppendUint32(make([]byte, 0, 4), uint32(len(body)))
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}
