package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// feeds reads the file of sources, "" for none, and tells the engine to wait for them.
func feeds(file string, opts *engine.Options) ([]bundle.Options, error) {
	if file == "" {
		return nil, nil
	}
	c, err := bundle.ReadConfig(file)
	if err != nil {
		return nil, err
	}
	opts.Roots = c.Folder
	for _, s := range c.Sources {
		opts.Feeds = append(opts.Feeds, engine.Feed{Name: s.Name, MaxStaleness: s.MaxStaleness, DenyWhenStale: s.DenyWhenStale})
	}
	return c.Sources, nil
}

// fetchers are the services that bring an engine its bundles.
func fetchers(sources []bundle.Options, e *engine.Engine, log *slog.Logger) ([]lifecycle.Service, error) {
	var out []lifecycle.Service
	for _, o := range sources {
		o.Sink, o.Log, o.Now = intake{e}, log, now
		s, err := bundle.NewSource(o)
		if err != nil {
			return nil, err
		}
		if o.Verifier == nil {
			log.Warn("nobody signs the bundles of this source", "source", o.Name)
		}
		out = append(out, s)
	}
	return out, nil
}

// intake gives an engine what sources bring.
type intake struct{ *engine.Engine }

func (i intake) Put(ctx context.Context, source string, b *bundle.Bundle, confirmed time.Time, decides func()) error {
	return i.Engine.Put(ctx, engine.Part{
		Source: source, Revision: b.Revision, Roots: b.Roots, Files: b.Files, Confirmed: confirmed, Decides: decides,
	})
}

// Refuse names the step that the engine never saw.
func (i intake) Refuse(ctx context.Context, source string, err error) {
	step := engine.StepRead
	var unsigned *bundle.SignatureError
	if errors.As(err, &unsigned) {
		step = engine.StepSignature
	}
	i.Engine.Refuse(ctx, source, &engine.Refused{Step: step, Err: err})
}
