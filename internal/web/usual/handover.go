package usual

import (
	"crypto/tls"
	"net"
	"sync"
)

// handedOver is a listener of the connections that are left to net/http.
type handedOver struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	at     net.Addr
}

// give leaves a connection to whoever accepts, or closes it once nobody will any more.
func (h *handedOver) give(c net.Conn) bool {
	select {
	case h.conns <- c:
		return true
	case <-h.closed:
		_ = c.Close()
		return false
	}
}

// Accept implements net.Listener.
func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handedOver) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

// Addr implements net.Listener.
func (h *handedOver) Addr() net.Addr { return h.at }

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	come []byte
}

// Read implements net.Conn.
func (b *begun) Read(p []byte) (int, error) {
	if len(b.come) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.come)
	if b.come = b.come[n:]; len(b.come) == 0 {
		b.come = nil
	}
	return n, nil
}

// begunTLS is one over TLS, of which net/http asks for the state.
type begunTLS struct {
	begun
	state tls.ConnectionState
}

// ConnectionState is what net/http puts into requests.
func (b *begunTLS) ConnectionState() tls.ConnectionState { return b.state }
