package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/revision"
)

// feeds reads the file of sources, "" for none, and tells the engine to wait for them.
func feeds(file string, opts *engine.Options) (bundle.Config, error) {
	if file == "" {
		return bundle.Config{}, nil
	}
	c, err := bundle.ReadConfig(file)
	if err != nil {
		return bundle.Config{}, err
	}
	opts.Roots, opts.Feeds = c.Folder, feedsOf(c.Sources)
	return c, nil
}

func feedsOf(sources []bundle.Options) (all []engine.Feed) {
	for _, s := range sources {
		all = append(all, engine.Feed{Name: s.Name, MaxStaleness: s.MaxStaleness, DenyWhenStale: s.DenyWhenStale})
	}
	return all
}

// delivery is where bundles go.
type delivery struct {
	names      []string // of the sources
	candidates map[string]bool

	mu       sync.Mutex
	compares map[string]*bundle.Bundle // by the candidate, of those that it has of its own
}

// deliver makes the services that bring e its bundles, and candidate, if it is not nil, the same but for those of which there are
// candidates.
func (o *operation) deliver(c config, sources bundle.Config, e, candidate *engine.Engine, log *slog.Logger) error {
	d := &delivery{candidates: map[string]bool{}, compares: map[string]*bundle.Bundle{}}
	o.delivery = d
	for _, s := range sources.Candidates {
		d.candidates[s.Name] = true
	}
	var sink bundle.Sink = intake{e}
	if candidate != nil {
		sink = both{intake{e}, intake{candidate}, d.candidates}
	}
	all := map[string]*bundle.Source{}
	open := map[string]revision.Opener{}
	source := func(s bundle.Options, to bundle.Sink) (*bundle.Source, error) {
		s.Sink, s.Log, s.Now = to, log, now
		if s.Verifier == nil {
			log.Warn("nobody signs the bundles of this source", "source", s.Name)
		}
		return bundle.NewSource(s)
	}
	later := &relay{}
	for _, s := range sources.Sources {
		one, err := source(s, later)
		if err != nil {
			return err
		}
		d.names = append(d.names, s.Name)
		all[s.Name], open[s.Name] = one, revision.Opener{Open: one.Open, Limit: one.Limits.Compressed, MaxAge: one.MaxAge}
	}
	later.Sink = sink
	if c.revisions != "" {
		var err error
		if o.bundles, err = revision.OpenBundles(c.revisions, sink, e.Revision, open, now, log); err != nil {
			return err
		}
		later.Sink = o.bundles
	}
	for _, name := range d.names {
		o.parts = append(o.parts, lifecycle.Func(func(ctx context.Context) error {
			if o.bundles != nil {
				o.bundles.Restore(ctx, name)
			}
			return all[name].Run(e.GivingWay(ctx))
		}))
	}
	for _, s := range sources.Candidates {
		one, err := source(s, compared{intake{candidate}, d})
		if err != nil {
			return err
		}
		o.parts = append(o.parts, lifecycle.Func(func(ctx context.Context) error { return one.Run(e.GivingWay(ctx)) }))
	}
	return nil
}

// compared are the bundles of candidates that load.
func (d *delivery) compared() map[string]*bundle.Bundle {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.compares)
}

// relay is a sink that is known later.
type relay struct{ bundle.Sink }

// both gives a second engine what has come to decide by the first, but for what that has of its own.
type both struct {
	intake
	second intake
	own    map[string]bool
}

func (b both) Put(ctx context.Context, source string, of *bundle.Bundle, confirmed time.Time, decides func()) error {
	err := b.intake.Put(ctx, source, of, confirmed, decides)
	if err == nil && !b.own[source] {
		_ = b.second.Put(ctx, source, of, confirmed, nil) // it tells by itself
	}
	return err
}

func (b both) Confirm(source string, at time.Time) {
	b.intake.Confirm(source, at)
	if !b.own[source] {
		b.second.Confirm(source, at)
	}
}

// compared gives a candidate what is its own.
type compared struct {
	intake
	*delivery
}

func (c compared) Put(ctx context.Context, source string, b *bundle.Bundle, confirmed time.Time, decides func()) error {
	return c.intake.Put(ctx, source, b, confirmed, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.compares[source] = b
		decides()
	})
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
