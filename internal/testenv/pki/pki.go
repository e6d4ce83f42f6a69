// Package pki makes keys, certificate authorities and certificates for tests.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Cert *x509.Certificate
	PEM  string // its certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate and its private key, as PEM.
type Pair struct{ Cert, Key string }

// KeyPair is a private and a public key of P-256, as PEM.
func KeyPair(t testing.TB) (private, public string) {
	t.Helper()
	key := newKey(t)
	a, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return encode("PRIVATE KEY", a), encode("PUBLIC KEY", b)
}

// New makes an authority that is good for an hour.
func New(t testing.TB, name string) *Authority {
	t.Helper()
	a := &Authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.Cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.PEM = encode("CERTIFICATE", der)
	return a
}

// Server makes a certificate for 127.0.0.1.
func (a *Authority) Server(t testing.TB) Pair {
	t.Helper()
	return a.Issue(t, "server", x509.ExtKeyUsageServerAuth, time.Now().Add(time.Hour))
}

// Client makes a certificate for a client of this name.
func (a *Authority) Client(t testing.TB, name string) Pair {
	t.Helper()
	return a.Issue(t, name, x509.ExtKeyUsageClientAuth, time.Now().Add(time.Hour))
}

// Issue makes a certificate for 127.0.0.1, for this name and usage, that is good until then.
func (a *Authority) Issue(t testing.TB, name string, usage x509.ExtKeyUsage, until time.Time) Pair {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{usage}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}, a.Cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Pair{encode("CERTIFICATE", der), encode("PRIVATE KEY", raw)}
}

// Roots is a pool of these authorities.
func Roots(all ...*Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range all {
		pool.AddCert(a.Cert)
	}
	return pool
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encode(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
