package revocation_test

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy passes connections on, until it hangs: those it has by then stay open and say nothing more; new ones work.
type proxy struct {
	address string
	mu      sync.Mutex
	hung    *atomic.Bool // shared by the connections made since the last hang
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{address: ln.Addr().String(), hung: new(atomic.Bool)}
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			hung := p.hung
			conns = append(conns, client, server)
			p.mu.Unlock()
			wg.Go(func() { _, _ = io.Copy(server, client); server.Close() })
			wg.Go(func() { _, _ = io.Copy(mute{client, hung}, server); client.Close() })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		p.mu.Unlock()
		wg.Wait()
	})
	return p
}

func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung.Store(true)
	p.hung = new(atomic.Bool)
}

// mute swallows what is written once its connection hangs.
type mute struct {
	io.Writer
	hung *atomic.Bool
}

func (m mute) Write(b []byte) (int, error) {
	if m.hung.Load() {
		return len(b), nil
	}
	return m.Writer.Write(b)
}
