package kong_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// told keeps what a listener is told.
type told chan challenge.Answer

func (l told) Told(_ context.Context, a challenge.Answer) {
	if a.Route == "panic" {
		panic("canary")
	}
	l <- a
}

// serveBoth runs a server of both plugins on one socket.
func serveBoth(t testing.TB, l kong.Listener) (socket string, configs chan kong.Outcome, log *testenv.Output) {
	t.Helper()
	log, configs = &testenv.Output{}, make(chan kong.Outcome, 1)
	s, err := kong.NewServer(func(guard.Config) (kong.Handler, error) { return handler(forward), nil }, time.Now, slog.New(slog.NewJSONHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	s.Outcomes = func(o kong.Outcome) (kong.Listener, error) {
		configs <- o
		return l, nil
	}
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return socket, configs, log
}

// startOutcome starts an instance of the second plugin.
func (p *peer) startOutcome(config string) int32 {
	p.t.Helper()
	p.send(&protocol.RpcCall{Sequence: 1, Call: &protocol.RpcCall_CmdStartInstance{CmdStartInstance: &protocol.CmdStartInstance{Name: kong.OutcomeName, Config: []byte(config)}}})
	return p.result().GetInstanceStatus().GetInstanceId()
}

// answered plays the phase log of one request and answers what the plugin asked for.
func (p *peer) answered(id int32, phase string, serialized []byte) (calls []string) {
	p.t.Helper()
	p.send(&protocol.RpcCall{Sequence: 7, Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: phase}}})
	for {
		method, err := p.read()
		if err != nil {
			p.t.Fatal(err)
		}
		if len(method) == 0 {
			if got := p.result().GetSequence(); got != 7 {
				p.t.Errorf("sequence %d", got)
			}
			return calls
		}
		if _, err := p.read(); err != nil {
			p.t.Fatal(err)
		}
		calls = append(calls, string(method))
		p.write(serialized)
	}
}

func serialized(text string) []byte {
	return protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), text)
}

const outcomeConfig = `{"redis_url":"redis://r","__seq__":3,"__plugin_id":"p","route_id":"r1"}`

// entry is what Kong 3.9 logs of a request, with the parts that matter and some that do not.
const entry = `{"request":{"id":"0af7651916cd43dd8448eb211c80319c","uri":"/login?a=b","querystring":{"a":"b"},"headers":{"cookie":"canary"},"method":"POST"},` +
	`"response":{"status":401,"headers":{"content-type":"text/plain"},"size":12},"upstream_status":"401","source":"upstream","client_ip":"192.0.2.7",` +
	`"route":{"id":"r1","name":"login","paths":["/login"]},"latencies":{"kong":1,"proxy":-1},"started_at":1.5}`

// Kong tells of an answer by one call, in one event that ends whatever comes of it; the first plugin works on beside it.
func TestAnswersAreToldInThePhaseLog(t *testing.T) {
	t.Parallel()
	heard := make(told, 1)
	socket, configs, log := serveBoth(t, heard)
	p := dial(t, socket)
	id := p.startOutcome(outcomeConfig)
	if o := <-configs; o.RedisURL.Reveal() != "redis://r" || !slices.Equal(o.Statuses, []int{401, 403}) {
		t.Errorf("configured %v", o)
	}
	want := challenge.Answer{Request: "0af7651916cd43dd8448eb211c80319c", Route: "login", Status: 401, Upstream: true, Addr: netip.MustParseAddr("192.0.2.7")}
	for text, change := range map[string]func(*challenge.Answer){
		entry: func(*challenge.Answer) {},
		strings.Replace(entry, `"source":"upstream"`, `"source":"kong"`, 1):       func(a *challenge.Answer) { a.Upstream = false },
		strings.Replace(entry, `"name":"login",`, ``, 1):                          func(a *challenge.Answer) { a.Route = "r1" },
		strings.Replace(entry, `192.0.2.7`, `2001:db8::1`, 1):                     func(a *challenge.Answer) { a.Addr = netip.MustParseAddr("2001:db8::1") },
		strings.Replace(entry, `"client_ip":"192.0.2.7",`, ``, 1):                 func(a *challenge.Answer) { a.Addr = netip.Addr{} },
		strings.Replace(entry, `{"a":"b"}`, "{\"a\":\"\xff\xfe\",\"\xff\":1}", 1): func(*challenge.Answer) {}, // nobody gets out by a query that is no UTF-8
		`[`:  func(a *challenge.Answer) { *a = challenge.Answer{} },
		`{}`: func(a *challenge.Answer) { *a = challenge.Answer{} },
	} {
		if calls := p.answered(id, "log", serialized(text)); !slices.Equal(calls, []string{"kong.log.serialize"}) {
			t.Errorf("asked %q", calls)
		}
		expected := want
		change(&expected)
		if got := <-heard; got != expected {
			t.Errorf("%s: told %+v", text, got)
		}
	}
	for name, answer := range map[string][]byte{"empty": nil, "garbage": {0xff}, "a number": {8, 1}} {
		p.answered(id, "log", answer)
		if got := <-heard; got != (challenge.Answer{}) {
			t.Errorf("%s: told %+v", name, got)
		}
	}
	p.answered(id, "log", serialized(strings.Replace(entry, `"name":"login"`, `"name":"panic"`, 1)))
	if calls := p.answered(id, "access", nil); len(calls) > 0 {
		t.Errorf("another phase asks %q", calls)
	}
	if o := p.event(p.start(open), request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}); !o.ended || o.set == nil {
		t.Errorf("the first plugin: %+v", o)
	}
	if strings.Contains(log.String(), "cookie") {
		t.Errorf("the log holds what Kong told: %s", log.String())
	}
}

