package app

import (
	"fmt"

	"github.com/gatehouse-auth/gatehouse/plugin/decide"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// decider adds what asks the decision point.
func (a *App) decider(cfg guard.Config, parts *guard.Parts) error {
	if !cfg.Authorize {
		return nil
	}
	d, err := a.pdp(cfg.PDP)
	if err != nil {
		return fmt.Errorf("config.pdp.url: %w", err)
	}
	parts.Decider = d
	return nil
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
