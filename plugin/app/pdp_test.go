package app

import (
	"crypto/tls"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func edge(t *testing.T) *App {
	t.Helper()
	a := New(Options{Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(a.Close)
	return a
}

// S71: the edge shows its token and its certificate, believes the configured authority alone, and takes up a new certificate.
func TestTheEdgeShowsTheDecisionPointWhoItIs(t *testing.T) {
	t.Parallel()
	servers, clients, others := pki.New(t, "servers"), pki.New(t, "clients"), pki.New(t, "others")
	own := servers.Server(t)
	pair, err := tls.X509KeyPair([]byte(own.Cert), []byte(own.Key))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan [2]string, 1)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- [2]string{r.Header.Get("Authorization"), r.TLS.PeerCertificates[0].Subject.CommonName}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Connection", "close") // so that the next question makes a new connection
		_, _ = w.Write([]byte(`{"decision":true}`))
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pki.Roots(clients), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)

	dir := t.TempDir()
	files := guard.PDPFiles{CA: filepath.Join(dir, "ca"), Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	put(t, files.CA, servers.PEM)
	show := func(p pki.Pair) { put(t, files.Cert, p.Cert); put(t, files.Key, p.Key) }
	show(clients.Client(t, "edge-1"))
	config := guard.PDP{URL: s.URL, Timeout: 10 * time.Second, Token: "token-of-the-edge", TLS: files}
	points, err := edge(t).pdp(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"edge-1", "edge-2"} {
		show(clients.Client(t, name))
		if res, err := points.client.Decide(t.Context(), authzen.Request{}); err != nil || !res.Decision {
			t.Fatalf("%+v, %v", res, err)
		}
		if got := <-seen; got != [2]string{"Bearer token-of-the-edge", name} {
			t.Errorf("showed %q", got)
		}
	}
	show(others.Client(t, "edge-3"))
	if res, err := points.client.Decide(t.Context(), authzen.Request{}); err == nil {
		t.Errorf("with another authority's certificate: %+v", res)
	}
	put(t, files.CA, others.PEM)
	show(clients.Client(t, "edge-1"))
	suspicious, err := edge(t).pdp(config)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := suspicious.client.Decide(t.Context(), authzen.Request{}); err == nil {
		t.Errorf("a decision point of another authority is believed: %+v", res)
	}
}

// Two configurations that differ in their token alone do not share connections, decisions or fate.
func TestATokenTellsDecisionPointsApart(t *testing.T) {
	t.Parallel()
	a := edge(t)
	ask := func(token string) *points {
		p, err := a.pdp(guard.PDP{URL: "http://127.0.0.1:1", Timeout: time.Second, Token: telemetry.Secret(token)})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if one, two, again := ask("one"), ask("two"), ask("one"); one == two || one != again {
		t.Error("tokens are mixed up")
	}
}

func TestBadFilesForDecisionPointsAreRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	none, nonsense := filepath.Join(dir, "none"), filepath.Join(dir, "nonsense")
	put(t, nonsense, "nonsense")
	for _, files := range []guard.PDPFiles{{CA: none}, {CA: nonsense}, {Cert: none, Key: none}, {Cert: nonsense, Key: nonsense}} {
		if _, err := edge(t).pdp(guard.PDP{URL: "https://127.0.0.1:1", Timeout: time.Second, TLS: files}); err == nil {
			t.Errorf("%+v was accepted", files)
		}
	}
}
