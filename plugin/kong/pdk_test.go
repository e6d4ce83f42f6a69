package kong_test

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pdk "github.com/Kong/go-pdk"
	pdkserver "github.com/Kong/go-pdk/server"
	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// Two servers of the protocol, each in a process of its own, with one plugin: it reads what the guard reads and allows, or
// denies what is called /denied. /spent answers how much processor time the process has taken.
const (
	serverVariable = "GATEHOUSE_TEST_SERVER"
	ours           = "gatehouse"
	theirs         = "go-pdk"
)

func TestMain(m *testing.M) {
	switch os.Getenv(serverVariable) {
	case "":
		goleak.VerifyTestMain(m)
	case ours:
		log.Fatal(serveOurs(os.Args[1]))
	case theirs:
		log.SetOutput(io.Discard) // it logs every connection that ends
		_ = pdkserver.StartServer(func() any { return &pdkPlugin{} }, "1.0.0", 1)
		os.Exit(1)
	}
}

func serveOurs(socket string) error {
	s, err := kong.NewServer(func(guard.Config) (kong.Handler, error) {
		return handler(func(r guard.Request) guard.Verdict {
			switch r.Path {
			case "/denied":
				return guard.Verdict{Status: 403, Header: map[string]string{"X-A": "b"}, Body: []byte("no")}
			case "/spent":
				return guard.Verdict{Forward: true, SetHeaders: map[string]string{"X-Spent": spent()}}
			default:
				return guard.Verdict{Forward: true, SetHeaders: map[string]string{"X-Gatehouse-Subject": r.Header["x-subject"][0], "X-Gatehouse-Roles": r.Route}}
			}
		}), nil
	}, time.Now, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return s.Serve(context.Background(), ln)
}

// pdkPlugin does with go-pdk what serveOurs does.
type pdkPlugin struct {
	Identify string //nolint:unused // go-pdk reads the configuration into it
}

func (pdkPlugin) Access(k *pdk.PDK) {
	header, err := k.Request.GetHeaders(1000)
	line, err1 := k.Nginx.GetVar("request")
	_, err2 := k.Nginx.GetVar("upstream_uri")
	_, err3 := k.Client.GetForwardedIp()
	route, err4 := k.Router.GetRoute()
	if err = errors.Join(err, err1, err2, err3, err4); err != nil {
		k.Response.Exit(500, nil, nil)
		return
	}
	switch line {
	case "GET /denied HTTP/1.1":
		k.Response.Exit(403, []byte("no"), map[string][]string{"X-A": {"b"}})
	case "GET /spent HTTP/1.1":
		_ = k.ServiceRequest.SetHeaders(map[string][]string{"X-Spent": {spent()}})
	default:
		_ = k.ServiceRequest.SetHeaders(map[string][]string{"X-Gatehouse-Subject": header["x-subject"], "X-Gatehouse-Roles": {route.Name}})
	}
}

// spent is the processor time that this process has taken, in nanoseconds.
func spent() string {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return err.Error()
	}
	return strconv.FormatInt(u.Utime.Nano()+u.Stime.Nano(), 10)
}

// server starts one of the two and answers its socket.
func server(t testing.TB, name string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // a socket's path may have 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket, args := filepath.Join(dir, "s"), []string{filepath.Join(dir, "s")}
	if name == theirs {
		socket, args = filepath.Join(dir, filepath.Base(exe)+".socket"), []string{"-kong-prefix", dir}
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), serverVariable+"="+name)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			return socket
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// What Kong may say, both servers answer alike. Ours differs where go-pdk's is wrong for a guard: a panic ends go-pdk's whole
// process, and ours answers a shutdown, bad frames and a bad configuration as server_test.go shows.
func TestBothServersAnswerKongAlike(t *testing.T) {
	t.Parallel()
	for _, name := range []string{ours, theirs} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := server(t, name)
			p := dial(t, socket)
			id := p.start(open)
			subject := headers(t, map[string]any{"x-subject": "u1"})
			for range 2 {
				o := p.event(id, request{headers: subject, line: "GET / HTTP/1.1", uri: "/"})
				if f := o.set.GetFields(); !o.ended || first(f["X-Gatehouse-Subject"]) != "u1" || first(f["X-Gatehouse-Roles"]) != "orders" {
					t.Fatalf("outcome %+v", o)
				}
			}
			denied := dial(t, socket)
			o := denied.event(id, request{headers: subject, line: "GET /denied HTTP/1.1", uri: "/denied"})
			if o.exit.GetStatus() != 403 || string(o.exit.GetBody()) != "no" || first(o.exit.GetHeaders().GetFields()["X-A"]) != "b" {
				t.Errorf("denied: %+v", o)
			}
			_ = denied.conn.Close()

			other := p.start(strings.Replace(open, `"__seq__":3`, `"__seq__":4`, 1)) // by which go-pdk calls it
			if other == id || other == 0 {
				t.Errorf("a second instance is called %d after %d", other, id)
			}
			p.send(&protocol.RpcCall{Sequence: 9, Call: &protocol.RpcCall_CmdGetInstanceStatus{CmdGetInstanceStatus: &protocol.CmdGetInstanceStatus{InstanceId: id}}})
			if r := p.result(); r.GetSequence() != 9 || r.GetInstanceStatus().GetInstanceId() != id {
				t.Errorf("status: %v", r)
			}
			p.send(&protocol.RpcCall{Sequence: 10, Call: &protocol.RpcCall_CmdCloseInstance{CmdCloseInstance: &protocol.CmdCloseInstance{InstanceId: id}}})
			if r := p.result(); r.GetSequence() != 10 {
				t.Errorf("close: %v", r)
			}
			if o := p.event(id, request{}); o.broken == nil {
				t.Errorf("an event of a closed instance: %+v", o)
			}
			if o := dial(t, socket).event(other, request{headers: subject, line: "GET / HTTP/1.1", uri: "/"}); !o.ended {
				t.Errorf("the instance that goes on: %+v", o)
			}
		})
	}
}
