package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

const guardedFile = `
_format_version: "3.0"
services:
  - name: api
    url: http://api:1
    routes:
      - name: orders
        paths: [/orders]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              issuers: [{issuer: "https://issuer.test", jwks_url: "{vault://env/test-keys}", audiences: [orders]}]
              resources: [{pattern: /orders, type: order}, {pattern: "/orders/{id}", type: order}]
              pdp: {url: "{vault://env/test-pdp}", cache_ttl_ms: 0, timeout_ms: 1000}
              obligations: {upstream_headers: [X-Department], response_headers: [X-Notice]}
              redis_url: &redis "{vault://env/test-redis}"
      - name: limited
        paths: ["~/limited$"]
        strip_path: false
        plugins: [{name: gatehouse, config: {identify: none, authorize: false, limits: [{name: per-address, key: ip, rate: 2-H}], redis_url: *redis}}]
      - name: register
        paths: ["~/register$"]
        methods: [POST]
        strip_path: false
        plugins:
          - name: gatehouse
            config: {identify: none, authorize: false, challenge: {when: always, action: register, secret: 0123456789abcdef0123456789abcdef, max_number: 1000}, redis_url: *redis}
      - name: page
        paths: [/page]
        strip_path: false
        plugins:
          - name: gatehouse
            config:
              authorize: false
              issuers: [{issuer: "https://issuer.test", jwks_url: "{vault://env/test-keys}", audiences: [orders]}]
              token_cookie: {name: at, strip: false}
              on_unauthenticated: redirect
              login: {url: "https://login.test/in", return_origin: "https://app.test"}
              cors: {origins: ["https://app.test"], answered_by: upstream}
              redis_url: *redis
      - name: shop
        paths: ["~/shop$"]
        strip_path: false
        plugins:
          - name: gatehouse
            config: {identify: none, authorize: false, challenge: {when: always, action: shop, secret: 0123456789abcdef0123456789abcdef, max_number: 1000}, redis_url: *redis}
      - {name: open, paths: [/open], strip_path: false}
`

// site is an API behind a proxy that asks the guard, and what surrounds them.
type site struct {
	proxy, socket string
	stop          func() // the guard
	key           jose.SigningKey
	decision      atomic.Pointer[authzen.Response]
	reached       atomic.Int64           // requests that reached the API
	seen          chan http.Header       // of the last of them
	parent        atomic.Pointer[string] // traceparent of the last question to the decision point
	log           testenv.Output
}

// serveGuard runs forward-auth for the proxy, and the API, the issuer and the decision point around it.
func serveGuard(t *testing.T, proxy string, flags ...string) (s *site, api string) {
	t.Helper()
	key, err := jose.GenerateRSA(2048)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := jose.PublicSet(key)
	if err != nil {
		t.Fatal(err)
	}
	s = &site{key: key, seen: make(chan http.Header, 1)}
	s.decide(authzen.Response{Decision: true})
	keys := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(jwks) })
	pdp := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		parent := r.Header.Get("Traceparent")
		s.parent.Store(&parent)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.decision.Load())
	})
	api = serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		s.reached.Add(1)
		select {
		case <-s.seen:
		default:
		}
		s.seen <- r.Header
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" "+string(body))
	})
	// A socket's path may have 107 bytes at most, which a test's own folder can exceed.
	dir, err := os.MkdirTemp("", "gh") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "kong.yml")
	if err := os.WriteFile(file, []byte(guardedFile), 0o600); err != nil {
		t.Fatal(err)
	}
	s.socket = filepath.Join(dir, "s")
	environment := map[string]string{"TEST_KEYS": "http://" + keys, "TEST_PDP": "http://" + pdp, "TEST_REDIS": testenv.Redis(t)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- runForwardAuth(ctx, append([]string{"-config", file, "-proxy", proxy, "-listen", "unix:" + s.socket, "-status", ""}, flags...),
			func(name string) (string, bool) { v, ok := environment[name]; return v, ok }, &s.log)
	}()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the guard ended: %v", err)
		}
	})
	t.Cleanup(s.stop)
	return s, api
}

func serveHTTP(t *testing.T, h http.HandlerFunc) (address string) {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func (s *site) decide(r authzen.Response) { s.decision.Store(&r) }

// ready waits until the guard has its keys and knows who has logged out.
func (s *site) ready(t *testing.T) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(20 * time.Second); ; {
		a := s.do(t, "GET", "/orders", s.token(t, nil))
		if a.status == 200 {
			s.reached.Store(0)
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not ready: %d %s\n%s", a.status, a.body, s.log.String())
		}
	}
}

