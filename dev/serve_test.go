package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

// output is what a command prints, read while it still runs.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (o *output) waitFor(t *testing.T, text string) {
	t.Helper()
	for deadline := time.After(time.Minute); !strings.Contains(o.String(), text); {
		select {
		case <-o.changed:
		case <-deadline:
			t.Fatalf("never printed %q, but %s", text, o)
		}
	}
}

func none(string) string { return "" }

// everywhere are the flags that make every address a free port.
func everywhere(more ...string) []string {
	flags := []string{"-kong", "../kong.yml", "-policies", "../policies"}
	for _, name := range []string{"gateway", "authsvc", "admin", "pdp", "mailbox", "orders-1", "orders-2", "status"} {
		flags = append(flags, "-"+name, "0")
	}
	return append(flags, more...)
}

func TestServeSaysWhereItIsAndEndsLeavingOnlyItsData(t *testing.T) {
	// Not parallel: it looks at what it leaves in the folder for temporary files.
	temporary := t.TempDir()
	t.Setenv("TMPDIR", temporary)
	data := filepath.Join(t.TempDir(), "data")
	var printed string
	for range 2 { // the second start finds the data of the first
		ctx, cancel := context.WithCancel(t.Context())
		out, done := newOutput(), make(chan error, 1)
		go func() {
			done <- run(ctx, append([]string{"serve"}, everywhere("-data", data)...), none, out, io.Discard)
		}()
		out.waitFor(t, "| sed")
		out.waitFor(t, "done; echo")
		gateway := regexp.MustCompile(`http://(\S+) +the gateway`).FindStringSubmatch(out.String())
		if gateway == nil {
			t.Fatalf("printed %s", out)
		}
		res, err := testhttp.Client.Get("http://" + gateway[1] + "/orders")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || res.Header.Get("X-Gatehouse-Decision") == "" {
			t.Errorf("%d %v", res.StatusCode, res.Header)
		}
		begun := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 10*time.Second { // two, on a machine of its own
			t.Errorf("stopping took %v", took)
		}
		if _, err := net.Dial("tcp", gateway[1]); err == nil {
			t.Error("something still listens")
		}
		accounts := regexp.MustCompile(`(?m)^  \S+@\S+ +\S+`).FindAllString(out.String(), -1)
		if len(accounts) != 2 || (printed != "" && printed != strings.Join(accounts, "")) {
			t.Errorf("accounts %q, before %q", accounts, printed)
		}
		printed = strings.Join(accounts, "")
	}
	left, err := os.ReadDir(temporary)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	info, err := os.Stat(filepath.Join(data, "root.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("root key: %v, %v", info, err)
	}
}

// Whole decisions are recorded as gatehouse-pdp does it, for its tools to read.
func TestServeRecordsDecisions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	config, records := filepath.Join(dir, "log.yaml"), filepath.Join(dir, "decisions.jsonl")
	text := "spool: {dir: " + filepath.Join(dir, "spool") + "}\nsinks: [{file: " + records + "}]\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	out, done := newOutput(), make(chan error, 1)
	go func() {
		done <- run(ctx, append([]string{"serve"}, everywhere("-data", filepath.Join(dir, "data"), "-decision-log", config)...), none, out, io.Discard)
	}()
	out.waitFor(t, "done; echo")
	pdp := regexp.MustCompile(`http://(\S+) +the decision point`).FindStringSubmatch(out.String())
	if pdp == nil {
		t.Fatalf("printed %s", out)
	}
	client := &http.Client{Transport: &http.Transport{}}
	res, err := client.Post("http://"+pdp[1]+"/access/v1/evaluation", "application/json",
		strings.NewReader(`{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"resource":{"type":"invoice","id":"17"}}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	client.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	written, err := os.ReadFile(records)
	if err != nil || strings.Count(string(written), "\n") != 1 || !strings.Contains(string(written), `"app":"gatehouse-dev"`) || !strings.Contains(string(written), "resource_unknown") {
		t.Errorf("recorded %s, %v", written, err)
	}
}

func TestBadFlagsAreRefusedByName(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"-gateway: expected a port or host:port": {"-gateway", "eight thousand"},
		"-pdp: expected a port or host:port":     {"-pdp", ":8181"},
		"-mailbox: expected a port":              {"-mailbox", "127.0.0.1:99999"},
		"no such file":                           everywhere("-kong", "nowhere.yml"),
		"gatehouse-plugin is built by":           everywhere("-plugin-process", "-plugin", "nowhere"),
		"takes flags only":                       everywhere("more"),
		"no such command":                        {"nonsense"},
	} {
		args = append(args[:len(args):len(args)], "-data", t.TempDir())
		if want == "takes flags only" || want == "no such command" {
			args = args[:len(args)-2]
		}
		err := run(t.Context(), args, none, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}

func TestAnAddressInUseIsNamed(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	err = run(t.Context(), everywhere("-mailbox", ln.Addr().String(), "-data", t.TempDir()), none, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "mailbox: ") {
		t.Errorf("error %v", err)
	}
}

// The environment moves what no flag does.
func TestTheEnvironmentMovesAddresses(t *testing.T) {
	t.Parallel()
	getenv := func(name string) string {
		return map[string]string{"GATEHOUSE_DEV_GATEWAY": "8765", "GATEHOUSE_DEV_PDP": "127.0.0.2:0", "GATEHOUSE_DEV_DATA": "elsewhere"}[name]
	}
	o, err := readOptions("serve", false, []string{"-pdp", "9"}, getenv, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.Listen.Gateway != "127.0.0.1:8765" || o.Listen.PDP != "127.0.0.1:9" || o.Listen.Mailbox != "127.0.0.1:8025" || o.DataDir != "elsewhere" {
		t.Errorf("%+v", o)
	}
}

func TestTheDemoTellsTheWholeStory(t *testing.T) {
	t.Parallel()
	// Production's deadlines do not hold on a machine that runs all tests at once.
	text, err := os.ReadFile(kongFile)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	patient, policies := filepath.Join(dir, "kong.yml"), filepath.Join(dir, "policies")
	text = bytes.ReplaceAll(text, []byte("pdp: {url:"), []byte("pdp: {timeout_ms: 1000, url:"))
	lookups, err := os.ReadFile("../policies/gatehouse/lookups.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lookups = bytes.ReplaceAll(lookups, []byte("deadline: 20ms"), []byte("deadline: 1s"))
	for _, err := range []error{
		os.WriteFile(patient, text, 0o600),
		os.CopyFS(policies, os.DirFS("../policies")),
		os.WriteFile(filepath.Join(policies, "gatehouse/lookups.yaml"), lookups, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	out := newOutput()
	err = run(t.Context(), []string{"demo", "-kong", patient, "-policies", policies}, none, out, io.Discard)
	if err != nil || !strings.Contains(out.String(), " 0 skipped, no surprises") {
		t.Errorf("%v\n%s", err, out)
	}
}
