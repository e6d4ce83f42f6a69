package app

import (
	"context"
	"fmt"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
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
	parts.Verifier = v
	return nil
}

// verifier answers one verifier for all configurations that trust the same issuers in the same way, so that a token which
// one route (or another worker of Kong) has seen verified costs the next no signature check.
func (a *App) verifier(issuers []guard.Issuer) (*guard.Issuers, error) {
	same := fmt.Sprintf("%#v", issuers)
	if v, ok := a.verifiers[same]; ok {
		return v, nil
	}
	var trusted []guard.TrustedIssuer
	for i, is := range issuers {
		claims := jose.StandardClaims()
		claims.Roles, claims.Attributes, claims.Tenant = []jose.Path{jose.Path(is.RolesClaim)}, jose.Path(is.AttributesClaim), jose.Path(is.TenantClaim)
		p := jose.Policy{
			Issuer: is.Issuer, Audiences: is.Audiences, Algorithms: is.Algorithms, Types: is.Types, Skew: is.Skew, MaxLifetime: maxLifetime,
			Claims: claims, Now: a.now,
		}
		if err := p.Validate(); err != nil {
			return nil, fmt.Errorf("config.issuers[%d]: %w", i+1, err)
		}
		k, err := a.keySet(is.JWKSURL)
		if err != nil {
			return nil, fmt.Errorf("config.issuers[%d].jwks_url: %w", i+1, err)
		}
		trusted = append(trusted, guard.TrustedIssuer{Policy: p, Keys: k})
	}
	v := guard.NewIssuers(a.now, trusted...)
	a.verifiers[same] = v
	return v, nil
}

func (a *App) keySet(url string) (*jose.RemoteKeys, error) {
	if k, ok := a.keys[url]; ok {
		return k, nil
	}
	k, err := jose.NewRemoteKeys(jose.RemoteOptions{URL: url, Refresh: keyRefresh, Egress: egress.Options{AllowPrivate: true, AllowHTTP: true}, Now: a.now})
	if err != nil {
		return nil, err
	}
	a.keys[url] = k
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
