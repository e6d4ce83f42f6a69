package app

import (
	"fmt"

	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// challenger adds what issues and spends challenges. Each configuration has its own: secrets and work differ.
func (a *App) challenger(cfg guard.Config, parts *guard.Parts) error {
	if !cfg.Challenge.Always {
		return nil
	}
	s, err := a.store(cfg.RedisURL)
	if err != nil {
		return fmt.Errorf("config.redis_url: %w", err)
	}
	c, err := challenge.New(challenge.Options{
		Secret: cfg.Challenge.Secret, MaxNumber: cfg.Challenge.MaxNumber, TTL: cfg.Challenge.TTL, Redis: s.client, Now: a.now,
	})
	if err != nil {
		return fmt.Errorf("config.challenge.%w", err)
	}
	parts.Challenger = c
	return nil
}
