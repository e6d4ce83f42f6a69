package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// teapot stands for a guard: it answers every request itself and tells what it saw of it.
type teapot struct{}

func (teapot) Check(_ context.Context, r guard.Request) guard.Verdict {
	return guard.Verdict{Status: http.StatusTeapot, Header: map[string]string{"X-Route": r.Route, "X-Path": r.Path}, Body: []byte(r.Malformed)}
}

// The gateway and the plugin meet over the socket only: each route of kong.yml must start an instance whose configuration
// the guard takes, and its requests must reach that instance.
func TestEveryRouteOfTheKongFileStartsAnInstance(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(kongFile)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	socket := filepath.Join(t.TempDir(), "s")
	server, err := kong.NewServer(func(cfg guard.Config) (kong.Handler, error) { return teapot{}, cfg.Validate() }, time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(ctx, ln) })
	t.Cleanup(func() { cancel(); running.Wait() })
	g, err := gateway.New(t.Context(), gateway.Options{
		Config: text, Vault: vault(), Log: log,
		Plugin:  gateway.PluginServer{Socket: socket, Describe: func(w io.Writer) error { return kong.Dump(w, socket) }},
		Outcome: gateway.PluginServer{Describe: func(w io.Writer) error { return kong.DumpOutcome(w, socket) }},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, path, route string }{
		{http.MethodPost, "/auth/register", "auth-register"},
		{http.MethodPost, "/auth/login", "auth-login"},
		{http.MethodPost, "/auth/verify-email", "auth-verify-email"},
		{http.MethodPost, "/auth/refresh", "auth-refresh"},
		{http.MethodGet, "/auth/me", "auth-self"},
		{http.MethodPost, "/auth/logout", "auth-self"},
		{http.MethodGet, "/auth/.well-known/jwks.json", "auth-public"},
		{http.MethodGet, "/.well-known/openid-configuration", "auth-public"},
		{http.MethodPatch, "/user/me", "user-self"},
		{http.MethodGet, "/orders", "orders"},
		{http.MethodDelete, "/orders/1", "orders"},
		{http.MethodPost, "/orders/../auth/login", "auth-login"},
		{http.MethodGet, "/auth/%2e%2e//%6frders", "orders"},
	} {
		rec := httptest.NewRecorder()
		g.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), c.method, c.path, nil))
		if rec.Code != http.StatusTeapot || rec.Header().Get("X-Route") != c.route || rec.Header().Get("X-Path") != c.path || rec.Body.Len() > 0 {
			t.Errorf("%s %s: %d route %q path %q %s", c.method, c.path, rec.Code, rec.Header().Get("X-Route"), rec.Header().Get("X-Path"), rec.Body)
		}
	}
	for _, path := range []string{"/auth/login/x", "/auth/loginx", "/user/metrics", "/admin/v1/users", "/healthz", "/"} {
		rec := httptest.NewRecorder()
		g.ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if rec.Code != http.StatusNotFound {
			t.Errorf("%s: %d, want 404 of the gateway", path, rec.Code)
		}
	}
}
