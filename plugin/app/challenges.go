package app

import (
	"fmt"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// challenger adds what issues and spends challenges. Each configuration has its own: secrets and work differ. What networks
// failed at is remembered once for all: who tries tokens at one route is asked for more at the next.
func (a *App) challenger(cfg guard.Config, parts *guard.Parts) error {
	parts.Failures = a.failures
	ch := cfg.Challenge
	if ch.When != guard.Risky && ch.When != guard.Always {
		return nil
	}
	s, err := a.store(cfg.RedisURL)
	if err != nil {
		return fmt.Errorf("config.redis_url: %w", err)
	}
	if ch.Clearance.TTL > 0 {
		if parts.Clearances, err = challenge.NewClearances(ch.Secret, ch.Clearance.TTL, a.now); err != nil {
			return fmt.Errorf("config.challenge.%w", err)
		}
	}
	if p := ch.Provider; p.Name.Hosted() {
		parts.Challenger, err = hosted(challenge.HostedOptions{
			Provider: p.Name, URL: p.URL, SiteKey: p.SiteKey, Secret: p.Secret, Hostnames: p.Hostnames, MinScore: p.MinScore,
			SendAddress: p.SendAddress, AllowPrivate: p.AllowPrivate, Timeout: p.Timeout, TTL: ch.TTL, Redis: s.client, Now: a.now,
		})
		return err
	}
	c, err := challenge.New(challenge.Options{
		Secret: ch.Secret, MaxNumber: ch.MaxNumber, RiskyWork: ch.Risk.MaxNumber, TTL: ch.TTL, Redis: s.client, Now: a.now,
	})
	if err != nil {
		return fmt.Errorf("config.challenge.%w", err)
	}
	parts.Challenger = c
	return nil
}

// Outcome makes what counts failed log-ins by what upstreams answer.
func (a *App) Outcome(cfg kong.Outcome) (kong.Listener, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, err := a.store(cfg.RedisURL)
	if err != nil {
		return nil, fmt.Errorf("config.redis_url: %w", err)
	}
	return &challenge.Logins{Statuses: cfg.Statuses, Limiter: s.limiter, Meter: a.metrics.Answered}, nil
}

func hosted(o challenge.HostedOptions) (guard.Challenger, error) {
	h, err := challenge.NewHosted(o)
	if err != nil {
		return nil, fmt.Errorf("config.challenge.%w", err)
	}
	return h, nil
}
