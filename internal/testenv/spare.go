package testenv

import (
	"net"
	"testing"
)

// Spare is an address at which nobody listens yet, for a program that must be told where to, or that is to listen there again after
// it was killed. It is on 127.0.0.2: on 127.0.0.1 the port may go to anybody's connection before it does, or in between.
func Spare(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
