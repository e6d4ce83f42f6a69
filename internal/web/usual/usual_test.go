package usual_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/internal/web/usual"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type serve = func(context.Context, net.Listener, http.Handler, *slog.Logger) error

// start serves h at a Unix socket until the test ends, and answers the socket and what ends it.
func start(t *testing.T, by serve, h http.Handler, log io.Writer) (socket string, end func() error) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	return socket, run(t, by, ln, h, log)
}

func run(t *testing.T, by serve, ln net.Listener, h http.Handler, log io.Writer) (end func() error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- by(ctx, ln, h, slog.New(slog.NewTextHandler(log, nil))) }()
	end = sync.OnceValue(func() error { stop(); return <-ended })
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return end
}

func dial(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return c
}

// exchange sends bytes and nothing more, and tells all answers in words that do not depend on the order of fields.
func exchange(t *testing.T, socket string, parts ...string) string {
	t.Helper()
	c := dial(t, socket)
	for _, p := range parts {
		if _, err := io.WriteString(c, p); err != nil && !errors.Is(err, syscall.EPIPE) {
			t.Fatal(err)
		}
	}
	_ = c.CloseWrite()
	var told strings.Builder
	for in := bufio.NewReader(c); ; {
		if _, err := in.Peek(1); err != nil {
			return told.String()
		}
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return told.String() + "broken"
		}
		body, err := io.ReadAll(res.Body)
		if errors.Is(err, syscall.ECONNRESET) {
			err = nil // it need not have read all that was sent
		}
		if res.Header.Get("Date") == "" && res.StatusCode/100 == 2 {
			t.Error("there is no date")
		}
		res.Header.Del("Date")
		fmt.Fprintln(&told, res.Proto, res.Status, res.Header, res.ContentLength, res.Close, string(body), err)
	}
}

// echo tells what it was asked. Of a body it may tell only the length, so that the answer is no longer than net/http keeps.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/plain")
	w.Header()["X-Several"] = []string{"a", "b\r\nX-Split: c"}
	if r.URL.Path == "/close" {
		w.Header().Set("Connection", "close")
	}
	if r.URL.Path == "/nothing" {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.WriteHeader(http.StatusAccepted)
	w.WriteHeader(http.StatusTeapot)
	if len(body) > 100 {
		body = []byte(strconv.Itoa(len(body)))
	}
	fmt.Fprintf(w, "%s %s %v %s %q %s %v", r.Method, r.RequestURI, r.Header, r.Host, body, r.Proto, err)
})

const one = "POST /a HTTP/1.1\r\nHost: pdp\r\nContent-Length: 2\r\n\r\n{}"

