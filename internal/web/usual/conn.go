package usual

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a connection may wait, as with package web.
const (
	firstTime = 5 * time.Second // for anything to come at all
	idleTime  = 2 * time.Minute
	writeTime = 30 * time.Second
	wholeTime = time.Second     // for the rest of a request; what takes longer is net/http's
	slack     = 5 * time.Second // that a deadline may be late, so that not every request has to set it anew
)

// atFirst is how many bytes a connection has memory for until more come at once.
const atFirst = 4 << 10

// mostBlank is how many bytes of empty lines net/http passes over behind a body.
const mostBlank = 4

// conn is one connection. One goroutine serves it; what that shares with the server is under mu.
type conn struct {
	net.Conn
	server   *server
	template *http.Request // what all requests have in common
	come     []byte        // and not been answered; at the beginning of memory
	memory   []byte
	out      []byte // memory for answers
	blank    int    // bytes of empty lines that may still come before the next request
	last     bool   // the answer under way ends the connection
	renewed  time.Time

	mu     sync.Mutex
	idle   bool               // nothing of a request has come
	cancel context.CancelFunc // ends the request under way; nil where there is none
	seen   bool               // it was under way already when the server last looked
	watch  chan struct{}      // closed when nobody reads ahead any more; nil where nobody does
	ahead  []byte             // what that has read
}

func newConn(c net.Conn, s *server) *conn {
	memory := make([]byte, atFirst)
	return &conn{
		Conn: c, server: s, memory: memory, come: memory[:0], idle: true,
		template: &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: c.RemoteAddr().String()},
	}
}

// serve answers until the connection ends, or something comes that is net/http's.
func (c *conn) serve() {
	defer c.server.forget(c)
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
			_ = c.Close()
		}
	}()
	_ = c.SetDeadline(time.Now().Add(firstTime)) // what fails here fails when it is used
	if encrypted, ok := c.Conn.(*tls.Conn); ok && !c.handshake(encrypted) {
		_ = c.Close()
		return
	}
	w := &response{conn: c, header: http.Header{}}
	for {
		r, v, err := c.next()
		switch {
		case err == nil && v == whole && c.answer(w, &r):
			continue
		case err == nil && v == unusual && c.server.handOver(c):
			return
		}
		_ = c.Close()
		return
	}
}

// handshake does what net/http does first. HTTP/2 is not spoken here.
func (c *conn) handshake(t *tls.Conn) bool {
	ctx := context.Background() // there is a deadline
	err := t.HandshakeContext(ctx)
	if err == nil {
		state := t.ConnectionState()
		c.template.TLS = &state
		return true
	}
	c.server.log.WarnContext(ctx, "TLS handshake failed", "address", c.template.RemoteAddr, "error", err)
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil && slices.Contains([]string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO"}, string(plain.RecordHeader[:])) {
		_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
	return false
}

func (c *conn) panicked(p any) {
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return
	}
	c.server.log.ErrorContext(context.Background(), "handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// next waits for a request. One that does not come as a whole, or not in good time, is no usual one.
func (c *conn) next() (request, verdict, error) {
	for begun := false; ; {
		c.skipEmptyLine()
		if len(c.come) > 0 {
			r, v := read(c.come)
			if v == whole {
				c.come = c.memory[:copy(c.memory, c.come[r.size:])]
				return r, v, nil
			}
			c.notIdle()
			if v == unusual {
				return r, v, nil
			}
			if !begun {
				begun = true
				c.renewed = time.Time{}
				_ = c.SetReadDeadline(time.Now().Add(wholeTime))
			}
		}
		if err := c.more(); err != nil {
			if begun { // late, or cut short
				return request{}, unusual, nil
			}
			return request{}, incomplete, err
		}
	}
}

// notIdle has the end of the server wait for what has begun to come.
func (c *conn) notIdle() {
	c.mu.Lock()
	c.idle = false
	c.mu.Unlock()
}

// more reads what comes next.
func (c *conn) more() error {
	if len(c.come) == len(c.memory) {
		memory := make([]byte, maxWhole)
		copy(memory, c.come)
		c.memory = memory
	}
	have := len(c.come)
	n, err := c.Read(c.memory[have:])
	c.come = c.memory[:have+n]
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// skipEmptyLine passes over the line that some clients send behind a body (RFC 9112 section 2.2).
func (c *conn) skipEmptyLine() {
	n := 0
	for n < len(c.come) && n < c.blank && (c.come[n] == '\r' || c.come[n] == '\n') {
		n++
	}
	if n > 0 {
		c.blank -= n
		c.come = c.memory[:copy(c.memory, c.come[n:])]
	}
}

// answer has one request answered. It answers whether the connection can go on.
func (c *conn) answer(w *response, r *request) bool {
	ctx, cancel := c.server.begin()
	defer cancel()
	req := c.template.WithContext(ctx)
	req.URL, req.RequestURI, req.Host, req.Header = r.url(), r.target, r.host, r.header
	req.ContentLength, req.Body = int64(len(r.body)), io.NopCloser(strings.NewReader(r.body))
	c.begin(cancel)
	w.reset()
	c.server.handler.ServeHTTP(w, req)
	goesOn := w.finish()
	c.end()
	c.blank = mostBlank
	return goesOn && !(len(c.come) == 0 && c.server.ending()) // it may have been passed over as one that is not idle
}

func (c *conn) begin(cancel context.CancelFunc) {
	c.mu.Lock()
	c.idle, c.cancel, c.seen = false, cancel, false
	c.mu.Unlock()
}

func (c *conn) end() {
	c.mu.Lock()
	watch := c.watch
	c.cancel, c.watch = nil, nil
	c.idle = len(c.come) == 0 && watch == nil
	c.mu.Unlock()
	if watch == nil {
		return
	}
	_ = c.SetReadDeadline(time.Unix(1, 0))
	<-watch
	c.come = append(c.come, c.ahead...)
	c.ahead = nil
	c.renewed = time.Time{}
	c.renew(time.Now())
	c.mu.Lock()
	c.idle = len(c.come) == 0
	c.mu.Unlock()
}

// look has a request that takes long end when its client goes: it reads ahead, which costs too much to be done for all of them.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel == nil || c.watch != nil {
		return
	}
	if !c.seen {
		c.seen = true
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	done, cancel := make(chan struct{}), c.cancel
	c.watch = done
	go func() {
		defer close(done)
		var b [1]byte
		n, err := c.Read(b[:])
		c.ahead = b[:n]
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	}()
}

// renew sets the deadlines anew, if it is time to.
func (c *conn) renew(now time.Time) {
	if now.Sub(c.renewed) < slack {
		return
	}
	c.renewed = now
	_ = c.SetWriteDeadline(now.Add(writeTime + slack)) // what fails here fails when it is used
	_ = c.SetReadDeadline(now.Add(idleTime + slack))
}

// stop closes a connection that nothing is under way on; with force also others, whose requests it ends.
func (c *conn) stop(force bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle || force {
		_ = c.Close()
	}
	if c.cancel != nil && force {
		c.cancel()
	}
}
