package kong_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

type handler func(guard.Request) guard.Verdict

func (h handler) Check(_ context.Context, r guard.Request) guard.Verdict { return h(r) }

// serve runs a server with one handler for every configuration and answers its socket.
func serve(t testing.TB, h handler) (socket string, stop func()) {
	t.Helper()
	return serveAt(t, time.Now, h)
}

func serveAt(t testing.TB, now func() time.Time, h handler) (socket string, stop func()) {
	t.Helper()
	s, err := kong.NewServer(func(guard.Config) (kong.Handler, error) { return h, nil }, now, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return socket, stop
}

const open = `{"identify":"none","authorize":false,"__seq__":3,"__plugin_id":"p"}`

// ofRoute is what Kong 3.9.1 makes of open for a plugin of the route r1.
const ofRoute = `{"identify":"none","authorize":false,"__seq__":3,"__plugin_id":"p","__ws_id":"w","__key__":"plugins:gatehouse:r1::::w","route_id":"r1","plugin_instance_name":"guard"}`

func forward(guard.Request) guard.Verdict {
	return guard.Verdict{Forward: true, SetHeaders: map[string]string{"X-Gatehouse-Subject": "u1"}}
}

// Kong writes the id of the route into the configuration of a plugin that belongs to one; its name is asked for now and then. So
// is the variable that holds more than one answer, where it is not there.
func TestAnAllowedRequestCostsFewCallsAndItsConnectionGoesOn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, joined             string
		first, then, after, last int // calls: of the first request, of the second, of the first after ten seconds, and of the next
	}{
		{"joined", "0af7651916cd43dd8448eb211c80319c 192.0.2.1 /orders GET /shop/orders?q=%20x HTTP/1.1", 7, 3, 4, 3},
		{"apart", "", 7, 5, 7, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var ahead atomic.Int64
			began := time.Now()
			var got guard.Request
			socket, _ := serveAt(t, func() time.Time { return began.Add(time.Duration(ahead.Load())) }, func(r guard.Request) guard.Verdict { got = r; return forward(r) })
			p := dial(t, socket)
			id := p.start(ofRoute)
			r := request{headers: headers(t, map[string]any{"Host": "h", "accept": []any{"a", "b"}}), line: "GET /shop/orders?q=%20x HTTP/1.1", uri: "/orders", joined: c.joined}
			requestID, _, _ := strings.Cut(c.joined, " ")
			check := func(calls int, route string) {
				t.Helper()
				o := p.event(id, r)
				if !o.ended || len(o.calls) != calls || o.set.GetFields()["X-Gatehouse-Subject"].GetStringValue() != "u1" {
					t.Fatalf("outcome %+v, want %d calls", o, calls)
				}
				if got.Method != "GET" || got.Path != "/shop/orders" || got.Query != "q=%20x" || got.UpstreamPath != "/orders" || got.Route != route ||
					got.Host != "h" || len(got.Header["accept"]) != 2 || got.Addr.String() != "192.0.2.1" || got.Malformed != "" || got.ID != requestID {
					t.Errorf("request %+v", got)
				}
			}
			check(c.first, "orders")
			check(c.then, "orders")
			r.route = &protocol.Route{Id: "r1", Name: "renamed"}
			check(c.then, "orders")
			ahead.Add(int64(10 * time.Second))
			check(c.after, "renamed")
			check(c.last, "renamed")
		})
	}
}

