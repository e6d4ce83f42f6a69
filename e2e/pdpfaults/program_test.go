// Package pdpfaults_test runs the built decision point, its bundles on a web server, and a steady load of questions whose answers are
// known, and brings about one fault after the other: of the bundles' source, of what is in them, of what callers send, of the clock and
// of the disk. No question may be answered wrongly, fail, or wait for longer than is stated here; each fault is told by /readyz, a
// metric and a line of the log, which say where and why; and when it is over everything is as before.
package pdpfaults_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// patience is how long an event may take on a machine that has much else to do.
const patience = 60 * time.Second

func TestMain(m *testing.M) { os.Exit(run(m)) }

var folder string // for what all tests share; TestMain makes and removes it

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "gatehouse-pdp-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	folder = dir
	return m.Run()
}

// clock stands in for the program's own: it can be set while it runs, by a number of seconds in a file, as date(1) would set the
// machine's. What has elapsed (the monotonic reading) it leaves as it is, as the kernel does.
const clock = `package main

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var set atomic.Int64

func init() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() {
		for range c {
			text, _ := os.ReadFile(os.Getenv("GATEHOUSE_TEST_CLOCK"))
			seconds, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
			if err != nil {
				panic(err)
			}
			set.Store(seconds)
		}
	}()
}

func now() time.Time {
	t := time.Now()
	*(*uint64)(unsafe.Pointer(&t)) += uint64(set.Load()) << 30 // seconds of the wall clock, beside the monotonic reading
	return t
}
`

// build makes the program once, as it is shipped but for its clock.
var build = sync.OnceValues(func() (string, error) {
	path, source, overlay := filepath.Join(folder, "gatehouse-pdp"), filepath.Join(folder, "clock.go"), filepath.Join(folder, "overlay.json")
	real, err := filepath.Abs("../../pdp/clock.go")
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{real: source}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(source, []byte(clock), 0o600), os.WriteFile(overlay, text, 0o600)); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-overlay", overlay, "-o", path, "../../pdp").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the decision point: %w: %s", err, out)
	}
	return path, err
})

// program is a running decision point.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	said   *testenv.Output
	ended  chan struct{}
	url    string
	status string
	dir    string
}

// start runs `serve` with these arguments, over what dir holds from one start to the next.
func start(t *testing.T, dir string, args ...string) *program {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, said: &testenv.Output{}, ended: make(chan struct{}), dir: dir}
	p.cmd = exec.Command(path, append([]string{"serve", "-listen", "127.0.0.1:0", "-status", "127.0.0.1:0", "-data-paths", "gatehouse"}, args...)...)
	p.cmd.Env = append(os.Environ(), "GATEHOUSE_TEST_CLOCK="+filepath.Join(dir, "clock"))
	p.cmd.Stderr = p.said
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // stop looks at how it ended
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	await.That(t, "the decision point listens", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("it ended: %s", p.said)
		default:
		}
		line := p.line("deciding")
		if line == nil {
			return false
		}
		p.url, p.status = fmt.Sprintf("http://%v", line["address"]), fmt.Sprintf("http://%v", line["status"])
		return true
	})
	return p
}

// stop ends it, which must go well.
func (p *program) stop() {
	select {
	case <-p.ended:
	default:
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(patience):
			p.t.Error("it does not end")
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
	}
	if !p.cmd.ProcessState.Success() {
		p.t.Errorf("it ended by %v", p.cmd.ProcessState)
	}
}

// line is the first of the log with this message.
func (p *program) line(message string, words ...string) map[string]any {
	for line := range strings.Lines(p.said.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == message && holds(line, words) {
			return m
		}
	}
	return nil
}

func holds(text string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

func (p *program) get(path string) (int, string) {
	res, err := testhttp.Client.Get(p.status + path)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(body)
}

// ready reports whether /readyz says all of that.
func (p *program) ready(words ...string) bool {
	_, body := p.get("/readyz")
	var m map[string]any
	if json.Unmarshal([]byte(body), &m) != nil {
		return false
	}
	return holds(fmt.Sprint(m), words) // without the escapes of JSON
}

// well reports whether nothing is the matter.
func (p *program) well() bool { return p.ready("status:ok") }

// metric is the value of a line of /metrics, with its labels; 0 if it is not there.
func (p *program) metric(name string) float64 {
	_, body := p.get("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			v, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return v
		}
	}
	return 0
}

// turn sets the clock.
func (p *program) turn(by time.Duration) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "clock"), []byte(strconv.Itoa(int(by/time.Second))), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
		p.t.Fatal(err)
	}
}

// within waits, and tells what the program said if that was in vain.
func (p *program) within(what string, holds func() bool) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			_, ready := p.get("/readyz")
			var said []string
			for line := range strings.Lines(p.said.String()) {
				if !strings.Contains(line, `"msg":"denied"`) {
					said = append(said, line)
				}
			}
			p.t.Fatalf("never came true: %s\n%s\n%s", what, ready, strings.Join(said[max(0, len(said)-20):], ""))
		}
	}
}
