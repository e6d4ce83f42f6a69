package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	protocol "github.com/Kong/go-pdk/server/kong_plugin_protocol"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testSchema = `{"Protocol":"ProtoBuf:1","SocketPath":"/nowhere","Plugins":[{"Name":"gatehouse","Version":"1.0.0","Priority":1000,"Phases":["access"],
"Schema":{"name":"gatehouse","fields":[{"config":{"type":"record","fields":[
 {"mode":{"type":"string","one_of":["enforce","observe"],"default":"enforce"}},
 {"url":{"type":"string","referenceable":true,"match":"^https?://"}},
 {"skew":{"type":"integer","between":[0,60],"default":30}},
 {"limits":{"type":"array","default":[],"elements":{"type":"record","fields":[
   {"key":{"type":"string","required":true,"one_of":["ip","subject"]}},{"rate":{"type":"string","match":"^%d+%-[SMHD]$"}}]}}},
 {"pdp":{"type":"record","fields":[{"timeout_ms":{"type":"integer","default":50}}]}},
 {"tiers":{"type":"map","keys":{"type":"string"},"values":{"type":"string"}}},
 {"tags":{"type":"set","elements":{"type":"string"}}}
]}}]}}]}`

const testConfig = `
_format_version: "3.0"
upstreams:
  - name: api
    targets: [{target: "a:1"}, {target: "b:2"}]
    healthchecks: {passive: {unhealthy: {tcp_failures: 1}}}
services:
  - name: api
    host: api
    routes:
      - name: things
        paths: [/things]
        strip_path: false
        plugins: [{name: gatehouse, config: {url: "{vault://env/here}"}}]
      - {name: open, paths: [/open], strip_path: false}
`

type served struct {
	URL     string
	gateway *Gateway
}