// Kong may be configured anew while the plugin runs: a variable that is gone costs one request a wake-up more, and nobody an error.
func TestAVariableThatIsGoneIsAskedForInItsParts(t *testing.T) {
	t.Parallel()
	var got guard.Request
	socket, _ := serve(t, func(r guard.Request) guard.Verdict { got = r; return forward(r) })
	p := dial(t, socket)
	id := p.start(ofRoute)
	r := request{headers: headers(t, nil), line: "GET /a HTTP/1.1", uri: "/a", joined: "i1 192.0.2.1 /a GET /a HTTP/1.1"}
	for i, calls := range []int{7, 3, 7, 5} {
		if i == 2 {
			r.joined = ""
		}
		o := p.event(id, r)
		if !o.ended || len(o.calls) != calls || got.Malformed != "" || got.Path != "/a" || got.Route != "orders" || (got.ID == "i1") != (i < 2) {
			t.Errorf("request %d: %+v %+v", i, o, got)
		}
	}
	r.joined = "i1 192.0.2.1"
	for _, bad := range []string{"i1", "i1 192.0.2.1 /a", "i1 nobody /a GET /a HTTP/1.1", "i1 192.0.2.1  GET /a HTTP/1.1", " 192.0.2.1 /a GET /a HTTP/1.1", "i1 192.0.2.1 /a GET"} {
		r.joined = bad
		again, _ := serve(t, func(r guard.Request) guard.Verdict { got = r; return forward(r) })
		p := dial(t, again)
		if p.event(p.start(ofRoute), r); got.Malformed == "" {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

// A plugin of a service, or of all, runs for several routes, and one that Kong says belongs to another route than it runs for
// must not take that one's name for its own.
func TestTheRouteIsAskedForWhereItMayChange(t *testing.T) {
	t.Parallel()
	var got guard.Request
	socket, _ := serve(t, func(r guard.Request) guard.Verdict { got = r; return forward(r) })
	p := dial(t, socket)
	for name, config := range map[string]string{"a service's": open, "another route's": strings.Replace(ofRoute, `"route_id":"r1"`, `"route_id":"r0"`, 1)} {
		id := p.start(config)
		p.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}) // asks for the variable as well
		for _, route := range []string{"a", "b"} {
			o := p.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/", route: &protocol.Route{Id: "r1", Name: route}})
			if !o.ended || len(o.calls) != 6 || got.Route != route {
				t.Errorf("%s, %s: %+v of %s", name, route, o, got.Route)
			}
		}
	}
}

// Headers for the client cost one call more, and none where there are none.
func TestAnAllowedRequestMayCarryHeadersForTheClient(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		v := forward(r)
		v.Respond = map[string]string{"RateLimit": "a"}
		return v
	})
	p := dial(t, socket)
	id := p.start(open)
	for _, calls := range []int{8, 7} {
		o := p.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"})
		if !o.ended || len(o.calls) != calls || o.respond.GetFields()["RateLimit"].GetStringValue() != "a" || o.set.GetFields()["X-Gatehouse-Subject"].GetStringValue() != "u1" {
			t.Fatalf("outcome %+v", o)
		}
	}
}

func TestADenialIsAnExitAndTheConnectionIsAbandoned(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, func(guard.Request) guard.Verdict {
		return guard.Verdict{Status: 403, Header: map[string]string{"X-A": "b"}, Body: []byte("no")}
	})
	p := dial(t, socket)
	o := p.event(p.start(open), request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"})
	if o.exit.GetStatus() != 403 || string(o.exit.GetBody()) != "no" || o.exit.GetHeaders().GetFields()["X-A"].GetStringValue() != "b" {
		t.Fatalf("outcome %+v", o)
	}
	if _, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the exit: %v, want the end of the connection", err)
	}
}

// The edge answers preflights and sends browsers to a log-in; no other success is its own to answer (S56).
func TestTheEdgeAnswersNothingButDenialsPreflightsAndRedirects(t *testing.T) {
	t.Parallel()
	var status int
	socket, _ := serve(t, func(guard.Request) guard.Verdict {
		return guard.Verdict{Status: status, Header: map[string]string{"Location": "/login"}}
	})
	id := dial(t, socket).start(open)
	for given, want := range map[int]int32{204: 204, 303: 303, 200: 500, 302: 500, 100: 500} {
		status = given
		if o := dial(t, socket).event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}); o.exit.GetStatus() != want || o.ended {
			t.Errorf("%d is answered as %d", given, o.exit.GetStatus())
		}
	}
}

// S56: a panic in one event answers 500, and the next request is served.
func TestAPanicAnswers500AndEndsNothingElse(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, func(r guard.Request) guard.Verdict {
		if r.Path == "/panic" {
			panic("x")
		}
		if r.Path == "/zero" {
			return guard.Verdict{} // neither forward nor a status: never a pass
		}
		return forward(r)
	})
	id := dial(t, socket).start(open)
	for _, path := range []string{"/panic", "/zero"} {
		if o := dial(t, socket).event(id, request{headers: headers(t, nil), line: "GET " + path + " HTTP/1.1", uri: path}); o.exit.GetStatus() != 500 {
			t.Errorf("%s: %+v", path, o)
		}
	}
	if o := dial(t, socket).event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}); !o.ended {
		t.Errorf("after a panic: %+v", o)
	}
}

