package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Options say where everything is that kong.yml only names.
type Options struct {
	Config  []byte            // kong.yml
	Address map[string]string // host:port as kong.yml has it → the real one; what is not listed is used as it stands
	Vault   map[string]string // for {vault://env/name}: name → value

	Plugin        PluginServer
	PluginTimeout time.Duration // of each read from the plugin; 0 means 60 s, Kong's lua_socket_read_timeout

	Log *slog.Logger
}

// Gateway is a reverse proxy driven by kong.yml. It is an http.Handler; Run must be running for its health checks and the
// plugin's process.
type Gateway struct {
	log       *slog.Logger
	host      *host
	client    *client
	router    *router
	pools     []*pool
	address   map[string]string
	transport *http.Transport
}

// New reads kong.yml, asks the plugin for its schema and refuses every configuration that does not fit it. Errors name
// the field by its path.
func New(ctx context.Context, o Options) (*Gateway, error) {
	d, err := parse(o.Config)
	if err != nil {
		return nil, err
	}
	if o.PluginTimeout == 0 {
		o.PluginTimeout = 60 * time.Second
	}
	h := &host{settings: o.Plugin, log: o.Log}
	info, err := h.query(ctx)
	if err != nil {
		return nil, fmt.Errorf("plugin: %w", err)
	}
	socket := o.Plugin.Socket
	if socket == "" {
		socket = info.SocketPath
	}
	g := &Gateway{log: o.Log, host: h, address: o.Address}
	g.client = newClient(info.Name, socket, o.PluginTimeout, o.Log)
	h.lost = func() { g.client.forget(g.client.epoch.Load()) }
	g.transport = &http.Transport{
		DialContext:         g.dial,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     60 * time.Second,
	}
	b := builder{document: d, info: info, vault: o.Vault, log: o.Log}
	routes, err := b.build()
	if err != nil {
		return nil, err
	}
	g.pools = b.pools
	g.router, err = newRouter(routes)
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Run keeps the plugin's process and the health checks going until ctx ends, and leaves nothing behind.
func (g *Gateway) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range g.pools {
		wg.Go(func() { p.run(ctx, g.dial) })
	}
	err := g.host.run(ctx)
	wg.Wait()
	g.client.closeIdle()
	g.transport.CloseIdleConnections()
	return err
}

// Serve answers requests on ln until ctx ends; requests under way then have a second.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener) error {
	s := &http.Server{ // no read or write time-out: bodies stream
		Handler:           g,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       75 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelWarn),
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("gateway: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if s.Shutdown(stop) != nil {
		_ = s.Close() // the second is over
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

func (g *Gateway) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if real, ok := g.address[addr]; ok {
		addr = real
	}
	timeout := time.Minute
	if t, ok := ctx.Value(connectTimeout{}).(time.Duration); ok {
		timeout = t
	}
	return (&net.Dialer{Timeout: timeout}).DialContext(ctx, network, addr)
}

type connectTimeout struct{}

// builder turns the document into routes.
type builder struct {
	document document
	info     pluginInfo
	vault    map[string]string
	log      *slog.Logger

	pools    []*pool
	sequence int
}

func (b *builder) build() ([]*route, error) {
	upstreams := map[string]*pool{}
	for _, u := range b.document.Upstreams {
		p := newPool(u, b.log)
		upstreams[u.Name] = p
		b.pools = append(b.pools, p)
	}
	global, err := b.pick(b.document.Plugins, "plugins", "", "", owner{})
	if err != nil {
		return nil, err
	}
	services := map[string]*service{}
	inherited := map[string]*instance{}
	var routes []*route
	add := func(spec routeSpec, s *service, where string) error {
		rt := &route{spec: spec, service: s, id: stableID("route", spec.Name)}
		own, err := b.pick(spec.Plugins, where+".plugins", "", "", owner{routeID: rt.id})
		if err != nil {
			return err
		}
		named, err := b.pick(b.document.Plugins, "plugins", spec.Name, "", owner{routeID: rt.id})
		if err != nil {
			return err
		}
		for _, i := range []*instance{own, named, inherited[s.spec.Name], global} {
			if rt.plugin == nil {
				rt.plugin = i
			}
		}
		routes = append(routes, rt)
		return nil
	}
	for i, spec := range b.document.Services {
		where := fmt.Sprintf("services[%d]", i)
		if services[spec.Name] != nil {
			return nil, fmt.Errorf("%s.name: not unique", where)
		}
		s := &service{spec: spec, id: stableID("service", spec.Name), pool: upstreams[spec.Host]}
		if s.pool == nil {
			s.pool = newPool(upstreamSpec{
				Name:    spec.Host,
				Targets: []targetSpec{{Target: net.JoinHostPort(spec.Host, strconv.Itoa(spec.Port))}},
			}, b.log)
		}
		services[spec.Name] = s
		own, err := b.pick(spec.Plugins, where+".plugins", "", "", owner{serviceID: s.id})
		if err != nil {
			return nil, err
		}
		named, err := b.pick(b.document.Plugins, "plugins", "", spec.Name, owner{serviceID: s.id})
		if err != nil {
			return nil, err
		}
		if own == nil {
			own = named
		}
		inherited[spec.Name] = own
		for j, r := range spec.Routes {
			if err := add(r, s, fmt.Sprintf("%s.routes[%d]", where, j)); err != nil {
				return nil, err
			}
		}
	}
	for i, r := range b.document.Routes {
		where := fmt.Sprintf("routes[%d]", i)
		s := services[r.Service]
		if s == nil {
			return nil, fmt.Errorf("%s.service: no service of this name", where)
		}
		if err := add(r, s, where); err != nil {
			return nil, err
		}
	}
	return routes, b.references(routes, services)
}

// references refuses a plugin that points to nothing: it would guard nothing, without a word.
func (b *builder) references(routes []*route, services map[string]*service) error {
	names := map[string]bool{}
	for _, r := range routes {
		names[r.spec.Name] = true
	}
	for i, p := range b.document.Plugins {
		if p.Route != "" && p.Service != "" {
			return fmt.Errorf("plugins[%d]: this gateway takes a route or a service, not both", i)
		}
		if p.Route != "" && !names[p.Route] {
			return fmt.Errorf("plugins[%d].route: no route of this name", i)
		}
		if p.Service != "" && services[p.Service] == nil {
			return fmt.Errorf("plugins[%d].service: no service of this name", i)
		}
	}
	return nil
}

// pick finds and checks the plugin of a list that belongs to this very route, service, or (both empty) list.
func (b *builder) pick(list []pluginSpec, where, routeName, serviceName string, of owner) (*instance, error) {
	var found *instance
	for i, p := range list {
		if p.Route != routeName || p.Service != serviceName {
			continue
		}
		at := fmt.Sprintf("%s[%d]", where, i)
		if p.Name != b.info.Name {
			return nil, fmt.Errorf("%s.name: plugin %q not enabled; this gateway runs %q", at, p.Name, b.info.Name)
		}
		config, err := b.info.config(p.Config, b.vault)
		if err != nil {
			return nil, prefixed(at, err)
		}
		if p.Enabled != nil && !*p.Enabled {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%s: the plugin is here twice", at)
		}
		b.sequence++
		found, err = newInstance(b.info.Name, stableID("plugin", at), b.sequence, of, config)
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// stableID makes the same UUID from the same name, as Kong does for entities of a declarative file.
func stableID(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + ":" + name))
	return uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String()
}
