package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/web"
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
	revisions *revision.Store // nil for none
	shadow    *shadow.Shadow  // nil for none
	parts     []lifecycle.Service
}

// operate opens the kept revisions, and has the engine read its policies through them.
func operate(c config, opts *engine.Options, log *slog.Logger) (*operation, error) {
	o := &operation{}
	switch {
	case c.revisions == "":
		return o, nil
	case c.bundles != "":
		return nil, errors.New("revisions: what comes by bundles is published and taken back where they are made")
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

// start begins to compare, and opens the control socket.
func (o *operation) start(ctx context.Context, c config, e *engine.Engine, known *directory.Directory, masks *decisionlog.Masks, log *slog.Logger) (err error) {
	if c.shadow != "" {
		o.shadow, err = shadow.New(shadow.Options{
			Dir: c.shadow, Share: c.shadowShare, Active: e, Engine: engine.Options{Services: c.services, Tokens: c.tokenFiles, Skip: c.skip, OtherInputs: c.otherInputs(), Directory: known, Now: now}, Masks: masks, Log: log, Now: now,
		})
		if err != nil {
			return err
		}
		o.parts = append(o.parts, o.shadow)
	}
	if c.control == "" {
		return nil
	}
	ln, err := control.Listen(ctx, strings.TrimPrefix(c.control, "unix://"))
	if err != nil {
		return err
	}
	handler := (&control.Server{Engine: e, Shadow: o.shadow, Revisions: o.revisions, Log: log}).Handler()
	o.parts = append(o.parts, lifecycle.Func(func(ctx context.Context) error { return web.Serve(ctx, ln, handler, log) }))
	return nil
}

// engine shows the shadow what e decides.
func (o *operation) engine(e server.Engine) server.Engine {
	if o.shadow == nil {
		return e
	}
	return o.shadow.Wrap(e)
}

// measure adds the shadow's metrics to those of the program.
func (o *operation) measure(meter *metrics.Registry) {
	if o.shadow != nil {
		meter.Register(o.shadow.Collector())
	}
}
