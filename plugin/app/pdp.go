package app

import (
	"context"
	"fmt"

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
	same := fmt.Sprintf("%#v", p)
	if known, ok := a.pdps[same]; ok {
		return known, nil
	}
	client, err := decide.New(decide.Options{URLs: append([]string{p.URL}, p.Others...), Timeout: p.Timeout, Log: a.log})
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
