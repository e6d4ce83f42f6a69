package testenv

import (
	"io"
	"net"
	"sync"
	"testing"
)

// Proxy stands before a server, so that a test can take the server away and bring it back.
type Proxy struct {
	Address string // host:port, the same after each Start

	target string
	mu     sync.Mutex
	ln     net.Listener
	conns  []net.Conn
	wg     sync.WaitGroup
}

// NewProxy starts a proxy on a spare port of 127.0.0.1 before the server at target (host:port). It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, Address: "127.0.0.1:0"}
	p.Start(t)
	t.Cleanup(p.Stop)
	return p
}

// Start takes connections again.
func (p *Proxy) Start(t testing.TB) {
	t.Helper()
	ln, err := net.Listen("tcp", p.Address)
	if err != nil {
		t.Fatalf("proxy: %v", err)
	}
	p.ln, p.Address = ln, ln.Addr().String()
	p.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", p.target)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.copy(in, out)
			p.copy(out, in)
		}
	})
}

func (p *Proxy) copy(to, from net.Conn) {
	p.wg.Go(func() {
		_, _ = io.Copy(to, from) // either side may end it
		to.Close()
		from.Close()
	})
}

// Stop cuts every connection and takes no more.
func (p *Proxy) Stop() {
	p.ln.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
	p.mu.Unlock()
	p.wg.Wait()
}
