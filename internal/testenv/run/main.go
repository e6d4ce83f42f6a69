// Command run starts a PostgreSQL and a Redis of its own on spare ports, in a folder that it removes again, and runs the
// given command against them, telling it too where NGINX is: go run ./internal/testenv/run -- go test ./...
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		os.Exit(1)
	}
	os.Exit(code)
}

func run(args []string) (code int, err error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return 0, errors.New("usage: run -- COMMAND [ARGUMENT…]")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	tools, err := find(ctx)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "gatehouse-test-")
	if err != nil {
		return 0, fmt.Errorf("make a folder for the servers: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, fmt.Errorf("open the folder to the servers' user: %w", err)
	}
	pg, err := startPostgres(ctx, tools, filepath.Join(dir, "pg"))
	if err != nil {
		return 0, err
	}
	defer pg.stop(syscall.SIGQUIT) // an immediate shutdown: nothing in it is worth keeping
	rd, err := startRedis(ctx, tools, filepath.Join(dir, "redis"))
	if err != nil {
		return 0, err
	}
	defer rd.stop(syscall.SIGTERM)

	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// A group of its own: a signal reaches what the command started as well (go test does not pass one on), and reaches it once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), testenv.PostgresVariable+"="+pg.url, testenv.RedisVariable+"="+rd.url, testenv.NGINXVariable+"="+tools.nginx)
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// server is a child process that serves at url.
type server struct {
	cmd  *exec.Cmd
	url  string
	over chan struct{} // closed when the process has ended
}

func (s *server) stop(sig os.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		fmt.Fprintln(os.Stderr, "testenv: stop", s.cmd.Path+":", err)
	}
	<-s.over
}

func startPostgres(ctx context.Context, tools binaries, dir string) (*server, error) {
	if err := own(dir, tools.as); err != nil {
		return nil, err
	}
	init := exec.CommandContext(ctx, tools.initdb, "-D", dir, "-U", "gatehouse", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions")
	init.Dir, init.SysProcAttr = dir, &syscall.SysProcAttr{Credential: tools.as}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := sparePort()
	if err != nil {
		return nil, err
	}
	p := strconv.Itoa(port)
	s := &server{url: "postgres://gatehouse@127.0.0.1:" + p + "/postgres?sslmode=disable"}
	return s, s.start(ctx, dir, tools, s.selects, tools.postgres, "-D", dir, "-p", p, "-h", "127.0.0.1", "-k", "", // a socket's path could be too long
		"-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300", "-c", "log_min_messages=fatal")
}

func startRedis(ctx context.Context, tools binaries, dir string) (*server, error) {
	if err := own(dir, tools.as); err != nil {
		return nil, err
	}
	port, err := sparePort()
	if err != nil {
		return nil, err
	}
	s := &server{url: "redis://127.0.0.1:" + strconv.Itoa(port)}
	return s, s.start(ctx, dir, tools, s.pings, tools.redis, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "no", "--databases", "10000", "--loglevel", "warning")
}

// start runs the server and waits until it answers: PostgreSQL takes connections before it is ready for one. Its own process
// group keeps Ctrl-C from reaching it before the tests have ended.
func (s *server) start(ctx context.Context, dir string, tools binaries, answers func(context.Context) error, path string, args ...string) error {
	s.cmd = exec.Command(path, args...) //nolint:noctx // it outlives the signal: stop ends it, after the tests
	s.cmd.Dir = dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: tools.as, Setpgid: true}
	var said bytes.Buffer // shown only where it matters: the output belongs to the command
	s.cmd.Stderr = &said
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", path, err)
	}
	s.over = make(chan struct{})
	go func() {
		_ = s.cmd.Wait() // its status after a signal says nothing
		close(s.over)
	}()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for ctx.Err() == nil {
		if err = answers(ctx); err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		case <-s.over:
			cancel()
		}
	}
	s.stop(syscall.SIGKILL)
	return fmt.Errorf("%s does not answer: %w\n%s", path, err, said.Bytes())
}

func (s *server) selects(ctx context.Context) error {
	c, err := pgx.Connect(ctx, s.url)
	if err != nil {
		return err
	}
	return c.Close(ctx)
}

func (s *server) pings(ctx context.Context) error {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(s.url, "redis://"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer := make([]byte, len("+PONG"))
	if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "+PONG" {
		return fmt.Errorf("answered %q to PING: %w", answer, err)
	}
	return nil
}

func sparePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a loopback port needs no deadline
	if err != nil {
		return 0, fmt.Errorf("find a spare port: %w", err)
	}
	defer func() { _ = ln.Close() }() // only its number was wanted
	return ln.Addr().(*net.TCPAddr).Port, nil
}

func own(dir string, as *syscall.Credential) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if as == nil {
		return nil
	}
	return os.Chown(dir, int(as.Uid), int(as.Gid))
}