// serve runs a gateway over the fake plugin and the given targets until the test ends.
func serve(t *testing.T, config string, f *fake, address map[string]string, further ...func(*Options)) served {
	t.Helper()
	o := Options{
		Config: []byte(config), Address: address, Vault: map[string]string{"here": "http://idp"},
		Plugin:        PluginServer{Socket: f.socket, Describe: func(w io.Writer) error { _, err := io.WriteString(w, testSchema); return err }},
		PluginTimeout: 2 * time.Second,
		Log:           slog.New(slog.DiscardHandler),
	}
	for _, change := range further {
		change(&o)
	}
	g, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Run(ctx) })
	wg.Go(func() { _ = g.Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return served{URL: "http://" + ln.Addr().String(), gateway: g}
}

func upstream(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// raw sends bytes as they stand and answers the response.
func raw(t *testing.T, base, request string) (*http.Response, string) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

// echo answers request line and headers as JSON.
func echo(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(map[string]any{"target": r.RequestURI, "header": r.Header})
}

func TestPluginSeesTheRequestAsTheClientSentIt(t *testing.T) {
	t.Parallel()
	seen := make(chan map[string]any, 1)
	f := newFake(t, func(p *peer) {
		var h structpb.Struct
		if err := p.ask("kong.request.get_headers", &protocol.Int{V: 1000}, &h); err != nil {
			t.Errorf("get_headers: %v", err)
		}
		var route protocol.Route
		if err := p.ask("kong.router.get_route", nil, &route); err != nil {
			t.Errorf("get_route: %v", err)
		}
		seen <- map[string]any{
			"headers": h.AsMap(), "method": p.text("kong.request.get_method", nil), "path": p.text("kong.request.get_path_with_query", nil),
			"request": p.text("kong.nginx.get_var", &protocol.String{V: "request"}), "upstream": p.text("kong.nginx.get_var", &protocol.String{V: "upstream_uri"}),
			"ip": p.text("kong.client.get_forwarded_ip", nil), "route": route.GetName(),
		}
		set, _ := structpb.NewStruct(map[string]any{"X-Gatehouse-Subject": "ada"})
		_ = p.ask("kong.service.request.set_headers", set, nil)
	})
	s := serve(t, testConfig, f, map[string]string{"a:1": upstream(t, echo), "b:2": upstream(t, echo)})
	// S54: the client's own identity headers, and Connection naming one, change nothing; S15: nor does a forged address.
	_, body := raw(t, s.URL, "GET /a/../things/%2e%2Fx;%7Ey?q=%zz HTTP/1.1\r\nHost: api.test\r\nX-Two: 1\r\nX-Two: 2\r\n"+
		"X-Gatehouse-Subject: root\r\nX_Gatehouse_Subject: root\r\nConnection: close, X-Gatehouse-Subject\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
	got := <-seen
	for name, want := range map[string]any{
		"method": "GET", "path": "/a/../things/%2e%2Fx;%7Ey?q=%zz", "request": "GET /a/../things/%2e%2Fx;%7Ey?q=%zz HTTP/1.1",
		"upstream": "/things/.%2Fx;~y", "ip": "127.0.0.1", "route": "things",
	} {
		if got[name] != want {
			t.Errorf("%s = %v, want %v", name, got[name], want)
		}
	}
	h := got["headers"].(map[string]any)
	if fmt.Sprint(h["x-two"]) != "[1 2]" || h["host"] != "api.test" || h["x_gatehouse_subject"] != nil {
		t.Errorf("headers %v", h)
	}
	var out struct {
		Target string
		Header http.Header
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if out.Target != "/things/.%2Fx;~y?q=%zz" {
		t.Errorf("upstream got %q", out.Target)
	}
	if fmt.Sprint(out.Header["X-Gatehouse-Subject"]) != "[ada]" || len(out.Header["X_gatehouse_subject"]) != 0 {
		t.Errorf("upstream headers %v", out.Header)
	}
	config := f.starts()[0]
	if config["url"] != "http://idp" || config["mode"] != "enforce" || config["skew"] != 30.0 || config["__plugin_id"] == "" || config["__seq__"] == nil ||
		config["route_id"] == "" || config["__key__"] == "" || config["__ws_id"] == "" {
		t.Errorf("config %v", config)
	}
	if v, ok := config["tiers"]; !ok || v != nil {
		t.Errorf("an unset field is null in Kong, not %v", v)
	}
}

func TestBytesThatAreNotUTF8ReachThePlugin(t *testing.T) {
	t.Parallel()
	failed := make(chan error, 1)
	f := newFake(t, func(p *peer) {
		var h structpb.Struct
		failed <- p.ask("kong.request.get_headers", &protocol.Int{V: 100}, &h)
	})
	a := upstream(t, echo)
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	raw(t, s.URL, "GET /things HTTP/1.1\r\nHost: x\r\nX-Bad: \xff\r\nConnection: close\r\n\r\n")
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "UTF-8") {
		t.Errorf("decoding gave %v; Kong's own frame would not decode", err)
	}
}

func TestExitAnswersAndNothingReachesTheUpstream(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(p *peer) {
		h, _ := structpb.NewStruct(map[string]any{"Content-Type": "application/problem+json", "WWW-Authenticate": "Bearer"})
		_ = p.ask("kong.response.exit", &protocol.ExitArgs{Status: 401, Body: []byte(`{}`), Headers: h}, nil)
		p.gone = true
	})
	var reached atomic.Int64
	a := upstream(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	resp, body := get(t, s.URL+"/things")
	if resp.StatusCode != 401 || body != "{}" || resp.Header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	if reached.Load() != 0 {
		t.Error("the upstream was asked")
	}
	if n := len(f.starts()); n != 1 {
		t.Errorf("%d instances started, want 1", n)
	}
}

// Kong sends both: the plugin cannot take a header's place on an answer that it has not seen.
func TestHeadersOfPluginAndUpstreamReachTheClient(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(p *peer) {
		h, _ := structpb.NewStruct(map[string]any{"Set-Cookie": "plugin=1", "X-Who": "plugin"})
		_ = p.ask("kong.response.set_headers", h, nil)
	})
	a := upstream(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "upstream=1")
		w.Header().Set("X-Who", "upstream")
	})
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	resp, _ := get(t, s.URL+"/things")
	if got := fmt.Sprint(resp.Header.Values("Set-Cookie")); got != "[plugin=1 upstream=1]" {
		t.Errorf("cookies %s", got)
	}
	if got := fmt.Sprint(resp.Header.Values("X-Who")); got != "[plugin upstream]" {
		t.Errorf("X-Who %s", got)
	}
}

