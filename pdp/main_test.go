package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// logs are the lines of a program, as far as they have been written.
type logs struct{ testenv.Output }

// find answers the first line with this message.
func (l *logs) find(message string) map[string]any {
	for line := range strings.Lines(l.String()) {
		var m map[string]any
		if json.Unmarshal([]byte(line), &m) == nil && m["msg"] == message {
			return m
		}
	}
	return nil
}

// program is a running gatehouse-pdp.
type program struct {
	logs
	url    string
	status string // of the private listener
	client *http.Client
	cancel context.CancelFunc
	ended  chan error
}

// start runs the program with these arguments of serve and waits until it says where it listens.
func start(t *testing.T, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	transport := &http.Transport{}
	p := &program{client: &http.Client{Transport: transport, Timeout: patience}, cancel: cancel, ended: make(chan error, 1)}
	go func() {
		p.ended <- run(ctx, append([]string{"serve"}, args...), func(name string) string {
			return map[string]string{"PDP_LISTEN": "127.0.0.1:0", "PDP_STATUS": "127.0.0.1:0"}[name]
		}, &p.logs)
	}()
	t.Cleanup(func() { p.stop(t); transport.CloseIdleConnections() })
	var line map[string]any
	await.That(t, "the program listens", func() bool {
		select {
		case err := <-p.ended:
			p.ended <- err
			t.Fatalf("ended: %v\n%s", err, p.String())
		default:
		}
		line = p.find("deciding")
		return line != nil
	})
	p.url, p.status = fmt.Sprintf("http://%v", line["address"]), fmt.Sprintf("http://%v", line["status"])
	return p
}

// stop ends the program and answers what it wrote.
func (p *program) stop(t *testing.T) string {
	t.Helper()
	p.cancel()
	select {
	case err := <-p.ended:
		if err != nil {
			t.Errorf("run: %v", err)
		}
		p.ended <- nil // for whoever stops it again
	case <-time.After(patience):
		t.Error("the program does not end")
	}
	return p.String()
}

func (p *program) ask(t *testing.T, kind, id string) (authzen.Response, error) {
	t.Helper()
	client, err := authzen.NewClient(p.url, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	return client.Evaluate(t.Context(), authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "ann"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: kind, ID: id},
	})
}

