package mail_test

import (
	"bytes"
	"io"
	"net"
	"sync"
)

// spy listens to what clients say, and hangs up when it hears a certain command.
type spy struct {
	hangUpAt string

	mu    sync.Mutex
	heard bytes.Buffer
}

func (s *spy) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heard.String()
}

func (s *spy) wrap(ln net.Listener) net.Listener { return spyListener{ln, s} }

type spyListener struct {
	net.Listener
	spy *spy
}

func (l spyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return spyConn{c, l.spy}, nil
}

type spyConn struct {
	net.Conn
	spy *spy
}

func (c spyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.spy.mu.Lock()
	defer c.spy.mu.Unlock()
	c.spy.heard.Write(p[:n])
	if c.spy.hangUpAt != "" && bytes.HasPrefix(p[:n], []byte(c.spy.hangUpAt)) {
		return 0, io.EOF
	}
	return n, err
}
