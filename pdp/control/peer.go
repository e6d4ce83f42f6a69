package control

import "net"

// peers names who connects, in place of the address that they do not have.
type peers struct{ net.Listener }

// Accept implements net.Listener.
func (p peers) Accept() (net.Conn, error) {
	c, err := p.Listener.Accept()
	if err != nil {
		return nil, err
	}
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return c, nil
	}
	return peer{unix, name(whoIs(unix))}, nil
}

type peer struct {
	*net.UnixConn
	who name
}

// RemoteAddr implements net.Conn.
func (p peer) RemoteAddr() net.Addr { return p.who }

type name string

func (name) Network() string  { return "unix" }
func (n name) String() string { return string(n) }
