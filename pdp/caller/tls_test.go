package caller_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/caller"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// issue makes a certificate for 127.0.0.1 and its key, as PEM.
func (a *authority) issue(t *testing.T, name string, usage x509.ExtKeyUsage, until time.Time) (cert, key string) {
	t.Helper()
	k := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// site is a TLS server over files, which answers the caller's name.
type site struct {
	files  caller.Files
	tls    *caller.TLS
	server *httptest.Server
	log    *logs
}

func newSite(t *testing.T, server, clients *authority) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{files: caller.Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca")}, log: &logs{}}
	s.putCert(t, server)
	put(t, s.files.ClientCA, clients.pem)
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

func (s *site) putCert(t *testing.T, a *authority) {
	t.Helper()
	cert, key := a.issue(t, "pdp", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	put(t, s.files.Key, key)
	put(t, s.files.Cert, cert)
}

// ask connects anew. Without a certificate cert is "".
func (s *site) ask(t *testing.T, trusted *authority, cert, key string) (string, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(trusted.cert)
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if cert != "" {
		pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
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
	ours, clients, others := newAuthority(t, "servers"), newAuthority(t, "clients"), newAuthority(t, "others")
	s := newSite(t, ours, clients)
	soon := time.Now().Add(time.Hour)
	cert, key := clients.issue(t, "edge-1", x509.ExtKeyUsageClientAuth, soon)
	if name, err := s.ask(t, ours, cert, key); err != nil || name != "edge-1" {
		t.Fatalf("%q, %v", name, err)
	}
	if name, err := s.ask(t, ours, "", ""); err == nil {
		t.Errorf("without a certificate it is %q", name)
	}
	for what, bad := range map[string][2]string{
		"another authority": pair(others.issue(t, "edge-1", x509.ExtKeyUsageClientAuth, soon)),
		"a server's":        pair(clients.issue(t, "edge-1", x509.ExtKeyUsageServerAuth, soon)),
		"expired":           pair(clients.issue(t, "edge-1", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute))),
		"the server's own":  pair(ours.issue(t, "edge-1", x509.ExtKeyUsageClientAuth, soon)),
	} {
		if name, err := s.ask(t, ours, bad[0], bad[1]); err == nil {
			t.Errorf("with a certificate of %s it is %q", what, name)
		}
	}
}

func pair(cert, key string) [2]string { return [2]string{cert, key} }

// S71: certificates and authorities rotate without a restart; what cannot be read changes nothing.
func TestCertificatesRotateWithoutARestart(t *testing.T) {
	t.Parallel()
	first, second := newAuthority(t, "first"), newAuthority(t, "second")
	s := newSite(t, first, first)
	soon := time.Now().Add(time.Hour)
	oldCert, oldKey := first.issue(t, "edge-1", x509.ExtKeyUsageClientAuth, soon)
	newCert, newKey := second.issue(t, "edge-2", x509.ExtKeyUsageClientAuth, soon)

	put(t, s.files.ClientCA, first.pem+second.pem)
	within(t, "both authorities are believed", func() bool {
		a, _ := s.ask(t, first, oldCert, oldKey)
		b, _ := s.ask(t, first, newCert, newKey)
		return a == "edge-1" && b == "edge-2"
	})
	put(t, s.files.ClientCA, second.pem)
	within(t, "the first is no longer believed", func() bool { _, err := s.ask(t, first, oldCert, oldKey); return err != nil })
	s.putCert(t, second)
	within(t, "the server has its new certificate", func() bool { name, _ := s.ask(t, second, newCert, newKey); return name == "edge-2" })

	put(t, s.files.ClientCA, "nonsense")
	within(t, "nonsense is told", func() bool { return strings.Contains(s.log.String(), "holds no certificate") })
	if name, err := s.ask(t, second, newCert, newKey); err != nil || name != "edge-2" {
		t.Errorf("%q, %v", name, err)
	}
	if name, err := s.ask(t, second, "", ""); err == nil {
		t.Errorf("without a certificate it is %q", name)
	}
}

func TestBadTLSFilesAreRefused(t *testing.T) {
	t.Parallel()
	a, dir := newAuthority(t, "a"), t.TempDir()
	at := func(name, text string) string {
		file := filepath.Join(dir, name)
		put(t, file, text)
		return file
	}
	cert, key := a.issue(t, "pdp", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	_, otherKey := a.issue(t, "pdp", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
	good := caller.Files{Cert: at("cert", cert), Key: at("key", key), ClientCA: at("ca", a.pem)}
	for name, f := range map[string]caller.Files{
		"nothing": {}, "no key": {Cert: good.Cert}, "no certificate": {Key: good.Key}, "an authority alone": {ClientCA: good.ClientCA},
		"another's key": {Cert: good.Cert, Key: at("other", otherKey)}, "the wrong way round": {Cert: good.Key, Key: good.Cert},
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
