package app

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// decider adds what asks the decision point.
func (a *App) decider(cfg guard.Config, parts *guard.Parts) error {
	if !cfg.Authorize {
		return nil
	}
	p, err := a.pdp(cfg.PDP)
	if err != nil {
		return fmt.Errorf("config.pdp: %w", err)
	}
	parts.Decider, parts.Decisions = p.client, p.decisions
	return nil
}

// points is one row of decision points and what they let us remember, for all configurations that ask them alike.
type points struct {
	client    *decide.Client
	decisions *decide.Cache // nil for none
}

func (a *App) pdp(p guard.PDP) (*points, error) {
	// A secret does not print itself, so its digest tells two configurations apart.
	same := fmt.Sprintf("%#v %x", p, sha256.Sum256([]byte(p.Token.Reveal())))
	if known, ok := a.pdps[same]; ok {
		return known, nil
	}
	config, err := clientTLS(p.TLS)
	if err != nil {
		return nil, err
	}
	o := decide.Options{URLs: append([]string{p.URL}, p.Others...), Timeout: p.Timeout, Token: p.Token, TLS: config, Log: a.log}
	if a.tracer != nil {
		o.Traceparent = tracing.Traceparent
	}
	client, err := decide.New(o)
	if err != nil {
		return nil, err
	}
	made := &points{client: client}
	if p.Cache.TTL > 0 {
		made.decisions = decide.NewCache(p.Cache.Entries, p.Cache.TTL, a.now)
	}
	a.pdps[same] = made
	a.background("decision points", client.Run)
	return made, nil
}

// clientTLS is how decision points with https are verified and what is shown to them; nil where nothing is configured. The
// certificate is read for each connection, so that it rotates without a restart.
func clientTLS(f guard.PDPFiles) (*tls.Config, error) {
	if f == (guard.PDPFiles{}) {
		return nil, nil //nolint:nilnil // net/http's default
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		text, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("ca_file: holds no certificate")
		}
	}
	if f.Cert != "" {
		if _, err := tls.LoadX509KeyPair(f.Cert, f.Key); err != nil {
			return nil, fmt.Errorf("cert_file: %w", err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
			return &pair, err
		}
	}
	return c, nil
}

// policyReady answers a degraded state while a decision point is not well, and a failure while none is.
func (a *App) policyReady(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pdps {
		if err := p.client.Ready(); err != nil {
			return err
		}
	}
	return nil
}
