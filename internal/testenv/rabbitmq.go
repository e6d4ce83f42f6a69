package testenv

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
)

// rabbitDir is where Debian has RabbitMQ's own scripts; those on the PATH want to be another user.
const rabbitDir = "/usr/lib/rabbitmq/bin"

// FindRabbitMQ answers the path of rabbitmq-server, or "".
func FindRabbitMQ() string {
	if _, err := exec.LookPath("epmd"); err != nil {
		return ""
	}
	path, err := exec.LookPath(filepath.Join(rabbitDir, "rabbitmq-server"))
	if err != nil {
		return ""
	}
	return path
}

// Rabbit is a RabbitMQ of a test's own.
type Rabbit struct {
	Address, User, Password string
	TLSAddress              string // the same by TLS
}

// RabbitTLS are files by which a RabbitMQ shows who it is, and the authority of clients that do so too. A client whose certificate
// has the user's name needs no password (SASL EXTERNAL).
type RabbitTLS struct{ CAFile, CertFile, KeyFile string }

// conf is what RabbitMQ is told of it.
func (f RabbitTLS) conf(address string) string {
	return fmt.Sprintf("listeners.ssl.1 = %s\nssl_options.cacertfile = %s\nssl_options.certfile = %s\nssl_options.keyfile = %s\n", address, f.CAFile, f.CertFile, f.KeyFile) +
		"ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = false\nssl_options.versions.1 = tlsv1.3\nssl_options.versions.2 = tlsv1.2\n" +
		"ssl_cert_login_from = common_name\nauth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\n"
}

// RabbitMQ starts a RabbitMQ, which takes some three seconds of a processor, and ends it with the test. It is for those tests alone
// that need it, so the runner does not start one.
func RabbitMQ(t testing.TB, secured RabbitTLS) Rabbit {
	t.Helper()
	program := FindRabbitMQ()
	if program == "" {
		t.Fatalf("no RabbitMQ was found: install Debian's package rabbitmq-server, or run the tests by 'make test'")
	}
	for range 5 {
		if r, ok := startRabbitMQ(t, program, secured); ok {
			return r
		}
	}
	t.Fatal("RabbitMQ ends each time")
	return Rabbit{}
}

// startRabbitMQ answers false where the program ends: other tests may have taken one of its ports before it could.
func startRabbitMQ(t testing.TB, program string, secured RabbitTLS) (Rabbit, bool) {
	t.Helper()
	dir := t.TempDir()
	r := Rabbit{User: "gatehouse", Password: uuid.NewString()}
	var ports [4]string // RabbitMQ's, Erlang's between nodes, epmd's, and RabbitMQ's by TLS
	for i := range ports {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = strconv.Itoa(ln.Addr().(*net.TCPAddr).Port)
		_ = ln.Close() // only its number was wanted
	}
	r.Address, r.TLSAddress = "127.0.0.1:"+ports[0], "127.0.0.1:"+ports[3]
	conf := fmt.Sprintf("listeners.tcp.1 = %s\ndefault_user = %s\ndefault_pass = %s\nlog.console = true\nlog.console.level = error\n", r.Address, r.User, r.Password) + secured.conf(r.TLSAddress)
	for name, text := range map[string]string{"rabbitmq.conf": conf, "plugins": "[rabbitmq_auth_mechanism_ssl]."} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environment := append(os.Environ(), "HOME="+dir, "ERL_EPMD_PORT="+ports[2], "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=t"+ports[0]+"@localhost", "RABBITMQ_DIST_PORT="+ports[1], "RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_LOGS=-",
		"RABBITMQ_CONFIG_FILE="+filepath.Join(dir, "rabbitmq.conf"), "RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(dir, "plugins"),
		"RABBITMQ_MNESIA_BASE="+filepath.Join(dir, "mnesia"), "RABBITMQ_LOG_BASE="+filepath.Join(dir, "log"), "RABBITMQ_PID_FILE="+filepath.Join(dir, "pid"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=+sbwt none +sbwtdcpu none +sbwtdio none", // idle processors do not spin
	)
	// Without one Erlang would leave an epmd behind, for all that come after.
	child(t, environment, dir, syscall.SIGTERM, "epmd", "-port", ports[2], "-address", "127.0.0.1")
	over := child(t, environment, dir, syscall.SIGKILL, program) // nothing in it is worth keeping
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.After(2 * time.Minute)
	for {
		err := greet(r.Address)
		if err == nil {
			err = reach(r.TLSAddress)
		}
		if err == nil {
			return r, true
		}
		select {
		case <-tick.C:
		case <-over:
			t.Logf("RabbitMQ ended: %v", err)
			return r, false
		case <-end:
			t.Fatalf("RabbitMQ does not answer: %v", err)
		}
	}
}

// reach looks whether somebody listens.
func reach(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}

// greet asks for version 0-9-1, and wants a frame.
func greet(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second)) // else Read says so
	if _, err := c.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	var first [1]byte
	if _, err := c.Read(first[:]); err != nil {
		return err
	}
	if first[0] != 1 {
		return errors.New("no frame")
	}
	return nil
}

// child runs a program, in a process group of its own, until the test ends.
func child(t testing.TB, environment []string, dir string, end syscall.Signal, program string, args ...string) (over chan struct{}) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = environment, dir, &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for the test, which stops it
	cmd.WaitDelay = 5 * time.Second                       // for what its own children still say
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", program, err)
	}
	over = make(chan struct{})
	go func() {
		_ = cmd.Wait() // its status after a signal says nothing
		close(over)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, end) // it may have ended
		<-over
		if t.Failed() {
			t.Logf("%s said:\n%s", program, said.Bytes())
		}
	})
	return over
}
