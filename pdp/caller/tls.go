package caller

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
)

// Files are the PEM files of a TLS server. ClientCA may be empty: then callers need no certificate.
type Files struct{ Cert, Key, ClientCA string }

// TLS is a server's certificate and whom it believes callers' certificates from.
type TLS struct {
	files  Files
	config *watched[*tls.Config]
}

// OpenTLS reads the files.
func OpenTLS(f Files, log *slog.Logger) (*TLS, error) {
	if f.Cert == "" || f.Key == "" {
		return nil, errors.New("TLS: a certificate needs its key, a key its certificate, and a client CA both")
	}
	names := []string{f.Cert, f.Key}
	if f.ClientCA != "" {
		names = append(names, f.ClientCA)
	}
	w, err := watch("TLS", names, log, readTLS)
	if err != nil {
		return nil, err
	}
	return &TLS{f, w}, nil
}

func readTLS(contents [][]byte) (*tls.Config, error) {
	pair, err := tls.X509KeyPair(contents[0], contents[1])
	if err != nil {
		return nil, err
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
		// A resumed session is not verified against an authority that has been taken away since.
		SessionTicketsDisabled: true,
	}
	if len(contents) == 3 {
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(contents[2]) {
			return nil, errors.New("the client CA file holds no certificate")
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// Mutual reports whether callers must have a certificate.
func (t *TLS) Mutual() bool { return t.files.ClientCA != "" }

// Config is for a listener. Each new connection gets what the files hold then; one that stands goes on until it ends.
func (t *TLS) Config() *tls.Config {
	c := t.config.get().Clone()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return t.config.get(), nil }
	return c
}

// HTTP2 is Config for a listener that speaks HTTP/2 alone.
func (t *TLS) HTTP2() *tls.Config {
	over := func() *tls.Config {
		c := t.config.get().Clone()
		c.NextProtos = []string{"h2"}
		return c
	}
	c := over()
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return over(), nil }
	return c
}

// Run reads the files again when they change, until ctx ends.
func (t *TLS) Run(ctx context.Context) error { return t.config.run(ctx) }
