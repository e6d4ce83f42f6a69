// Package e2e_test plays against the whole of Gatehouse over HTTP: by default a set-up in this process whose plugin is the
// built gatehouse-plugin, run as a child as Kong runs it; with GATEHOUSE_URL whatever answers there, such as a real Kong.
// GATEHOUSE_MAILBOX_URL is then where GET /messages.json lists the mails.
package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/stack"
	"github.com/gatehouse-auth/gatehouse/e2e/story"
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run stops what the tests share when the last has ended.
func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	folder = dir
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "the shared set-up:", err)
		return 1
	}
	return code
}

var (
	folder string // for what all tests share; TestMain makes and removes it
	shared running
)

// plugin builds the plugin once for all tests.
var plugin = sync.OnceValues(func() (string, error) {
	path := filepath.Join(folder, "gatehouse-plugin")
	out, err := exec.Command("go", "build", "-o", path, "../plugin").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the plugin: %w: %s", err, out)
	}
	return path, err
})

// running is a stack and what ends it.
type running struct {
	once  sync.Once
	stack *stack.Stack
	err   error
	end   context.CancelFunc
	ended chan error
}

// patience is the deadline of everything on the way to a decision: a machine that runs all tests at once is slower than
// what production is to be measured by.
const patience = time.Second

// configuration is kong.yml and policies/ as they are but for their deadlines, made once for all tests.
var configuration = sync.OnceValues(func() (dir string, err error) {
	dir = filepath.Join(folder, "configuration")
	if err := os.CopyFS(filepath.Join(dir, "policies"), os.DirFS("../policies")); err != nil {
		return "", err
	}
	return dir, errors.Join(
		relax("../kong.yml", filepath.Join(dir, "kong.yml"), "pdp: {url:", fmt.Sprintf("pdp: {timeout_ms: %d, url:", patience.Milliseconds())),
		relax("../policies/gatehouse/lookups.yaml", filepath.Join(dir, "policies/gatehouse/lookups.yaml"), "deadline: 20ms", "deadline: "+patience.String()),
	)
})

func relax(from, to, old, now string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if !bytes.Contains(text, []byte(old)) {
		return fmt.Errorf("%s no longer has %q", from, old)
	}
	return os.WriteFile(to, bytes.ReplaceAll(text, []byte(old), []byte(now)), 0o600)
}

func (r *running) start(o stack.Options) {
	dir, err := configuration()
	if err != nil {
		r.err = err
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.end, r.ended = cancel, make(chan error, 1)
	o.KongFile, o.PolicyDir, o.Deadline = filepath.Join(dir, "kong.yml"), filepath.Join(dir, "policies"), patience
	o.Log = slog.New(slog.DiscardHandler)
	if r.stack, r.err = stack.New(ctx, o); r.err != nil {
		cancel()
		return
	}
	go func() { r.ended <- r.stack.Run(ctx) }()
	ready, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if r.err = r.stack.Ready(ready); r.err != nil {
		r.err = errors.Join(r.err, r.stop())
	}
}

func (r *running) stop() error {
	if r.stack == nil {
		return nil
	}
	s := r.stack
	r.stack = nil
	r.end()
	return errors.Join(<-r.ended, s.Close())
}

// site is where a test plays, from a network of its own: limits count by address, failures by network.
type site struct {
	story.Site
	stack *stack.Stack // nil where it is somebody else's
}

// open answers the set-up that tests share which break nothing.
func open(t *testing.T) site {
	t.Helper()
	if base := os.Getenv("GATEHOUSE_URL"); base != "" {
		return site{Site: story.Site{Gateway: base, Mailbox: os.Getenv("GATEHOUSE_MAILBOX_URL"), HTTP: client(t, base)}}
	}
	shared.once.Do(func() {
		binary, err := plugin()
		if err != nil {
			shared.err = err
			return
		}
		shared.start(stack.Options{DataDir: filepath.Join(folder, "shared"), Plugin: binary})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return site{stack.Site(shared.stack, client(t, shared.stack.URL())), shared.stack}
}

// breaks skips a test that breaks parts of a set-up where that is somebody else's.
func breaks(t *testing.T) {
	t.Helper()
	if os.Getenv("GATEHOUSE_URL") != "" {
		t.Skip("this breaks parts of a set-up, and GATEHOUSE_URL is somebody else's")
	}
}

// own starts a set-up that the test may break.
func own(t *testing.T, o stack.Options) site {
	t.Helper()
	breaks(t)
	if o.DataDir == "" {
		o.DataDir = t.TempDir()
	}
	r := &running{}
	r.start(o)
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return site{stack.Site(r.stack, client(t, r.stack.URL())), r.stack}
}

var addresses atomic.Int32

// client sends from a network of 127.0.0.0/8 that no other test has, where the site is on this machine.
func client(t *testing.T, base string) *http.Client {
	t.Helper()
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if ip := net.ParseIP(u.Hostname()); ip != nil && ip.IsLoopback() && ip.To4() != nil {
		n := addresses.Add(1)
		dialer.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1+byte(n>>8), byte(n), 1)}
	}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 16}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport: transport, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// guest is a client without a token.
func (s site) guest() story.Client { return story.Client{HTTP: s.HTTP, Base: s.Gateway} }

// join registers, verifies and logs in somebody new.
func (s site) join(t *testing.T) story.Account {
	t.Helper()
	a, err := story.Join(t.Context(), s.Site)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func send(t *testing.T, c story.Client, method, path string, body any) story.Answer {
	t.Helper()
	a, err := c.Send(t.Context(), story.Request{Method: method, Path: path, Body: body})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// want fails unless the answer has this status and, where code is not "", is a whole problem document of this code.
func want(t *testing.T, a story.Answer, status int, code string) {
	t.Helper()
	if err := a.Is(status, code); err != nil {
		t.Error(err)
	}
}

// until waits until a request is answered so.
func until(t *testing.T, within time.Duration, c story.Client, method, path string, status int, code string) {
	t.Helper()
	err := story.Until(t.Context(), within, 50*time.Millisecond, func(ctx context.Context) (bool, error) {
		a, err := c.Send(ctx, story.Request{Method: method, Path: path})
		if err == nil {
			err = a.Is(status, code)
		}
		return err == nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}
