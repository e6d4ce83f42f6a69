// Package app wires the plugin: it makes a guard for each configuration that Kong starts, over parts that all
// configurations with the same addresses share.
package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
	"github.com/gatehouse-auth/gatehouse/plugin/revocation"
)

const (
	keyRefresh  = 5 * time.Minute // between two fetches of a key set
	maxLifetime = 24 * time.Hour  // of any token; revocations are kept as long
)

// Options is what an App is made of.
type Options struct {
	Now func() time.Time
	Log *slog.Logger
}

// App holds the shared parts. A part is made when the first configuration asks for it, and works in the background while
// Run runs. Close ends what is left.
type App struct {
	now func() time.Time
	log *slog.Logger

	mu        sync.Mutex
	redis     map[string]*store
	keys      map[string]*jose.RemoteKeys
	verifiers map[string]*guard.Issuers
	pdps      map[guard.PDP]*decide.Client
	parts     []part
	start     func(part) // nil unless Run runs
}

// part is work in the background: it runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// store is one Redis and what works over it.
type store struct {
	client      redis.UniversalClient
	revocations *revocation.Follower
	limiter     *limit.Limiter
}

// New makes an App that has no parts yet.
func New(o Options) *App {
	return &App{
		now: o.Now, log: o.Log,
		redis: map[string]*store{}, keys: map[string]*jose.RemoteKeys{}, verifiers: map[string]*guard.Issuers{}, pdps: map[guard.PDP]*decide.Client{},
	}
}

// Run does the background work of all parts, those too that are made while it runs, until ctx ends. Connections stay open
// for the requests that are under way then; Close closes them.
func (a *App) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	a.mu.Lock()
	a.start = func(p part) {
		wg.Go(func() {
			if err := p.run(ctx); err != nil {
				a.log.ErrorContext(ctx, "background part ended", "part", p.name, "error", err)
			}
		})
	}
	for _, p := range a.parts {
		a.start(p)
	}
	a.mu.Unlock()
	<-ctx.Done()
	a.mu.Lock()
	a.start = nil
	a.mu.Unlock()
	wg.Wait()
	return nil
}

// Close closes all connections. Guards that are asked afterwards deny.
func (a *App) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.redis {
		if err := s.client.Close(); err != nil {
			a.log.Warn("close Redis", "error", err)
		}
	}
	for _, c := range a.pdps {
		c.Close()
	}
}

// Guard implements kong.Factory.
func (a *App) Guard(cfg guard.Config) (kong.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	parts := guard.Parts{Now: a.now, NewID: newID, Log: a.log}
	if cfg.RedisURL != "" {
		s, err := a.store(cfg.RedisURL)
		if err != nil {
			return nil, fmt.Errorf("config.redis_url: %w", err)
		}
		parts.Revocations, parts.Limiter = s.revocations, s.limiter
		if cfg.Challenge.Always {
			parts.Challenger, err = challenge.New(challenge.Options{
				Secret: cfg.Challenge.Secret, MaxNumber: cfg.Challenge.MaxNumber, TTL: cfg.Challenge.TTL, Redis: s.client, Now: a.now,
			})
			if err != nil {
				return nil, fmt.Errorf("config.challenge.%w", err)
			}
		}
	}
	if cfg.Identify != guard.None {
		v, err := a.verifier(cfg.Issuers)
		if err != nil {
			return nil, err
		}
		parts.Verifier = v
	}
	if cfg.Authorize {
		d, err := a.pdp(cfg.PDP)
		if err != nil {
			return nil, fmt.Errorf("config.pdp.url: %w", err)
		}
		parts.Decider = d
	}
	return guard.New(cfg, parts)
}

func newID() string { return uuid.Must(uuid.NewV7()).String() }

func (a *App) store(url telemetry.Secret) (*store, error) {
	if s, ok := a.redis[url.Reveal()]; ok {
		return s, nil
	}
	client, err := redisx.Open(url.Reveal())
	if err != nil {
		return nil, err
	}
	s := &store{
		client:      client,
		revocations: revocation.Follow(client, revocation.New(a.now), a.log),
		limiter:     limit.New(client, a.now, a.log),
	}
	a.redis[url.Reveal()] = s
	a.background("revocations", s.revocations.Run)
	return s, nil
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
		p := jose.Policy{
			Issuer: is.Issuer, Audiences: is.Audiences, Algorithms: is.Algorithms, Types: is.Types, Skew: is.Skew, MaxLifetime: maxLifetime,
			RolesClaim: is.RolesClaim, AttributesClaim: is.AttributesClaim, TenantClaim: is.TenantClaim, Now: a.now,
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
	k, err := jose.NewRemoteKeys(url, keyRefresh, a.now)
	if err != nil {
		return nil, err
	}
	a.keys[url] = k
	a.background("key set", k.Run)
	return k, nil
}

func (a *App) pdp(p guard.PDP) (*decide.Client, error) {
	if c, ok := a.pdps[p]; ok {
		return c, nil
	}
	c, err := decide.New(p.URL, p.Timeout)
	if err != nil {
		return nil, err
	}
	a.pdps[p] = c
	return c, nil
}

// background is called with a.mu held.
func (a *App) background(name string, run func(context.Context) error) {
	p := part{name, run}
	a.parts = append(a.parts, p)
	if a.start != nil {
		a.start(p)
	}
}

// Status serves /healthz and /readyz, for a private address.
func (a *App) Status() http.Handler {
	return web.Health(map[string]web.Check{
		"revocations": a.every(func(s *store) error { return s.revocations.Ready() }),
		"limits":      a.every(func(s *store) error { return s.limiter.Ready() }),
		"keys": func(context.Context) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			for _, k := range a.keys {
				if k.Ready() != nil {
					return web.Degraded("An issuer's key set cannot be fetched; the last good one is used.")
				}
			}
			return nil
		},
	})
}

func (a *App) every(ready func(*store) error) web.Check {
	return func(context.Context) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, s := range a.redis {
			if err := ready(s); err != nil {
				return err
			}
		}
		return nil
	}
}
