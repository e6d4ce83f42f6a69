package testenv

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// NGINXVariable is the path of the nginx that the runner found.
const NGINXVariable = "GATEHOUSE_TEST_NGINX"

// NGINX runs an nginx until the test ends, with conf in its http block, and answers where it listens: conf says LISTEN for it.
func NGINX(t testing.TB, conf string) (address string) {
	t.Helper()
	program := os.Getenv(NGINXVariable)
	if program == "" {
		t.Fatal(NGINXVariable, hint)
	}
	dir := t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = ln.Addr().String()
	_ = ln.Close() // nginx takes the port
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // or its workers could not open what root's test made
	}
	main := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; worker_processes 1; pid %[1]s/pid; error_log stderr warn; %[2]s
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e;
	%[3]s
}`, dir, user, strings.ReplaceAll(conf, "LISTEN", address))
	if err := os.WriteFile(main, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd := exec.Command(program, "-p", dir, "-c", main)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test, which stops it
	if err := cmd.Start(); err != nil {
		t.Fatalf("start nginx: %v", err)
	}
	over := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its status after a signal says nothing
		close(over)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		<-over
		if t.Failed() {
			t.Logf("nginx said:\n%s", said.Bytes())
		}
	})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); ; {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			return address
		}
		select {
		case <-tick.C:
		case <-over:
			t.Fatalf("nginx ended:\n%s", said.Bytes())
		case <-end:
			t.Fatal("nginx does not listen")
		}
	}
}
