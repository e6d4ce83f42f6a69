package stack

import (
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"

	"github.com/gatehouse-auth/gatehouse/assertion"
	"github.com/gatehouse-auth/gatehouse/authsvc/app"
	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/internal/lifecycle"
	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry/tracing"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	pdpserver "github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/pdp/traced"
	pluginapp "github.com/gatehouse-auth/gatehouse/plugin/app"
	"github.com/gatehouse-auth/gatehouse/plugin/kong"
)

// audience is what the tokens are for; kong.yml names it too.
const audience = "gatehouse-api"

// accessTTL is the life of an access token.
const accessTTL = 5 * time.Minute

// rootKey reads the key in file, and makes it the first time.
func rootKey(file string) (telemetry.Secret, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails, by its documentation
		data = []byte(hex.EncodeToString(key))
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("root key: %w", err)
	}
	return telemetry.Secret(strings.TrimSpace(string(data))), nil
}

// embeddedRedis is a Redis in this process, whose clock a ticker drives.
type embeddedRedis struct{ *miniredis.Miniredis }

const redisTick = 50 * time.Millisecond

func (s *Stack) startRedis(url string) error {
	if url != "" {
		return nil
	}
	m := miniredis.NewMiniRedis()
	if err := m.Start(); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	s.redis = &embeddedRedis{m}
	s.closers = append(s.closers, func() error { m.Close(); return nil })
	s.services = append(s.services, lifecycle.Func(func(ctx context.Context) error {
		tick := time.NewTicker(redisTick)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				m.FastForward(redisTick)
			}
		}
	}))
	return nil
}

// redisURL is where Redis is.
func (s *Stack) redisURL(given string) string {
	if s.redis == nil {
		return given
	}
	return "redis://" + s.redis.Addr()
}

// tracer makes a part's tracer, nil for none.
func (s *Stack) tracer(to, service string) (*tracing.Tracer, error) {
	t, err := tracing.New(tracing.Options{To: to, Service: service, Lookup: os.LookupEnv, Log: s.log})
	s.closers = append(s.closers, func() error { t.Close(); return nil })
	return t, err
}

// decide serves the engine. Whole decisions are recorded if there is a file that says how; denials are lines of the log in any
// case, for Why.
func (s *Stack) decide(decisionLog string) error {
	lines := decisionlog.New(s.log)
	s.services = append(s.services, lines)
	recorded := recording.In(nil)
	if decisionLog != "" {
		var err error
		if recorded, err = recording.Open("gatehouse-dev", decisionLog, s.log); err != nil {
			return err
		}
		s.services = append(s.services, lifecycle.Func(recorded.Run))
	}
	s.serve(PDP, traced.Handler(s.spans, pdpserver.New(pdpserver.Options{
		Engine: traced.Engine(s.spans, recorded.Engine(s.engine)), DecisionLog: lines, Log: s.log, Checks: recorded.Checks(),
	})))
	return nil
}

func (s *Stack) buildAuthsvc(ctx context.Context, o Options, root telemetry.Secret) error {
	db, err := s.openDatabase(ctx, o)
	if err != nil {
		return err
	}
	client, err := redisx.Open(s.redisURL(o.RedisURL))
	if err != nil {
		return err
	}
	s.closers = append(s.closers, client.Close)
	cfg := app.Config{
		Roles: []app.Role{app.Auth, app.Profile, app.Admin, app.Worker}, Listen: s.Addresses.Authsvc, AdminListen: s.Addresses.Admin, DatabaseURL: telemetry.Secret(o.database()),
		RedisURL: telemetry.Secret(s.redisURL(o.RedisURL)), RootKey: root, Issuer: s.URL(), Audience: audience, AccessTTL: accessTTL,
	}
	if err := cfg.Validate(); err != nil {
		return err
	}
	a, err := app.Build(cfg, app.Parts{
		DB: db, Redis: client, Sender: s.mails(), Poll: 50 * time.Millisecond, Now: time.Now, Log: s.log,
	})
	if err != nil {
		return err
	}
	s.Logins = a.Logins
	s.find(Authsvc).serve = func(ctx context.Context, ln net.Listener) error { return a.Run(ctx, ln) }
	s.serve(Admin, a.Admin)
	return s.serveDirectory(ctx, a)
}