func TestWhatCannotBeReadIsMalformedNeverAnonymous(t *testing.T) {
	t.Parallel()
	var got guard.Request
	socket, _ := serve(t, func(r guard.Request) guard.Verdict { got = r; return forward(r) })
	p := dial(t, socket)
	id := p.start(open)
	value := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), []byte("\xff"))
	entry := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("x-any"))
	entry = protowire.AppendBytes(protowire.AppendTag(entry, 2, protowire.BytesType), value)
	notUTF8 := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), entry)
	for name, r := range map[string]request{
		"a byte that is not UTF-8": {headers: notUTF8, line: "GET / HTTP/1.1", uri: "/"},
		"headers cut short":        {headers: notUTF8[:5], line: "GET / HTTP/1.1", uri: "/"},
		"a header of a number":     {headers: headers(t, map[string]any{"x": 1}), line: "GET / HTTP/1.1", uri: "/"},
		"no request line":          {headers: headers(t, nil), line: "", uri: "/"},
		"half a request line":      {headers: headers(t, nil), line: "GET /", uri: "/"},
	} {
		if p.event(id, r); got.Malformed == "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	many := map[string]any{}
	list := make([]any, 1000)
	for i := range list {
		list[i] = "v"
	}
	many["x"] = list
	if p.event(id, request{headers: headers(t, many), line: "GET / HTTP/1.1", uri: "/"}); !got.HeadersTruncated {
		t.Error("as many headers as Kong tells of at most, and nothing was noticed")
	}
}

func TestAnUnknownInstanceEndsTheConnectionAndAClosedOneIsUnknown(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, forward)
	p := dial(t, socket)
	id := p.start(open)
	p.send(&protocol.RpcCall{Call: &protocol.RpcCall_CmdCloseInstance{CmdCloseInstance: &protocol.CmdCloseInstance{InstanceId: id}}})
	p.result()
	if o := p.event(id, request{}); o.broken == nil {
		t.Errorf("a closed instance answered: %+v", o)
	}
}

// S53: an id that Kong kept from a process that is gone must not meet another route's configuration.
func TestARestartedServerDoesNotKnowTheIdsOfTheOneBefore(t *testing.T) {
	t.Parallel()
	before, _ := serve(t, forward)
	old := dial(t, before).start(open)
	after, _ := serve(t, forward)
	p := dial(t, after)
	if id := p.start(open); id == old {
		t.Fatalf("both gave out %d", id)
	}
	if o := p.event(old, request{}); o.broken == nil {
		t.Errorf("the old id answered: %+v", o)
	}
}

func TestABadConfigurationStartsNothing(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, forward)
	p := dial(t, socket)
	p.send(&protocol.RpcCall{Call: &protocol.RpcCall_CmdStartInstance{CmdStartInstance: &protocol.CmdStartInstance{Config: []byte(`{"mode":"off"}`)}}})
	if _, err := p.read(); !errors.Is(err, io.EOF) {
		t.Errorf("answered, error %v", err)
	}
}

func TestBadFramesEndTheirConnectionOnly(t *testing.T) {
	t.Parallel()
	socket, _ := serve(t, forward)
	for name, raw := range map[string]string{"too long": "\xff\xff\xff\xff", "not a call": "\x01\x00\x00\x00\xff", "empty": "\x00\x00\x00\x00"} {
		p := dial(t, socket)
		if _, err := p.conn.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.read(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want the end of the connection", name, err)
		}
	}
	p := dial(t, socket)
	if o := p.event(p.start(open), request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}); !o.ended {
		t.Errorf("afterwards: %+v", o)
	}
}

func TestShutdownLetsTheEventUnderWayEnd(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	socket, stop := serve(t, func(r guard.Request) guard.Verdict { close(entered); <-release; return forward(r) })
	p, idle := dial(t, socket), dial(t, socket)
	id := p.start(open)
	idle.start(open)
	got := make(chan outcome, 1)
	go func() { got <- p.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}) }()
	<-entered
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	if _, err := idle.read(); !errors.Is(err, io.EOF) { // returns once the drain has begun
		t.Errorf("an idle connection: %v, want its end", err)
	}
	close(release)
	if o := <-got; !o.ended {
		t.Errorf("the event under way was cut: %+v", o)
	}
	<-stopped
}