// What could be read in two ways, by a proxy in front and by us, is read as net/http reads it.
func TestAnswersAreThoseOfNetHTTP(t *testing.T) {
	t.Parallel()
	theirs, _ := start(t, web.Serve, echo, io.Discard)
	ours, _ := start(t, usual.Serve, echo, io.Discard)
	with := func(line string) string { return strings.Replace(one, "\r\n\r\n", "\r\n"+line+"\r\n\r\n", 1) }
	instead := func(old, new string) string { return strings.Replace(one, old, new, 1) }
	const chunked = "POST /c HTTP/1.1\r\nHost: pdp\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
	for _, sent := range []string{
		"", "\r\n", "x", "POST", one[:30], one[:len(one)-1], one, one + one, one + one[:20], one + "\r\n" + one, one + "\r\n\r\n\r\n" + one, "\r\n" + one,
		one + chunked + one, chunked, chunked + one, one + "GET /b HTTP/1.1\r\nHost: pdp\r\n\r\n" + one, "HEAD / HTTP/1.1\r\nHost: pdp\r\n\r\n",
		instead("/a", "/close") + one, instead("/a", "/nothing") + one, instead("/a", "/a?b=c") + one, instead("/a", "/%61") + one, instead("/a", "//a") + one,
		instead("/a", "http://pdp/a") + one, instead("/a", "*") + one, instead("/a", "/\xe4") + one, instead("/a", "/a b") + one,
		instead("1.1", "1.0"), instead("1.1", "1.0\r\nConnection: keep-alive") + one, instead("1.1", "2.0"), instead("1.1", "1.2"), instead("HTTP/1.1", "http/1.1"),
		instead("Host: pdp\r\n", "") + one, instead("Host: pdp", "Host: a/b") + one, instead("Host: pdp", "Host: ") + one, instead("Host:", "Host :") + one,
		instead("\r\nHost", "\nHost") + one, instead("pdp\r\n", "pdp\n") + one, instead("\r\n\r\n", "\n\n") + one, instead("pdp", "p\rdp") + one,
		instead(": 2", ": 3") + one, instead(": 2", ": 1") + one, instead(": 2", ": 0") + one, instead(": 2", ": -2") + one, instead(": 2", ": +2") + one,
		instead(": 2", ": 0x2") + one, instead(": 2", ": 2, 2") + one, instead(": 2", ": 02") + one, instead(": 2", ": ") + one, instead(": 2", ": 99999999999999999999") + one,
		with("Content-Length: 2") + one, with("Content-Length: 3") + one, with("content-length: 2") + one, with("Content-Length : 2") + one,
		with("Transfer-Encoding: chunked") + one, with("transfer-encoding: chunked") + one, with("Transfer-Encoding : chunked") + one,
		with("Transfer-Encoding: identity") + one, with("Transfer-Encoding: gzip, chunked") + one, with("Transfer-Encoding:\tchunked") + one, with("X: y\r\n Transfer-Encoding: chunked") + one,
		with("Expect: 100-continue") + one, with("Expect: nonsense") + one, with("Connection: close") + one, with("Connection: keep-alive") + one, with("Connection: Close, x") + one,
		with("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA") + one, with("Trailer: X") + one, with("TE: trailers") + one, with("Pragma: no-cache") + one,
		with("X: a\r\n\tb") + one, with(" X: a") + one, with("X: \x00") + one, with("X: \x01") + one, with("X: \x7f") + one, with("X: \xe4") + one, with("X y: a") + one, with(": a") + one, with("X") + one,
		with("X_y: a\r\nx_y: b\r\nX-Y: c\r\nX-y: d") + one, with("Host: other") + one, with("X: \t a \t") + one, with("X: ") + one, with("X:") + one,
		with("X: "+strings.Repeat("a", 5<<10)) + one, with("X: "+strings.Repeat("a", 70<<10)) + one,
		instead("2\r\n\r\n{}", "5000\r\n\r\n"+strings.Repeat("a", 5000)) + one, instead("2\r\n\r\n{}", "20000\r\n\r\n"+strings.Repeat("a", 20000)) + one,
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
	} {
		if got, want := exchange(t, ours, sent), exchange(t, theirs, sent); got != want {
			t.Errorf("%.200q\n%s\nwant\n%s", sent, got, want)
		}
	}
}

func TestARequestMayComeInPieces(t *testing.T) {
	t.Parallel()
	socket, _ := start(t, usual.Serve, echo, io.Discard)
	want := exchange(t, socket, one)
	if got := exchange(t, socket, strings.Split(one, "")...); got != want || !strings.Contains(got, "202") {
		t.Errorf("%s, want %s", got, want)
	}
}

// However they come, net/http passes over no more than two.
func TestEmptyLinesAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		run(t, usual.Serve, ln, echo, io.Discard)
		conn := ln.dial()
		in := bufio.NewReader(conn)
		for _, part := range []string{one, "\r\n", "\r\n" + one} {
			_, _ = io.WriteString(conn, part)
			if part == "\r\n" {
				continue
			}
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != http.StatusAccepted {
				t.Fatalf("%+v, %v", res, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
		}
		for range 3 {
			_, _ = io.WriteString(conn, "\r\n")
			synctest.Wait()
		}
		go func() { _, _ = io.WriteString(conn, one) }()
		if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusBadRequest {
			t.Errorf("%+v, %v", res, err)
		}
		_ = conn.Close()
	})
}

func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	const size = 300 << 10
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/unsaid" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		for range size / 1000 {
			_, _ = w.Write(bytes.Repeat([]byte("a"), 1000))
		}
		if _, err := w.Write(bytes.Repeat([]byte("b"), size%1000)); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/more" {
			if _, err := w.Write([]byte("c")); !errors.Is(err, http.ErrContentLength) {
				t.Errorf("more than it said: %v", err)
			}
		}
	})
	socket, _ := start(t, usual.Serve, h, io.Discard)
	for _, path := range []string{"/said", "/unsaid", "/more"} {
		got := exchange(t, socket, strings.Replace(one, "/a", path, 1), one)
		if n := strings.Count(got, strings.Repeat("a", size-size%1000)+strings.Repeat("b", size%1000)+" <nil>"); n != 2 {
			t.Errorf("%s: %d of 2 whole answers", path, n)
		}
	}
}

func TestAnAnswerThatBreaksOffEndsTheConnection(t *testing.T) {
	t.Parallel()
	socket, _ := start(t, usual.Serve, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100000")
		_, _ = w.Write(make([]byte, 50000))
	}), io.Discard)
	if got := exchange(t, socket, one, one); strings.Count(got, "200 OK") != 1 || strings.Contains(got, "<nil>") {
		t.Errorf("%d answers, %d of them whole", strings.Count(got, "200 OK"), strings.Count(got, "<nil>"))
	}
}