// buildGateway joins the gateway with the plugin by a Unix socket.
func (s *Stack) buildGateway(ctx context.Context, o Options, root telemetry.Secret) error {
	config, err := os.ReadFile(o.KongFile)
	if err != nil {
		return fmt.Errorf("kong.yml: %w", err)
	}
	challenge, err := hkdf.Key(sha256.New, []byte(root.Reveal()), nil, "gatehouse challenge", 32)
	if err != nil {
		return fmt.Errorf("challenge secret: %w", err)
	}
	socket := s.socket("plugin")
	plugin, err := s.plugin(ctx, o, socket)
	if err != nil {
		return err
	}
	outcome := gateway.PluginServer{Describe: func(w io.Writer) error { return kong.DumpOutcome(w, socket) }}
	if o.Plugin != "" {
		outcome = gateway.PluginServer{QueryCommand: fmt.Sprintf("%s -dump -plugin %s -socket %s", o.Plugin, kong.OutcomeName, socket)}
	}
	authsvc := s.Addresses.Authsvc
	s.gateway, err = gateway.New(ctx, gateway.Options{
		Config: config,
		Address: map[string]string{
			"authsvc-1:8081": authsvc, "authsvc-2:8081": authsvc,
			"orders:9000": s.Addresses.Orders1, "orders:9001": s.Addresses.Orders2,
		},
		Vault: map[string]string{
			"gatehouse-issuer": s.URL(), "gatehouse-jwks-url": "http://" + authsvc + "/auth/.well-known/jwks.json",
			"gatehouse-pdp-url": "http://" + s.Addresses.PDP, "gatehouse-redis-url": s.redisURL(o.RedisURL),
			"gatehouse-challenge-secret": hex.EncodeToString(challenge),
		},
		Plugin:  plugin,
		Outcome: outcome,
		Log:     s.log,
	})
	if err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	s.services = append(s.services, s.gateway)
	s.find(Gateway).serve = s.gateway.Serve
	return nil
}

// plugin answers how the gateway reaches the plugin: a child of its own, or a server in this process on the same socket.
func (s *Stack) plugin(ctx context.Context, o Options, socket string) (gateway.PluginServer, error) {
	if binary := o.Plugin; binary != "" {
		status := s.find(Status)
		if err := status.ln.Close(); err != nil { // the child listens there
			return gateway.PluginServer{}, fmt.Errorf("status: %w", err)
		}
		status.serve = func(ctx context.Context, _ net.Listener) error { <-ctx.Done(); return nil }
		return gateway.PluginServer{
			Socket:       socket,
			StartCommand: fmt.Sprintf("%s -socket %s -status %s -traces '%s'", binary, socket, s.Addresses.Status, o.Traces),
			QueryCommand: fmt.Sprintf("%s -dump -socket %s", binary, socket),
		}, nil
	}
	asserter, err := assertion.NewSigner(time.Now)
	if err != nil {
		return gateway.PluginServer{}, fmt.Errorf("plugin: %w", err)
	}
	tracer, err := s.tracer(o.Traces, "gatehouse-plugin")
	if err != nil {
		return gateway.PluginServer{}, err
	}
	edge := pluginapp.New(pluginapp.Options{Now: time.Now, Log: s.log, Asserter: asserter, Tracer: tracer})
	s.closers = append(s.closers, func() error { edge.Close(); return nil })
	srv, err := kong.NewServer(edge.Guard, time.Now, s.log)
	if err != nil {
		return gateway.PluginServer{}, fmt.Errorf("plugin: %w", err)
	}
	srv.Outcomes = edge.Outcome
	ln, err := new(net.ListenConfig).Listen(ctx, "unix", socket)
	if err != nil {
		return gateway.PluginServer{}, fmt.Errorf("plugin: %w", err)
	}
	s.closers = append(s.closers, closing(ln))
	s.services = append(s.services, edge, lifecycle.Func(func(ctx context.Context) error { return srv.Serve(ctx, ln) }))
	s.serve(Status, edge.Status())
	return gateway.PluginServer{Socket: socket, Describe: func(w io.Writer) error { return kong.Dump(w, socket) }}, nil
}

// closing closes a listener that whoever serves it may have closed already.
func closing(ln net.Listener) func() error {
	return func() error {
		if err := ln.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

// StopRedis ends the embedded Redis; its data stays for StartRedis.
func (s *Stack) StopRedis() { s.redis.Close() }

// StartRedis brings the embedded Redis back at its address.
func (s *Stack) StartRedis() error { return s.redis.Restart() }