func (p *program) get(t *testing.T, path string) (int, string) {
	t.Helper()
	res, err := p.client.Get(p.url + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// rules is a policy that allows one kind of resource.
func rules(kind string) string {
	return "package gatehouse.authz\n\ndefault decision := {\"allow\": false, \"reasons\": [\"no_rule\"]}\n\n" +
		"decision := {\"allow\": true} if input.resource.type == \"" + kind + "\"\n"
}

// folder is a policy folder with one file, and how to change that file as an editor does: aside, then in its place.
func folder(t testing.TB, text string) (dir string, change func(string)) {
	t.Helper()
	dir = t.TempDir()
	file := filepath.Join(dir, "gatehouse", "authz.rego")
	if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	change = func(text string) {
		aside := filepath.Join(t.TempDir(), "aside")
		if err := os.WriteFile(aside, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, file); err != nil {
			t.Fatal(err)
		}
	}
	change(text)
	return dir, change
}

func TestItStartsDecidesAndEnds(t *testing.T) {
	t.Parallel()
	dir, _ := folder(t, rules("order"))
	p := start(t, "-policies", dir)
	if res, err := p.ask(t, "order", "17"); err != nil || !res.Decision {
		t.Errorf("order: %+v, %v", res, err)
	}
	denied, err := p.ask(t, "invoice", "17")
	if err != nil || denied.Decision {
		t.Errorf("invoice: %+v, %v", denied, err)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := p.get(t, path); status != http.StatusOK || !strings.Contains(body, `"ok"`) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if all := p.stop(t); !strings.Contains(all, denied.Context.DecisionID) {
		t.Errorf("the denial is not logged:\n%s", all)
	}
	if _, err := p.ask(t, "order", "17"); err == nil {
		t.Error("it still decides")
	}
}

func TestWithoutAFolderTheBuiltInPoliciesDecide(t *testing.T) {
	t.Parallel()
	p := start(t, "-services", "orders=http://127.0.0.1:1")
	res, err := p.ask(t, "nowhere", "1")
	if err != nil || res.Decision || res.Context.Reasons[0] != "resource_unknown" {
		t.Errorf("%+v, %v", res, err)
	}
}

// S56, S62: a broken file keeps the old policy, and /readyz and the log say so; one that allows by default is broken too.
func TestABrokenPolicyKeepsTheOldOneAndIsTold(t *testing.T) {
	t.Parallel()
	dir, change := folder(t, rules("order"))
	p := start(t, "-policies", dir)
	first, err := p.ask(t, "order", "17")
	if err != nil || !first.Decision {
		t.Fatalf("%+v, %v", first, err)
	}
	for name, broken := range map[string]string{
		"syntax":            rules("order") + "decision := {",
		"allows by default": "package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n",
		"reaches outside":   rules("order") + "\nx := http.send({\"url\": \"http://127.0.0.1\", \"method\": \"GET\"})\n",
		"empty":             "",
	} {
		change(broken)
		await.That(t, name+" is told by /readyz", func() bool {
			status, body := p.get(t, "/readyz")
			return status == http.StatusOK && strings.Contains(body, `"degraded"`) && strings.Contains(body, first.Context.Revision)
		})
		line := p.find("policies not loaded; the old ones go on deciding")
		if line == nil || line["level"] != "ERROR" || line["revision"] != first.Context.Revision {
			t.Errorf("%s: logged %v", name, line)
		}
		if res, err := p.ask(t, "order", "17"); err != nil || !res.Decision || res.Context.Revision != first.Context.Revision {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		if res, err := p.ask(t, "invoice", "17"); err != nil || res.Decision {
			t.Errorf("%s: %+v, %v", name, res, err)
		}
		change(rules("order"))
		await.That(t, "all is well again", func() bool {
			_, body := p.get(t, "/readyz")
			return !strings.Contains(body, "degraded")
		})
	}
	change(rules("invoice"))
	await.That(t, "the new policy decides", func() bool {
		res, err := p.ask(t, "invoice", "17")
		return err == nil && res.Decision && res.Context.Revision != first.Context.Revision
	})
	if res, err := p.ask(t, "order", "17"); err != nil || res.Decision {
		t.Errorf("the old policy still decides: %+v, %v", res, err)
	}
}

// S67: a denial that is made while the program ends is logged before it has ended.
func TestADenialMadeWhileEndingIsLogged(t *testing.T) {
	t.Parallel()
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() { close(asked) })
		<-answer
		fmt.Fprint(w, `{"owner":"bob"}`)
	}))
	t.Cleanup(api.Close)
	dir, _ := folder(t, rules("nothing")+"\ndecision := {\"allow\": true} if input.resource.properties.owner == input.subject.id\n")
	lookups := "lookups:\n  order:\n    url: http://orders/{id}\n    properties: {owner: /owner}\n    ttl: 1s\n    deadline: 2s\n"
	if err := os.WriteFile(filepath.Join(dir, "gatehouse", "lookups.yaml"), []byte(lookups), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "-policies", dir, "-services", "orders="+api.URL)
	decided := make(chan authzen.Response, 1)
	go func() {
		res, err := p.ask(t, "order", "17")
		if err != nil {
			t.Error(err)
		}
		decided <- res
	}()
	<-asked
	p.cancel()
	await.That(t, "no new connection is taken", func() bool {
		c, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(answer)
	res := <-decided
	all := p.stop(t)
	if res.Decision || res.Context == nil || !strings.Contains(all, res.Context.DecisionID) {
		t.Errorf("decided %+v, logged\n%s", res, all)
	}
}

// S56: what cannot decide does not start.
func TestWhatCannotDecideDoesNotStart(t *testing.T) {
	t.Parallel()
	broken, _ := folder(t, "package gatehouse.authz\n\ndecision := {")
	open, _ := folder(t, "package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n")
	good, _ := folder(t, rules("order"))
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, args := range map[string][]string{
		"broken policies": {"-policies", broken}, "policies that allow by default": {"-policies", open}, "no folder": {"-policies", filepath.Join(good, "none")},
		"a look-up to nobody": {"-services", ""}, "a bad level": {"-log-level", "loud"}, "a taken port": {"-policies", good, "-listen", taken.Addr().String()},
	} {
		if name == "a look-up to nobody" {
			lookups := "lookups: {order: {url: 'http://orders/{id}', properties: {owner: /owner}}}\n"
			dir, _ := folder(t, rules("order"))
			if err := os.WriteFile(filepath.Join(dir, "gatehouse", "lookups.yaml"), []byte(lookups), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, "-policies", dir)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := run(ctx, append([]string{"serve"}, args...), func(string) string { return "" }, io.Discard)
		if err == nil || ctx.Err() != nil {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
	}
}

func TestAUnixSocketOfAKilledPredecessorIsTakenOver(t *testing.T) {
	t.Parallel()
	// A socket's path may have 107 bytes at most, which a test's own folder can exceed.
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	stale, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	policies, _ := folder(t, rules("order"))
	p := start(t, "-policies", policies, "-listen", "unix://"+socket)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
	client, err := authzen.NewClient("unix://"+socket, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	res, err := client.Evaluate(t.Context(), authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "ann"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "17"},
	})
	if err != nil || !res.Decision {
		t.Errorf("%+v, %v", res, err)
	}
	if err := run(t.Context(), []string{"serve", "-policies", policies, "-listen", "unix://" + socket}, func(string) string { return "" }, io.Discard); err == nil {
		t.Error("a second program takes the socket of the first")
	}
	p.stop(t)
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}