func TestTheSecondPluginsConfigurationIsChecked(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                                      "config.redis_url: required field missing",
		`{"redis_url":"r","statuses":[]}`:         "config.statuses: length must be at least 1",
		`{"redis_url":"r","statuses":[200]}`:      "config.statuses[1]: value should be between 400 and 599",
		`{"redis_url":"r","statuses":["canary"]}`: "config.statuses[1]: expected an integer",
		`{"redis_url":"r","canary":1}`:            "config.canary: unknown field",
	} {
		if _, err := kong.ParseOutcome([]byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	o, err := kong.ParseOutcome([]byte(`{"redis_url":"r","statuses":[401,422]}`))
	if err != nil || !slices.Equal(o.Statuses, []int{401, 422}) {
		t.Errorf("%v, %v", o, err)
	}
}

// Kong 3.9 reads the first plugin of a query command and no further, so that each has a command of its own, and one socket.
func TestEachQueryCommandDescribesOnePlugin(t *testing.T) {
	t.Parallel()
	type description struct {
		SocketPath string
		Plugins    []struct {
			Name   string
			Phases []string
		}
	}
	read := func(dump func(*bytes.Buffer) error) (d description) {
		var out bytes.Buffer
		if err := errors.Join(dump(&out), json.Unmarshal(out.Bytes(), &d)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := read(func(w *bytes.Buffer) error { return kong.Dump(w, "/s") })
	second := read(func(w *bytes.Buffer) error { return kong.DumpOutcome(w, "/s") })
	if len(first.Plugins) != 1 || first.Plugins[0].Name != "gatehouse" || !slices.Equal(first.Plugins[0].Phases, []string{"access"}) {
		t.Errorf("%+v", first)
	}
	if len(second.Plugins) != 1 || second.Plugins[0].Name != "gatehouse-outcome" || !slices.Equal(second.Plugins[0].Phases, []string{"log"}) || second.SocketPath != first.SocketPath {
		t.Errorf("%+v", second)
	}
}

// Whatever Kong says of an answer, the event ends, and no failed log-in is made of what is none.
func FuzzSerialized(f *testing.F) {
	heard := make(told, 1)
	socket, configs, _ := serveBoth(f, heard)
	f.Add(serialized(entry))
	f.Add([]byte(nil))
	f.Add([]byte{10, 255, 255, 255, 255, 15})
	f.Fuzz(func(t *testing.T, answer []byte) {
		if bytes.Contains(answer, []byte("panic")) {
			t.Skip()
		}
		p := dial(t, socket)
		id := p.startOutcome(outcomeConfig)
		<-configs
		p.answered(id, "log", answer)
		if a := <-heard; a.Upstream && !bytes.Contains(bytes.ToLower(answer), []byte("source")) {
			t.Errorf("%+v", a)
		}
	})
}
