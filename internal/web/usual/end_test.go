package usual_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/web/usual"
)

// oneByOne is a listener of the connections that a test gives, and of one more that comes when it is closed.
type oneByOne struct {
	conns  chan net.Conn
	closed chan struct{}
	last   chan net.Conn
}

func (l *oneByOne) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
	}
	time.Sleep(time.Millisecond) // of the bubble
	select {
	case c := <-l.last:
		return c, nil
	default:
		return nil, net.ErrClosed
	}
}

func (l *oneByOne) Close() error { close(l.closed); return nil }

func (l *oneByOne) Addr() net.Addr { return &net.UnixAddr{Name: "test", Net: "unix"} }

func TestAConnectionThatComesAtTheEndIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine, its := net.Pipe()
		ln := &oneByOne{conns: make(chan net.Conn), closed: make(chan struct{}), last: make(chan net.Conn, 1)}
		ln.last <- its
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := usual.Serve(ctx, ln, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
		begun := time.Now()
		if _, err := mine.Read(make([]byte, 1)); err == nil || time.Since(begun) > 0 {
			t.Errorf("after %v: %v", time.Since(begun), err)
		}
	})
}

// endsWhenAnswered has a server end while an answer is written.
type endsWhenAnswered struct {
	net.Conn
	end func()
}

func (c *endsWhenAnswered) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.end()
	time.Sleep(time.Millisecond) // of the bubble, in which it ends
	return n, err
}

func TestAConnectionThatIsDoneAsTheServerEndsIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mine, its := net.Pipe()
		ln := &oneByOne{conns: make(chan net.Conn, 1), closed: make(chan struct{}), last: make(chan net.Conn)}
		ctx, stop := context.WithCancel(t.Context())
		ln.conns <- &endsWhenAnswered{its, stop}
		go func() {
			_, _ = io.WriteString(mine, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
			res, err := http.ReadResponse(bufio.NewReader(mine), nil)
			if err != nil || res.StatusCode != http.StatusNotFound {
				t.Errorf("%+v, %v", res, err)
			}
		}()
		begun := time.Now()
		if err := usual.Serve(ctx, ln, http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took >= 100*time.Millisecond {
			t.Errorf("it ended after %v", took)
		}
	})
}