func TestAPanicEndsTheConnectionAlone(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	socket, end := start(t, usual.Serve, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/panic":
			panic("of a test")
		case "/abort":
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, "fine")
	}), &log)
	for _, path := range []string{"/panic", "/abort"} {
		if got := exchange(t, socket, strings.Replace(one, "/a", path, 1), one); got != "" {
			t.Errorf("%s: %s", path, got)
		}
	}
	if got := exchange(t, socket, one); !strings.Contains(got, "fine") {
		t.Errorf("afterwards: %s", got)
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if strings.Count(log.String(), "handler panicked") != 1 || !strings.Contains(log.String(), "of a test") {
		t.Errorf("the log has %s", log.String())
	}
}

func TestARequestEndsWhenItsClientGoes(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	socket, _ := start(t, usual.Serve, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(ended)
	}), io.Discard)
	c := dial(t, socket)
	if _, err := io.WriteString(c, one); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	<-ended
}

func TestWhatComesBehindALongRequestIsNotLost(t *testing.T) {
	t.Parallel()
	goOn, asked := make(chan struct{}), make(chan struct{}, 2)
	socket, _ := start(t, usual.Serve, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-goOn:
			_, _ = io.WriteString(w, "fine")
		case <-r.Context().Done():
		}
	}), io.Discard)
	c := dial(t, socket)
	_, _ = io.WriteString(c, one)
	<-asked
	// By the third turn it is read ahead what comes; the first byte of it alone.
	time.AfterFunc(300*time.Millisecond, func() {
		_, _ = io.WriteString(c, one)
		time.AfterFunc(100*time.Millisecond, func() { close(goOn) })
	})
	in := bufio.NewReader(c)
	for range 2 {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "fine" {
			t.Errorf("%q", body)
		}
	}
}

func TestAtTheEndRequestsUnderWayAreAnswered(t *testing.T) {
	t.Parallel()
	asked, goOn := make(chan struct{}), make(chan struct{})
	socket, end := start(t, usual.Serve, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-goOn
		_, _ = io.WriteString(w, "fine")
	}), io.Discard)
	idle, busy := dial(t, socket), dial(t, socket)
	_, _ = io.WriteString(busy, one)
	<-asked
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the idle connection: %v", err)
	}
	close(goOn)
	res, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(res.Body); string(body) != "fine" || !res.Close {
		t.Errorf("%q, close: %v", body, res.Close)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAtTheEndARequestThatHasBegunToComeIsAnswered(t *testing.T) {
	t.Parallel()
	for _, behind := range []string{"", one} {
		synctest.Test(t, func(t *testing.T) {
			ln := newPipes()
			end := run(t, usual.Serve, ln, echo, io.Discard)
			conn := ln.dial()
			in := bufio.NewReader(conn)
			if behind != "" {
				_, _ = io.WriteString(conn, behind)
				if _, err := http.ReadResponse(in, nil); err != nil {
					t.Fatal(err)
				}
				if _, err := in.Discard(in.Buffered()); err != nil {
					t.Fatal(err)
				}
			}
			_, _ = io.WriteString(conn, one[:30])
			synctest.Wait()
			ended := make(chan error, 1)
			go func() { ended <- end() }()
			synctest.Wait()
			_, _ = io.WriteString(conn, one[30:])
			if res, err := http.ReadResponse(in, nil); err != nil || res.StatusCode != http.StatusAccepted || !res.Close {
				t.Errorf("%v", err)
			}
			_ = conn.Close()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAtTheEndWhatGoesOnTooLongIsCut(t *testing.T) {
	t.Parallel()
	asked, cut := make(chan struct{}), make(chan struct{})
	socket, end := start(t, usual.Serve, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
		close(cut)
	}), io.Discard)
	c := dial(t, socket)
	_, _ = io.WriteString(c, one)
	<-asked
	if err := end(); err != nil {
		t.Error(err)
	}
	<-cut
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it was answered")
	}
}

// secured serves over TLS, and answers the address and what a client needs.
func secured(t *testing.T, by serve, h http.Handler) (address string, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil) // for its certificate
	s.StartTLS()
	defer s.Close()
	config := &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12}
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs //nolint:forcetypeassert // httptest's
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	run(t, by, tls.NewListener(ln, config), h, io.Discard)
	return ln.Addr().String(), &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS12}
}

