package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// process is a server that was started here, behind a Unix socket.
type process struct {
	name   string
	socket string
	cmd    *exec.Cmd
	said   bytes.Buffer
}

// start waits until the server answers at its socket.
func start(ctx context.Context, name, socket, program string, args ...string) (*process, error) {
	p := &process{name: name, socket: socket, cmd: exec.CommandContext(ctx, program, args...)} //nolint:gosec // what was built here
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}}
	for until := time.Now().Add(2 * time.Minute); ; {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/health?bundles", nil)
		if err != nil {
			return nil, err
		}
		if res, err := client.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return p, nil
			}
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("%s ended: %w: %s", name, err, p.said.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("%s does not answer: %s", name, p.said.String())
		}
	}
}

func (p *process) stop() { _ = p.cmd.Process.Kill() }

// cpu is what the process has used of processors (proc(5): clock ticks of 10 ms).
func (p *process) cpu() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// resident is the memory of the process in MB.
func (p *process) resident() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	for line := range strings.SplitSeq(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return kb / 1024
		}
	}
	return 0
}

// collector takes decision logs as a service of OPA's protocol does.
type collector struct {
	net.Listener
	server *http.Server
}

func collect(ctx context.Context) (*collector, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	c := &collector{Listener: l, server: &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK) // what was sent is not looked at, so that the collector costs both servers the same
	})}}
	go func() {
		if err := c.server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "collector:", err)
		}
	}()
	return c, nil
}

func (c *collector) url() string { return "http://" + c.Addr().String() }

// bench holds what servers are started from.
type bench struct {
	dir      string // temporary
	opa, pdp string // programs
	logs     *collector
	users    int
}

// write makes a policy folder, for either input.
func (b *bench) write(name, style string, users int, authzen bool) (string, error) {
	dir := filepath.Join(b.dir, name)
	text := policyOf(style)
	if authzen {
		text = asAuthZEN.Replace(text)
	}
	below, err := json.Marshal(dataOf(style, users))
	if err != nil {
		return "", err
	}
	for file, content := range map[string][]byte{"authz/policy.rego": []byte(text), "gatehouse/authz.rego": []byte(entry), "rbac/data.json": below} {
		at := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(at), 0o750); err != nil {
			return "", err
		}
		if err := os.WriteFile(at, content, 0o600); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// startOPA serves a folder by OPA's own server, which logs every decision to the collector.
func (b *bench) startOPA(ctx context.Context, dir string, flags ...string) (*process, error) {
	socket := dir + ".opa.sock"
	return start(ctx, "OPA", socket, b.opa, slices.Concat([]string{
		"run", "--server", "--addr", "unix://" + socket, "--disable-telemetry", "--log-level", "error",
		"--set", "services.logs.url=" + b.logs.url(), "--set", "decision_logs.service=logs", "--set", "decision_logs.reporting.min_delay_seconds=1",
		"--set", "decision_logs.reporting.max_delay_seconds=1",
	}, flags, []string{"-b", dir})...)
}

// startPDP serves it by gatehouse-pdp, likewise.
func (b *bench) startPDP(ctx context.Context, dir string, flags ...string) (*process, error) {
	socket, config := dir+".pdp.sock", dir+".log.yaml"
	text := fmt.Sprintf("spool: {dir: %q, size: 1GiB, when_full: block}\nsample: {default: 1}\nsinks:\n  - http: %s\n    allow_plaintext: true\n", dir+".spool", b.logs.url())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return start(ctx, "gatehouse-pdp", socket, b.pdp, append([]string{"serve", "-listen", "unix://" + socket, "-status", "none", "-log-level", "warn",
		"-policies", dir, "-data-paths", "authz/allow", "-decision-log", config}, flags...)...)
}