// S56, S57: without its plugin a route answers 500, and after the plugin's return the request passes again.
func TestLostPluginFailsClosedAndHeals(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) {})
	a := upstream(t, echo)
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	if resp, _ := get(t, s.URL+"/things"); resp.StatusCode != 200 {
		t.Fatalf("before: %d", resp.StatusCode)
	}
	f.stop()
	for range 3 {
		if resp, body := get(t, s.URL+"/things"); resp.StatusCode != 500 || strings.Contains(body, "target") {
			t.Errorf("without plugin: %d %s", resp.StatusCode, body)
		}
	}
	if resp, _ := get(t, s.URL+"/open"); resp.StatusCode != 200 {
		t.Error("a route without plugin needs none")
	}
	f.listen()
	if resp, _ := get(t, s.URL+"/things"); resp.StatusCode != 200 {
		t.Errorf("after: %d", resp.StatusCode)
	}
	if n := len(f.starts()); n != 2 {
		t.Errorf("%d starts, want one per life of the plugin", n)
	}
}

// A plugin that forgets its instances (the PDK's own server does after a minute) is asked once more with a new one.
func TestUnknownInstanceRunsTheEventOnceMore(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) {})
	a := upstream(t, echo)
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	get(t, s.URL+"/things")
	f.mu.Lock()
	clear(f.known)
	f.mu.Unlock()
	if resp, _ := get(t, s.URL+"/things"); resp.StatusCode != 200 {
		t.Errorf("%d", resp.StatusCode)
	}
	if n := len(f.starts()); n != 2 {
		t.Errorf("%d starts, want 2", n)
	}
}

func TestRequestsGoOnWithoutOneTarget(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) {})
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = dead.Close()
	s := serve(t, testConfig, f, map[string]string{
		"a:1": dead.Addr().String(),
		"b:2": upstream(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }),
	})
	for i := range 6 {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/open", strings.NewReader("hello"))
		resp, err := testhttp.Client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "hello" {
			t.Errorf("request %d: %d %q", i, resp.StatusCode, body)
		}
	}
}

func TestAllTargetsGone(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) {})
	s := serve(t, testConfig, f, map[string]string{"a:1": "127.0.0.1:1", "b:2": "127.0.0.1:1"})
	for _, want := range []int{502, 503} { // the second finds both marked by the passive checks
		if resp, _ := get(t, s.URL+"/open"); resp.StatusCode != want {
			t.Errorf("%d, want %d", resp.StatusCode, want)
		}
	}
}

func TestBodiesStreamBothWays(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) {})
	a := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		in := bufio.NewReader(r.Body)
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = io.WriteString(w, "got "+line)
			_ = http.NewResponseController(w).Flush()
		}
	})
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	pr, pw := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/things", pr)
	go func() { _, _ = io.WriteString(pw, "one\n") }()
	resp, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := bufio.NewReader(resp.Body)
	if line, _ := out.ReadString('\n'); line != "got one\n" {
		t.Fatalf("%q", line)
	}
	_, _ = io.WriteString(pw, "two\n")
	if line, _ := out.ReadString('\n'); line != "got two\n" {
		t.Fatalf("%q", line)
	}
	_ = pw.Close()
	_, _ = io.Copy(io.Discard, out)
}

// What nginx and Kong's router refuse by themselves.
func TestWhatNginxRefusesReachesNoPlugin(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) { t.Error("the plugin was asked") })
	a := upstream(t, echo)
	s := serve(t, testConfig, f, map[string]string{"a:1": a, "b:2": a})
	for head, want := range map[string]int{
		"GET /things HTTP/1.1\r\nAuthorization: a\r\nAuthorization: b": 400,
		"GET /things/%zz HTTP/1.1":                                     400,
		"GET /things/%00 HTTP/1.1":                                     400,
		"GET /things/%ff HTTP/1.1":                                     404,
		"GET /things/../ HTTP/1.1":                                     404,
		"GET /things/%2e%2e HTTP/1.1":                                  404,
	} {
		if resp, _ := raw(t, s.URL, head+"\r\nHost: x\r\nConnection: close\r\n\r\n"); resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", head, resp.StatusCode, want)
		}
	}
}

func TestUnmatchedRouteIs404(t *testing.T) {
	t.Parallel()
	f := newFake(t, func(*peer) { t.Error("event for no route") })
	s := serve(t, testConfig, f, nil)
	if resp, body := get(t, s.URL+"/nothing"); resp.StatusCode != 404 || !strings.Contains(body, "no Route matched") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
