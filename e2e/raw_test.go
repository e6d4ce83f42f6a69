package e2e_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

// raw sends bytes that no well-behaved client would, and reads one answer.
func raw(t *testing.T, base, head, body string) story.Answer {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(head, "\n")
	lines = append(lines, "Host: "+u.Host, "Connection: close", fmt.Sprintf("Content-Length: %d", len(body)), "", body)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return story.Answer{Status: res.StatusCode, Header: res.Header, Body: data}
}

func dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	if u.Scheme == "https" {
		return (&tls.Dialer{}).DialContext(ctx, "tcp", hostPort(u, "443"))
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", hostPort(u, "80"))
}

func hostPort(u *url.URL, port string) string {
	if u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// rawTruncated announces more of the body than it sends, and ends its side. A connection that is just closed is status 0.
func rawTruncated(t *testing.T, base, head, body string, announced int) story.Answer {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", hostPort(u, "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	lines := append(strings.Split(head, "\n"), "Host: "+u.Host, fmt.Sprintf("Content-Length: %d", announced), "", body)
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return story.Answer{}
	}
	defer res.Body.Close()
	data, _ := io.ReadAll(res.Body)
	return story.Answer{Status: res.StatusCode, Header: res.Header, Body: data}
}
