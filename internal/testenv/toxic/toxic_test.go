package toxic_test

import (
	"io"
	"net"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/toxic"
)

// greeter says "hello" to whoever connects.
func greeter(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "hello")
			c.Close()
		}
	}()
	return ln.Addr().String()
}

func hears(t *testing.T, address string) bool {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		return false
	}
	defer c.Close()
	said, _ := io.ReadAll(c)
	return string(said) == "hello"
}

func TestTheNetworkCanBeCutAndJoined(t *testing.T) {
	t.Parallel()
	p := toxic.New(t, greeter(t))
	for range 2 {
		if !hears(t, p.Address()) {
			t.Error("nothing comes through")
		}
		p.Cut()
		if hears(t, p.Address()) {
			t.Error("something comes through a network that is cut")
		}
		p.Join()
	}
	p.Add("limit_data", map[string]any{"bytes": 2})
	if hears(t, p.Address()) {
		t.Error("the toxic does nothing")
	}
	p.Heal()
	if !hears(t, p.Address()) {
		t.Error("the toxic outlives Heal")
	}
}
