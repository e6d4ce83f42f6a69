// Package app wires the plugin: it makes a guard for each configuration that Kong starts, over parts that all
// configurations with the same addresses share.
package app

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
	"github.com/gatehouse-auth/gatehouse/plugin/introspect"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
	"github.com/gatehouse-auth/gatehouse/plugin/metrics"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

// Options is what an App is made of.
type Options struct {
	Now         func() time.Time
	Log         *slog.Logger
	Asserter    *assertion.Signer // signs X-Gatehouse-Assertion; nil: routes that want one do not start
	LimitMemory int64             // bytes that the limits over one Redis take at most; 0 for limit.DefaultMemory
	TokenMemory int64             // bytes that are kept of tokens at most; 0 for remember.DefaultMemory
	Tracer      *tracing.Tracer   // nil: nothing is traced. It is the caller's to close
}

// App holds the shared parts. A part is made when the first configuration asks for it, and works in the background while
// Run runs. Close ends what is left.
type App struct {
	now         func() time.Time
	log         *slog.Logger
	limitMemory int64

	tokens    *remember.Cache // what is known of good tokens
	badTokens *remember.Cache // what issuers said of bad ones

	mu        sync.Mutex
	redis     map[string]*store
	keys      map[keySource]*jose.RemoteKeys
	verifiers map[string]*guard.Issuers
	askers    []*introspect.Client
	pdps      map[string]*points
	failures  *challenge.Failures
	parts     []part
	metrics   *metrics.Registry
	asserter  *assertion.Signer
	tracer    *tracing.Tracer
	start     func(part) // nil unless Run runs
}

// part is work in the background: it runs until its context ends.
type part struct {
	name string
	run  func(context.Context) error
}

// New makes an App that has no parts yet.
func New(o Options) *App {
	memory := o.TokenMemory
	if memory <= 0 {
		memory = remember.DefaultMemory
	}
	a := &App{
		tokens: remember.New(memory - memory/8), badTokens: remember.New(memory / 8),
		now: o.Now, log: o.Log, asserter: o.Asserter, limitMemory: o.LimitMemory,
		redis: map[string]*store{}, keys: map[keySource]*jose.RemoteKeys{}, verifiers: map[string]*guard.Issuers{}, pdps: map[string]*points{},
		failures: challenge.NewFailures(o.Now),
	}
	a.metrics = metrics.New(a.state)
	if o.Tracer != nil {
		a.tracer = o.Tracer
		a.metrics.Register(o.Tracer)
	}
	return a
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
		if err := errors.Join(s.client.Close(), s.feed.Close()); err != nil {
			a.log.Warn("close Redis", "error", err)
		}
	}
	for _, p := range a.pdps {
		p.client.Close()
	}
	for _, c := range a.askers {
		c.Close()
	}
}

// Guard implements kong.Factory. While Run runs it waits half a second at most until it is known which sessions have ended.
func (a *App) Guard(cfg guard.Config) (kong.Handler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	g, err := a.guard(cfg)
	if err == nil {
		a.await(cfg)
	}
	return g, err
}

func (a *App) guard(cfg guard.Config) (kong.Handler, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	parts := guard.Parts{Now: a.now, NewID: newID, Log: a.log, Meter: a.metrics}
	if a.asserter != nil {
		parts.Asserter = a.asserter
	}
	if a.tracer != nil {
		parts.Tracer = tracer{a.tracer}
	}
	for _, add := range []func(guard.Config, *guard.Parts) error{a.overRedis, a.challenger, a.identifier, a.decider} {
		if err := add(cfg, &parts); err != nil {
			return nil, err
		}
	}
	return guard.New(cfg, parts)
}

// Meter counts what guards decide; it is for those who decide on a request before there is a guard for it.
func (a *App) Meter() guard.Meter { return a.metrics }

func newID() string { return uuid.Must(uuid.NewV7()).String() }

// background is called with a.mu held.
func (a *App) background(name string, run func(context.Context) error) {
	p := part{name, run}
	a.parts = append(a.parts, p)
	if a.start != nil {
		a.start(p)
	}
}