// Kong may write a call just when a server ends: of an end that it can read it makes another try, of a reset a 500.
func TestACallThatCrossesTheEndIsMetByAnEndNotByAReset(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	socket, stop := serve(t, func(r guard.Request) guard.Verdict { close(entered); <-release; return forward(r) })
	busy, late, told := dial(t, socket), dial(t, socket), dial(t, socket)
	id := busy.start(open)
	late.start(open)
	told.start(open)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(release)
	wg.Go(func() { busy.event(id, request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"}) })
	<-entered
	wg.Go(stop)
	if _, err := told.read(); !errors.Is(err, io.EOF) { // the drain has begun, and late does not know
		t.Fatal(err)
	}
	late.send(&protocol.RpcCall{Call: &protocol.RpcCall_CmdHandleEvent{CmdHandleEvent: &protocol.CmdHandleEvent{InstanceId: id, EventName: "access"}}})
	if _, err := late.read(); !errors.Is(err, io.EOF) {
		t.Errorf("%v, want the end of the connection", err)
	}
}

// At `kong reload` two processes serve one socket, one after the other: whoever asks meanwhile is answered. The first comes back if
// the second ends.
func TestAReloadLosesNoRequest(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "s")
	run := func(subject string, ask bool) (listens, waits <-chan struct{}, stop func()) {
		s, err := kong.NewServer(func(guard.Config) (kong.Handler, error) {
			return handler(func(guard.Request) guard.Verdict {
				return guard.Verdict{Forward: true, SetHeaders: map[string]string{"X-Gatehouse-Subject": subject}}
			}), nil
		}, time.Now, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		listening, waiting, done := make(chan struct{}, 9), make(chan struct{}, 9), make(chan error, 1)
		turn := func() error {
			ln, err := web.SucceedUnix(ctx, socket, 0o600, func() {
				waiting <- struct{}{}
				if ask {
					if err := kong.Relieve(ctx, socket); err != nil {
						t.Error(err)
					}
				}
			})
			if err != nil {
				return err
			}
			listening <- struct{}{}
			return s.Serve(ctx, ln)
		}
		go func() {
			err := turn()
			for errors.Is(err, kong.ErrRelieved) {
				err = turn()
			}
			done <- err
		}()
		return listening, waiting, func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	ask := func() string {
		p := dial(t, socket)
		defer p.conn.Close()
		o := p.event(p.start(open), request{headers: headers(t, nil), line: "GET / HTTP/1.1", uri: "/"})
		if !o.ended && !errors.Is(o.broken, io.EOF) { // at which Kong runs the event anew
			t.Fatalf("outcome %+v", o)
		}
		return o.set.GetFields()["X-Gatehouse-Subject"].GetStringValue()
	}
	listens, waits, stopOld := run("old", false)
	<-listens
	defer stopOld()
	if got := ask(); got != "old" {
		t.Fatalf("%q answers", got)
	}
	_, _, stopSuccessor := run("new", true)
	for ask() != "new" {
		continue // each was answered
	}
	<-waits
	var wg sync.WaitGroup
	wg.Go(stopSuccessor)
	for ask() != "old" {
		continue // as above
	}
	wg.Wait()
}

func TestTheDumpIsWhatKongExpects(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	if err := kong.Dump(&out, "/run/s"); err != nil {
		t.Fatal(err)
	}
	var info struct {
		Protocol, SocketPath string
		Plugins              []struct {
			Name, Version string
			Priority      int
			Phases        []string
			Schema        map[string]any
		}
	}
	if err := json.Unmarshal([]byte(out.String()), &info); err != nil {
		t.Fatal(err)
	}
	if p := info.Plugins[0]; info.Protocol != "ProtoBuf:1" || info.SocketPath != "/run/s" || p.Name != "gatehouse" || len(p.Phases) != 1 || p.Schema["name"] != "gatehouse" {
		t.Errorf("dump %+v", info)
	}
}
