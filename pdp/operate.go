package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/control"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/revision"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/pdp/shadow"
)

// operation is what operators do to the policies of a running program: compare a candidate, promote it, roll back.
type operation struct {
	revisions *revision.Store   // nil for none
	bundles   *revision.Bundles // nil for none
	delivery  *delivery         // nil where nothing comes as bundles
	shadow    *shadow.Shadow    // nil for none
	parts     []lifecycle.Service
}

// operate opens the kept revisions of the policy folder, and has the engine read its policies through them. Those of bundles are kept by
// deliver.
func operate(c config, opts *engine.Options, log *slog.Logger) (*operation, error) {
	o := &operation{}
	if c.revisions == "" || c.bundles != "" {
		return o, nil
	}
	var folder fs.FS = opts.Policies
	if opts.Dir != "" {
		folder = os.DirFS(opts.Dir)
	}
	var err error
	if o.revisions, err = revision.Open(c.revisions, folder, now, log); err != nil {
		return nil, err
	}
	opts.Policies, opts.Dir = o.revisions, ""
	told := opts.OnLoad
	opts.OnLoad = func(l engine.Load) {
		if told != nil {
			told(l)
		}
		if l.Err == nil {
			o.revisions.Loaded(l.Revision)
		}
	}
	return o, nil
}

// start begins to compare and to fetch, and opens the control socket.
func (o *operation) start(ctx context.Context, c config, sources bundle.Config, e *engine.Engine, known *directory.Directory, masks func(context.Context, decisionlog.Event) *decisionlog.Masks, log *slog.Logger) error {
	candidate := engine.Options{Services: c.services, Tokens: c.tokenFiles, Skip: c.skip, OtherInputs: c.otherInputs(), Directory: known, Now: now, Gauge: e.Gauge()}
	compare := shadow.Options{Dir: c.shadow, Share: c.shadowShare, Active: e, Engine: candidate, Masks: masks, Log: log, Now: now}
	var err error
	if len(sources.Candidates) > 0 {
		if c.shadow != "" {
			return errors.New("there is a candidate folder (shadow-dir), and there are candidates in the file of bundles; one is enough")
		}
		candidate.Dir, candidate.Roots, candidate.Feeds, candidate.Memory, candidate.Log = c.policies, sources.Folder, feedsOf(sources.Sources), -1, log.With("policies", "candidate")
		if compare.Fed, err = engine.Open(ctx, candidate); err != nil {
			return fmt.Errorf("candidate: %w", err)
		}
	}
	if compare.Dir != "" || compare.Fed != nil {
		if o.shadow, err = shadow.New(compare); err != nil {
			return err
		}
		o.parts = append(o.parts, o.shadow)
	}
	if len(sources.Sources) > 0 {
		if err := o.deliver(c, sources, e, compare.Fed, log); err != nil {
			return err
		}
	}
	if c.control == "" {
		return nil
	}
	ln, err := control.Listen(ctx, strings.TrimPrefix(c.control, "unix://"))
	if err != nil {
		return err
	}
	server := &control.Server{Engine: e, Shadow: o.shadow, Revisions: o.revisions, Bundles: o.bundles, Log: log}
	if o.delivery != nil {
		server.Candidate = o.delivery.compared
	}
	o.parts = append(o.parts, lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, ln, server.Handler(), log) }))
	return nil
}

// checks adds to others what is pinned. By whom and to what is for the private address.
func (o *operation) checks(others map[string]web.Check, private bool) map[string]web.Check {
	if o.bundles == nil {
		return others
	}
	all := map[string]web.Check{"pinned": func(context.Context) error {
		switch said := o.bundles.Said(); {
		case said == "":
			return nil
		case private:
			return web.Degraded(said)
		}
		return web.Degraded("A source of policies does not decide by its newest, as an operator wants it.")
	}}
	maps.Copy(all, others)
	return all
}

// engine shows the shadow what e decides.
func (o *operation) engine(e server.Engine) server.Engine {
	if o.shadow == nil {
		return e
	}
	return o.shadow.Wrap(e)
}

// measure adds its metrics to those of the program.
func (o *operation) measure(meter *metrics.Registry) {
	if o.shadow != nil {
		meter.Register(o.shadow.Collector())
	}
	if o.bundles != nil {
		meter.Register(metrics.Pinned(o.delivery.names, func() map[string]bool {
			pinned := map[string]bool{}
			for source := range o.bundles.Pins() {
				pinned[source] = true
			}
			return pinned
		}))
	}
}