func TestHandlersSeeTLSBeforeAndAfterAConnectionIsHandedOver(t *testing.T) {
	t.Parallel()
	address, config := secured(t, usual.Serve, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%v %s %s", r.TLS != nil && r.TLS.HandshakeComplete, r.Method, body)
	}))
	dialed := 0
	client := &http.Client{Transport: &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		dialed++
		return (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", address)
	}}}
	defer client.CloseIdleConnections()
	for _, method := range []string{http.MethodPost, http.MethodPost, http.MethodPut, http.MethodPost} {
		req, _ := http.NewRequestWithContext(t.Context(), method, "https://pdp/a", strings.NewReader("{}"))
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if string(body) != "true "+method+" {}" {
			t.Errorf("%s", body)
		}
	}
	if dialed != 1 {
		t.Errorf("%d connections", dialed)
	}
}

func TestWhoSpeaksNoTLSIsAnsweredAsByNetHTTP(t *testing.T) {
	t.Parallel()
	for _, sent := range []string{one, "GET / HTTP/1.1\r\n\r\n", "nonsense"} {
		var said [2]string
		for i, by := range []serve{usual.Serve, web.Serve} {
			address, _ := secured(t, by, echo)
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, sent)
			answer, _ := io.ReadAll(c)
			said[i] = string(answer)
			_ = c.Close()
		}
		if said[0] != said[1] {
			t.Errorf("%q: %q, want %q", sent, said[0], said[1])
		}
	}
}

// pipes is a listener whose connections live in a bubble's time.
type pipes struct {
	conns  chan any // net.Conn or error
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan any), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case v := <-p.conns:
		if err, failed := v.(error); failed {
			return nil, err
		}
		return v.(net.Conn), nil //nolint:forcetypeassert // there is nothing else
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }
func (p *pipes) dial() net.Conn {
	mine, theirs := net.Pipe()
	p.conns <- theirs
	return mine
}

// lives tells for how long the server keeps a connection.
func lives(c net.Conn) time.Duration {
	begun := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(begun)
}

func TestHowLongAConnectionMayWait(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name        string
		sent        []string
		least, most time.Duration
	}{
		{"nothing came", nil, 4 * time.Second, 6 * time.Second},
		{"half a head came", []string{one[:30]}, 5 * time.Second, 7 * time.Second},
		{"half a body came", []string{one[:len(one)-1]}, 30 * time.Second, 32 * time.Second},
		{"a request was answered", []string{one}, 2 * time.Minute, 2*time.Minute + 10*time.Second},
		{"a request that came in pieces was answered", []string{one[:30], one[30:]}, 2 * time.Minute, 2*time.Minute + 10*time.Second},
		{"half a request came behind another", []string{one + one[:30]}, 5 * time.Second, 7 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ln := newPipes()
				end := run(t, usual.Serve, ln, echo, io.Discard)
				conn := ln.dial()
				for _, s := range c.sent {
					_, _ = io.WriteString(conn, s)
				}
				if got := lives(conn); got < c.least || got > c.most {
					t.Errorf("it was kept for %v", got)
				}
				_ = conn.Close()
				if err := end(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		end := run(t, usual.Serve, ln, echo, io.Discard)
		conn := ln.dial()
		_, _ = io.WriteString(conn, one)
		time.Sleep(time.Minute) // of the bubble
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("it is still to be had")
		}
		_ = conn.Close()
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestTooManyOpenFilesPass(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln := newPipes()
		end := run(t, usual.Serve, ln, echo, io.Discard)
		ln.conns <- &net.OpError{Op: "accept", Err: syscall.EMFILE}
		conn := ln.dial()
		go func() { _, _ = io.WriteString(conn, one) }()
		if res, err := http.ReadResponse(bufio.NewReader(conn), nil); err != nil || res.StatusCode != http.StatusAccepted {
			t.Errorf("%v", err)
		}
		_ = conn.Close()
		if err := end(); err != nil {
			t.Error(err)
		}
	})
}

func TestAListenerThatFailsEndsTheServer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ln, broken := newPipes(), errors.New("broken")
		ended := make(chan error, 1)
		go func() { ended <- usual.Serve(t.Context(), ln, echo, slog.New(slog.DiscardHandler)) }()
		ln.conns <- broken
		if err := <-ended; !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
	})
}

func TestConnectionsAreServedBesideOneAnother(t *testing.T) {
	t.Parallel()
	socket, _ := start(t, usual.Serve, echo, io.Discard)
	want := exchange(t, socket, one)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			got := strings.SplitAfter(exchange(t, socket, slices.Repeat([]string{one}, 50)...), "\n")
			if len(got) != 51 || slices.ContainsFunc(got[:50], func(s string) bool { return s != want }) {
				t.Errorf("%d answers, or not the same", len(got)-1)
			}
		})
	}
	all.Wait()
}
