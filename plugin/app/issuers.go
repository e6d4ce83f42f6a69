package app

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/introspect"
)

const (
	keyRefresh  = 5 * time.Minute // between two fetches of a key set
	maxLifetime = 24 * time.Hour  // of any token; revocations are kept as long
)

// identifier adds what verifies tokens.
func (a *App) identifier(cfg guard.Config, parts *guard.Parts) error {
	if cfg.Identify == guard.None {
		return nil
	}
	v, err := a.verifier(cfg.Issuers)
	if err != nil {
		return err
	}
	parts.Verifier, parts.Introspector = v, v
	return nil
}

// verifier answers one verifier for all configurations that trust the same issuers in the same way, so that a token which
// one route (or another worker of Kong) has seen verified costs the next no signature check.
func (a *App) verifier(issuers []guard.Issuer) (*guard.Issuers, error) {
	same := fmt.Sprintf("%#v", issuers)
	for _, is := range issuers { // a secret does not print itself
		same += fmt.Sprintf("%x", sha256.Sum256([]byte(is.Introspection.ClientSecret.Reveal())))
	}
	if v, ok := a.verifiers[same]; ok {
		return v, nil
	}
	var trusted []guard.TrustedIssuer
	for i, is := range issuers {
		t, err := a.trusted(is)
		if err != nil {
			return nil, fmt.Errorf("config.issuers[%d]%w", i+1, err)
		}
		trusted = append(trusted, t)
	}
	v := guard.NewIssuers(a.now, a.tokens, trusted...)
	a.verifiers[same] = v
	return v, nil
}

// trusted makes what is behind one issuer. Its errors begin with the field's path.
func (a *App) trusted(is guard.Issuer) (guard.TrustedIssuer, error) {
	p := jose.Policy{
		Issuer: is.Issuer, Audiences: is.Audiences, Algorithms: is.Algorithms, Types: is.Types, Skew: is.Skew, MaxLifetime: maxLifetime,
		MinRSABits: is.MinRSABits, Require: map[jose.Path]string{}, Claims: is.Claims, Now: a.now,
	}
	for path, v := range is.Require {
		p.Require[jose.Path(path)] = v
	}
	t := guard.TrustedIssuer{Policy: p, Opaque: is.Tokens == guard.Opaque || is.Tokens == guard.Both}
	if err := p.Validate(); err != nil {
		return t, fmt.Errorf(": %w", err)
	}
	network := egress.Options{AllowPrivate: is.Private, AllowHTTP: is.Private}
	if is.Tokens != guard.Opaque {
		k, err := a.keySet(keySource{is.JWKSURL, is.MetadataURL, is.Issuer, is.KeysMaxAge, is.Private}, network)
		if err != nil {
			return t, fmt.Errorf(".jwks_url: %w", err)
		}
		t.Keys = k
	}
	if n := is.Introspection; n.URL != "" {
		c, err := introspect.New(introspect.Options{
			URL: n.URL, ClientID: n.ClientID, ClientSecret: n.ClientSecret, Policy: p, Timeout: n.Timeout, Remember: n.Remember, Egress: network,
			Good: a.tokens, Bad: a.badTokens, Now: a.now,
		})
		if err != nil {
			return t, fmt.Errorf(".introspection.%w", err)
		}
		a.askers = append(a.askers, c)
		t.Asker = c
	}
	return t, nil
}

// keySource is where a key set comes from. The issuer counts where its metadata says.
type keySource struct {
	url, metadata, issuer string
	maxAge                time.Duration
	private               bool
}

// shown names the source for metrics.
func (s keySource) shown() string { return plainAddress(cmp.Or(s.url, s.metadata, s.issuer)) }

func (a *App) keySet(from keySource, network egress.Options) (*jose.RemoteKeys, error) {
	if from.url != "" {
		from.issuer = ""
	}
	if k, ok := a.keys[from]; ok {
		return k, nil
	}
	k, err := jose.NewRemoteKeys(jose.RemoteOptions{
		URL: from.url, Issuer: from.issuer, MetadataURL: from.metadata, Refresh: keyRefresh, MaxAge: from.maxAge, Egress: network, Now: a.now,
	})
	if err != nil {
		return nil, err
	}
	a.keys[from] = k
	a.background("key set", k.Run)
	return k, nil
}

// keysReady answers a degraded state while a key set is not fresh.
func (a *App) keysReady(context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, k := range a.keys {
		if k.Ready() != nil {
			return web.Degraded("An issuer's key set cannot be fetched; the last good one is used.")
		}
	}
	return nil
}
