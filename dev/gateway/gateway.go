package gateway

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/gatehouse-auth/gatehouse/internal/kongfile"
)

// Options say where everything is that kong.yml only names.
type Options struct {
	Config  []byte            // kong.yml
	Address map[string]string // host:port as kong.yml has it → the real one; what is not listed is used as it stands
	Vault   map[string]string // for {vault://env/name}: name → value

	Plugin        PluginServer
	Outcome       PluginServer  // of the plugin that is told of answers, by its query alone; the zero value for none
	PluginTimeout time.Duration // of each read from the plugin; 0 means 60 s, Kong's lua_socket_read_timeout

	Log *slog.Logger
}

// Gateway is a reverse proxy driven by kong.yml. It is an http.Handler; Run must be running for its health checks and the
// plugin's process.
type Gateway struct {
	log       *slog.Logger
	host      *host
	client    *client
	outcomes  *client // nil for none
	telling   telling
	router    *kongfile.Router
	routes    []*route // as the router counts them
	pools     []*pool
	address   map[string]string
	transport *http.Transport
}

// New reads kong.yml, asks the plugin for its schema and refuses every configuration that does not fit it. Errors name
// the field by its path.
func New(ctx context.Context, o Options) (*Gateway, error) {
	d, err := kongfile.Parse(o.Config)
	if err != nil {
		return nil, err
	}
	if err := supported(d); err != nil {
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
	guarded, err := d.Guarded()
	if err != nil {
		return nil, err
	}
	b := builder{document: d, infos: map[string]pluginInfo{info.Name: info}, vault: o.Vault, log: o.Log}
	if o.Outcome.Describe != nil || o.Outcome.QueryCommand != "" {
		second, err := (&host{settings: o.Outcome, log: o.Log}).query(ctx)
		if err != nil {
			return nil, fmt.Errorf("plugin: %w", err)
		}
		b.infos[second.Name] = second
		g.outcomes = newClient(second.Name, socket, o.PluginTimeout, o.Log)
		h.lost = func() { g.client.forget(g.client.epoch.Load()); g.outcomes.forget(g.outcomes.epoch.Load()) }
	}
	if g.routes, err = b.build(guarded); err != nil {
		return nil, err
	}
	g.pools = b.pools
	if g.router, err = kongfile.NewRouter(guarded); err != nil {
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
	g.telling.end()
	if g.outcomes != nil {
		g.outcomes.closeIdle()
	}
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

// route is a route of kong.yml with all that serves it.
type route struct {
	spec    kongfile.Route
	service *service
	plugin  *instance // nil: no plugin
	outcome *instance // nil: no plugin is told of answers
	id      string
}

type service struct {
	spec *kongfile.Service
	id   string
	pool *pool
}

// builder turns the document into routes.
type builder struct {
	document kongfile.Document
	infos    map[string]pluginInfo // by name
	vault    map[string]string
	log      *slog.Logger

	pools []*pool
}

func (b *builder) build(guarded []kongfile.Guarded) ([]*route, error) {
	plugins, err := b.plugins()
	if err != nil {
		return nil, err
	}
	upstreams := map[string]*pool{}
	for _, u := range b.document.Upstreams {
		p := newPool(u, b.log)
		upstreams[u.Name] = p
		b.pools = append(b.pools, p)
	}
	services := map[*kongfile.Service]*service{}
	for i := range b.document.Services {
		spec := &b.document.Services[i]
		s := &service{spec: spec, id: stableID("service", spec.Name), pool: upstreams[spec.Host]}
		if s.pool == nil {
			s.pool = newPool(kongfile.Upstream{
				Name:    spec.Host,
				Targets: []kongfile.Target{{Target: net.JoinHostPort(spec.Host, strconv.Itoa(spec.Port))}},
			}, b.log)
		}
		services[spec] = s
	}
	var routes []*route
	for _, r := range guarded {
		routes = append(routes, &route{spec: r.Route, service: services[r.Service], plugin: plugins[r.Plugin], outcome: plugins[r.Outcome], id: stableID("route", r.Route.Name)})
	}
	return routes, nil
}

// plugins checks every plugin in the file, those too that no route runs.
func (b *builder) plugins() (map[*kongfile.Plugin]*instance, error) {
	instances := map[*kongfile.Plugin]*instance{}
	for i, p := range b.document.AllPlugins() {
		info, enabled := b.infos[p.Name]
		if !enabled {
			return nil, fmt.Errorf("%s.name: plugin %q not enabled; this gateway runs %q", p.At, p.Name, slices.Sorted(maps.Keys(b.infos)))
		}
		config, err := info.config(p.Config, b.vault)
		if err != nil {
			return nil, prefixed(p.At, err)
		}
		var of owner
		if p.Route != "" {
			of.routeID = stableID("route", p.Route)
		} else if p.Service != "" {
			of.serviceID = stableID("service", p.Service)
		}
		if instances[p], err = newInstance(p.Name, stableID("plugin", p.At), i+1, of, config); err != nil {
			return nil, err
		}
	}
	return instances, nil
}

// stableID makes the same UUID from the same name, as Kong does for entities of a declarative file.
func stableID(kind, name string) string {
	sum := sha256.Sum256([]byte(kind + ":" + name))
	return uuid.NewSHA1(uuid.NameSpaceOID, sum[:]).String()
}
