// Package toxic puts a network that fails on command between a test and a server: a toxiproxy in process.
package toxic

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy passes connections on as its toxics let it.
type Proxy struct {
	t     testing.TB
	proxy *toxiproxy.Proxy
}

// New starts a proxy to target (host:port) that ends with the test.
func New(t testing.TB, target string) *Proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{t, toxiproxy.NewProxy(server, "redis", "127.0.0.1:0", target)}
	p.Join()
	t.Cleanup(p.proxy.Stop)
	return p
}

// Address is where the proxy listens, host:port; it stays the same when the network is cut and joined.
func (p *Proxy) Address() string { return p.proxy.Listen }

// Through answers a redis:// URL that leads through the proxy to the same database. The proxy must lead to the URL's host.
func (p *Proxy) Through(redis string) string {
	u, err := url.Parse(redis)
	if err != nil {
		p.t.Fatal(err)
	}
	u.Host = p.Address()
	return u.String()
}

// Cut closes all connections, and lets none in until Join.
func (p *Proxy) Cut() { p.proxy.Stop() }

// Join lets connections in.
func (p *Proxy) Join() {
	p.t.Helper()
	if err := p.proxy.Start(); err != nil {
		p.t.Fatalf("start the proxy: %v", err)
	}
}

// Add lets the network suffer from a toxic of toxiproxy's, such as "timeout" with {"timeout": 0}: connections stay open and
// carry nothing more.
func (p *Proxy) Add(kind string, attributes map[string]any) {
	p.t.Helper()
	p.add(kind, "downstream", attributes)
}

// Partition lets connections open, and nothing through either way, until Heal, which ends them.
func (p *Proxy) Partition() {
	p.t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		p.add("timeout", way, map[string]any{"timeout": 0})
	}
}

func (p *Proxy) add(kind, way string, attributes map[string]any) {
	p.t.Helper()
	text, err := json.Marshal(map[string]any{"name": kind + "_" + way, "type": kind, "stream": way, "attributes": attributes})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(string(text))); err != nil {
		p.t.Fatalf("add %s: %v", kind, err)
	}
}

// Heal removes all toxics.
func (p *Proxy) Heal() { p.proxy.Toxics.ResetToxics(context.Background()) }

// Leaks names toxiproxy's function that may be left waiting for ever where a connection ends while a toxic changes: for
// goleak.IgnoreAnyFunction.
const Leaks = "github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"
