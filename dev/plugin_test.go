package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

const childConfig = `
_format_version: "3.0"
services:
  - name: api
    url: http://api:1
    routes:
      - name: guarded
        paths: [/]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false}}]
`

// pids hands on the process id of each plugin server that the gateway starts.
type pids struct {
	slog.Handler
	started chan int
}

func (p pids) Enabled(context.Context, slog.Level) bool { return true }

func (p pids) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "plugin server started" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "pid" {
				p.started <- int(a.Value.Int64())
			}
			return true
		})
	}
	return nil
}

// S57: the plugin is killed under load. No request passes unchecked, and service is back within two seconds.
func TestKilledPluginLetsNothingPassAndComesBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary, socket := filepath.Join(dir, "gatehouse-plugin"), filepath.Join(dir, "gatehouse.socket")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "../plugin").CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	var unchecked, passed atomic.Int64
	upstream := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		passed.Add(1)
		if r.Header.Get(principal.HeaderDecision) == "" || r.Header.Get(principal.HeaderSubject) != "" {
			unchecked.Add(1)
		}
	}))
	t.Cleanup(upstream.Close)
	started := make(chan int, 10)
	g, err := gateway.New(t.Context(), gateway.Options{
		Config: []byte(childConfig), Address: map[string]string{"api:1": upstream.Listener.Addr().String()},
		Plugin: gateway.PluginServer{
			Socket:       socket,
			StartCommand: fmt.Sprintf("%s -socket %s -status ''", binary, socket),
			QueryCommand: fmt.Sprintf("%s -dump -socket %s", binary, socket),
		},
		Log: slog.New(pids{slog.DiscardHandler, started}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running, load sync.WaitGroup
	running.Go(func() { _ = g.Run(ctx) })
	running.Go(func() { _ = g.Serve(ctx, ln) })

	ask := func() int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+ln.Addr().String()+"/x", nil)
		if err != nil {
			t.Error(err)
			return 0
		}
		req.Header.Set(principal.HeaderSubject, "root")
		resp, err := testhttp.Client.Do(req)
		if err != nil {
			t.Error(err)
			return 0
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusInternalServerError {
			t.Errorf("status %d", resp.StatusCode)
		}
		return resp.StatusCode
	}
	up := func() time.Duration {
		begun := time.Now()
		for time.Since(begun) < 10*time.Second {
			if ask() == http.StatusOK {
				break
			}
		}
		return time.Since(begun)
	}
	first := <-started
	if took := up(); took > 5*time.Second {
		t.Fatalf("not up after %v", took)
	}
	stop := make(chan struct{})
	for range 8 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					ask()
				}
			}
		})
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := <-started
	if took := up(); took > 2*time.Second {
		t.Errorf("back after %v, want 2 s at most", took)
	}
	close(stop)
	load.Wait()
	if second == first {
		t.Error("the same process")
	}
	if unchecked.Load() != 0 || passed.Load() == 0 {
		t.Errorf("%d of %d requests reached the upstream unchecked", unchecked.Load(), passed.Load())
	}
	begun := time.Now()
	cancel()
	running.Wait()
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if err := syscall.Kill(second, 0); err == nil {
		t.Error("the plugin's process is still there")
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket was left behind")
	}
}
