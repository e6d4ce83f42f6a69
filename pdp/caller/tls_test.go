package caller_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

// site is a TLS server over files, which answers the caller's name.
type site struct {
	files  caller.Files
	tls    *caller.TLS
	server *httptest.Server
	log    *testenv.Output
}

func newSite(t *testing.T, server, clients *pki.Authority) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{files: caller.Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca")}, log: &testenv.Output{}}
	s.putCert(t, server)
	put(t, s.files.ClientCA, clients.PEM)
	var err error
	if s.tls, err = caller.OpenTLS(s.files, slog.New(slog.NewTextHandler(s.log, nil))); err != nil {
		t.Fatal(err)
	}
	check := caller.Check{Certificates: s.tls.Mutual()}
	s.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, err := check.Identify(r)
		if err != nil {
			w.WriteHeader(http.StatusUnauthorized)
		}
		_, _ = w.Write([]byte(name))
	}))
	s.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.server.Listener = tls.NewListener(s.server.Listener, s.tls.Config())
	s.server.Start()
	t.Cleanup(s.server.Close)
	s.tls.Every(time.Millisecond)
	running(t, s.tls.Run)
	return s
}

func (s *site) putCert(t *testing.T, a *pki.Authority) {
	t.Helper()
	p := a.Server(t)
	put(t, s.files.Key, p.Key)
	put(t, s.files.Cert, p.Cert)
}

// ask connects anew, with a certificate or with none.
func (s *site) ask(t *testing.T, trusted *pki.Authority, own pki.Pair) (string, error) {
	t.Helper()
	config := &tls.Config{RootCAs: pki.Roots(trusted), MinVersion: tls.VersionTLS12}
	if own.Cert != "" {
		pair, err := tls.X509KeyPair([]byte(own.Cert), []byte(own.Key))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + s.server.Listener.Addr().String())
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	name, err := io.ReadAll(res.Body)
	if res.StatusCode != http.StatusOK {
		return "", errors.New(res.Status)
	}
	return string(name), err
}

// S71: only who has a certificate of the pinned authority, made for clients and still good, gets as far as HTTP.
func TestOnlyCallersWithACertificateOfThePinnedAuthorityGetIn(t *testing.T) {
	t.Parallel()
	ours, clients, others := pki.New(t, "servers"), pki.New(t, "clients"), pki.New(t, "others")
	s := newSite(t, ours, clients)
	if name, err := s.ask(t, ours, clients.Client(t, "edge-1")); err != nil || name != "edge-1" {
		t.Fatalf("%q, %v", name, err)
	}
	if name, err := s.ask(t, ours, pki.Pair{}); err == nil {
		t.Errorf("without a certificate it is %q", name)
	}
	for what, bad := range map[string]pki.Pair{
		"another authority": others.Client(t, "edge-1"),
		"a server's":        clients.Server(t),
		"expired":           clients.Issue(t, "edge-1", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute)),
		"the server's own":  ours.Client(t, "edge-1"),
	} {
		if name, err := s.ask(t, ours, bad); err == nil {
			t.Errorf("with a certificate of %s it is %q", what, name)
		}
	}
}

// S71: certificates and authorities rotate without a restart; what cannot be read changes nothing.
func TestCertificatesRotateWithoutARestart(t *testing.T) {
	t.Parallel()
	first, second := pki.New(t, "first"), pki.New(t, "second")
	s := newSite(t, first, first)
	before, after := first.Client(t, "edge-1"), second.Client(t, "edge-2")

	put(t, s.files.ClientCA, first.PEM+second.PEM)
	await.That(t, "both authorities are believed", func() bool {
		a, _ := s.ask(t, first, before)
		b, _ := s.ask(t, first, after)
		return a == "edge-1" && b == "edge-2"
	})
	put(t, s.files.ClientCA, second.PEM)
	await.That(t, "the first is no longer believed", func() bool { _, err := s.ask(t, first, before); return err != nil })
	s.putCert(t, second)
	await.That(t, "the server has its new certificate", func() bool { name, _ := s.ask(t, second, after); return name == "edge-2" })

	put(t, s.files.ClientCA, "nonsense")
	await.That(t, "nonsense is told", func() bool { return strings.Contains(s.log.String(), "holds no certificate") })
	if name, err := s.ask(t, second, after); err != nil || name != "edge-2" {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := s.ask(t, second, pki.Pair{}); err == nil {
		t.Errorf("without a certificate it is %q", name)
	}
}

func TestBadTLSFilesAreRefused(t *testing.T) {
	t.Parallel()
	a, dir := pki.New(t, "a"), t.TempDir()
	at := func(name, text string) string {
		file := filepath.Join(dir, name)
		put(t, file, text)
		return file
	}
	own, other := a.Server(t), a.Server(t)
	good := caller.Files{Cert: at("cert", own.Cert), Key: at("key", own.Key), ClientCA: at("ca", a.PEM)}
	for name, f := range map[string]caller.Files{
		"nothing": {}, "no key": {Cert: good.Cert}, "no certificate": {Key: good.Key}, "an authority alone": {ClientCA: good.ClientCA},
		"another's key": {Cert: good.Cert, Key: at("other", other.Key)}, "the wrong way round": {Cert: good.Key, Key: good.Cert},
		"an empty authority": {Cert: good.Cert, Key: good.Key, ClientCA: at("empty", "")}, "a key for an authority": {Cert: good.Cert, Key: good.Key, ClientCA: good.Key},
		"no file": {Cert: good.Cert, Key: filepath.Join(dir, "none")},
	} {
		if _, err := caller.OpenTLS(f, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := caller.OpenTLS(good, slog.New(slog.DiscardHandler)); err != nil {
		t.Error(err)
	}
}