func (s *site) token(t *testing.T, changes map[string]any) string {
	t.Helper()
	now := time.Now()
	c := map[string]any{
		"iss": "https://issuer.test", "sub": "ada", "aud": "orders", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"jti": "j1", "sid": "s1", "client_id": "test", "roles": []string{"customer", "clerk"},
	}
	for name, v := range changes {
		c[name] = v
	}
	token, err := jose.Sign(s.key, "at+jwt", c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

type answered struct {
	status  int
	header  http.Header
	body    string
	problem web.ProblemDocument
}

// do sends one request as it stands; further are name, value pairs of headers, or "" and the body.
func (s *site) do(t *testing.T, method, target, token string, further ...string) answered {
	t.Helper()
	lines := []string{method + " " + target + " HTTP/1.1", "Host: api.test", "Connection: close"}
	if token != "" {
		lines = append(lines, "Authorization: Bearer "+token)
	}
	body := ""
	for i := 0; i < len(further); i += 2 {
		if further[i] == "" { // the body
			if body = further[i+1]; !slices.Contains(further, "chunked") {
				lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
			}
			continue
		}
		lines = append(lines, further[i]+": "+further[i+1])
	}
	conn, err := net.Dial("tcp", s.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.Join(lines, "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	a := answered{status: res.StatusCode, header: res.Header, body: string(text)}
	if res.Header.Get("Content-Type") == "application/problem+json" && len(text) > 0 {
		if err := json.Unmarshal(text, &a.problem); err != nil {
			t.Errorf("%s %s: problem %q", method, target, text)
		}
	}
	return a
}

// refused checks that the request got that answer, whole, and did not reach the API.
func (s *site) refused(t *testing.T, what string, a answered, status int, code string) {
	t.Helper()
	if a.status != status || a.problem.Code != code || a.problem.Status != status {
		t.Errorf("%s: %d %q, want %d %s", what, a.status, a.body, status, code)
	}
	if ids := a.header.Values("X-Gatehouse-Decision"); len(ids) != 1 || ids[0] != a.problem.DecisionID || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: headers %v", what, a.header)
	}
	for name := range a.header {
		if name == "X-Gatehouse-Refusal" || name == "X-Gatehouse-Status" {
			t.Errorf("%s: the client got %s", what, name)
		}
	}
	if n := s.reached.Swap(0); n != 0 {
		t.Errorf("%s: reached the API", what)
	}
}

// The same over gRPC, which is for Envoy; and the private address, as in Kong's mode (S69).
func TestEnvoyIsServedByGRPCBesideAPrivateAddress(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	private := ln.Addr().String()
	_ = ln.Close() // the guard takes the port
	s, _ := serveGuard(t, "envoy-grpc", "-status", private)
	conn, err := grpc.NewClient("unix:"+s.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ask := func(method, path, token string) *auth.CheckResponse {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		res, err := auth.NewAuthorizationClient(conn).Check(ctx, &auth.CheckRequest{Attributes: &auth.AttributeContext{
			Source: &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "192.0.2.1"}}}},
			Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
				Method: method, Path: path, Host: "api.test", Headers: map[string]string{"authorization": "Bearer " + token, "x-gatehouse-tenant": "root"},
			}},
		}}, grpc.WaitForReady(true))
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(20 * time.Second)
	var allowed *auth.OkHttpResponse
	for allowed == nil {
		res := ask("GET", "/orders/o1", s.token(t, nil))
		if allowed = res.GetOkResponse(); allowed != nil {
			break
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not ready: %v\n%s", res, s.log.String())
		}
	}
	removed := strings.Join(allowed.GetHeadersToRemove(), " ")
	if !strings.Contains(removed, "x-gatehouse-tenant") || strings.Contains(removed, "x-gatehouse-subject") {
		t.Errorf("removed %q", removed)
	}
	for target, want := range map[string]string{"/orders/../x": "bad_path", "/elsewhere": "route_unknown", "/orders/o1/x": "resource_unknown"} {
		if res := ask("GET", target, s.token(t, nil)); res.GetStatus().GetCode() == 0 || !strings.Contains(res.GetDeniedResponse().GetBody(), want) {
			t.Errorf("%s: %v", target, res)
		}
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/check": 404} {
		res, err := testhttp.Client.Get("http://" + private + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
	}
}

func TestForwardAuthRefusesWhatItCannotServe(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "kong.yml")
	if err := os.WriteFile(file, []byte(guardedFile), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whatever would serve ends at once
	all := map[string]string{"TEST_KEYS": "https://keys", "TEST_PDP": "http://pdp", "TEST_REDIS": "redis://127.0.0.1:1"}
	for name, c := range map[string]struct {
		args        []string
		environment map[string]string
		want        string
	}{
		"no proxy":          {nil, all, "expected nginx, traefik, caddy, envoy or envoy-grpc"},
		"a public address":  {[]string{"-proxy", "nginx", "-listen", "0.0.0.0:0"}, all, "expected a loopback or private address"},
		"no such network":   {[]string{"-proxy", "nginx", "-from", "10.0.0.1"}, all, "from: "},
		"no file":           {[]string{"-proxy", "nginx", "-config", "absent.yml"}, all, "absent.yml"},
		"no such variable":  {[]string{"-proxy", "nginx"}, nil, "jwks_url: nothing is known as {vault://env/test-keys}"},
		"peers of a socket": {[]string{"-proxy", "nginx", "-listen", "unix:" + filepath.Join(t.TempDir(), "s"), "-from", "10.0.0.0/8"}, all, "the mode of a Unix socket"},
		"no such address":   {[]string{"-proxy", "envoy-grpc", "-client-address", "X-Real-IP"}, all, "Envoy tells it without a header"},
	} {
		err := run(ctx, append([]string{"forward-auth", "-status", "", "-config", file}, c.args...), io.Discard, io.Discard)
		if c.environment != nil {
			err = runForwardAuth(ctx, append([]string{"-status", "", "-config", file}, c.args...), func(n string) (string, bool) { v, ok := c.environment[n]; return v, ok }, io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}
