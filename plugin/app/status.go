package app

import (
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/gatehouse-auth/gatehouse/internal/redisx"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/metrics"
)

// Status serves /healthz, /readyz, /metrics and the keys of assertions, for a private address (S69).
func (a *App) Status() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metrics.Handler(a.log))
	if a.asserter != nil {
		mux.HandleFunc("GET /.well-known/jwks.json", a.assertionKeys)
	}
	mux.Handle("/", web.Health(map[string]web.Check{
		"revocations": a.every(func(s *store) error { return s.revocations.Ready() }),
		"limits":      a.every(func(s *store) error { return s.limiter.Ready() }),
		"keys":        a.keysReady,
		"policy":      a.policyReady,
	}))
	return mux
}

// assertionKeys serves the keys by which upstreams check X-Gatehouse-Assertion.
func (a *App) assertionKeys(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "max-age=300")
	_, _ = w.Write(a.asserter.KeySet()) // the caller is gone; there is nobody to tell
}

// state is how the parts are, for a scrape. Nothing is asked while the lock is held: requests of new routes wait for it.
func (a *App) state() metrics.Parts {
	a.mu.Lock()
	stores, keys := maps.Clone(a.redis), maps.Clone(a.keys)
	askers := slices.Clone(a.askers)
	verifiers, pdps := slices.Collect(maps.Values(a.verifiers)), slices.Collect(maps.Values(a.pdps))
	a.mu.Unlock()
	var p metrics.Parts
	for address, s := range stores {
		p.Redis = append(p.Redis, metrics.Redis{
			Address: redisx.Shown(address), Up: s.limiter.Ready() == nil, Known: s.revocations.Known() == nil,
			Lag: s.revocations.Lag(), Revocations: s.revocations.Len(), Gaps: s.revocations.Gaps(), Limits: s.limiter.Stats(),
		})
	}
	sets := map[string]metrics.KeySet{} // the worst, where several are fetched from one place
	for from, k := range keys {
		age, loaded := k.Age()
		at := from.shown()
		if seen, twice := sets[at]; !twice || !loaded || seen.Loaded && age > seen.Age {
			sets[at] = metrics.KeySet{URL: at, Loaded: loaded, Age: age}
		}
	}
	p.KeySets = slices.Collect(maps.Values(sets))
	p.Caches = []metrics.Cache{{Name: "token"}, {Name: "introspection"}, {Name: "decision"}}
	for _, c := range askers {
		hits, misses := c.Counts()
		p.Caches = append(p.Caches, metrics.Cache{Name: "introspection", Hits: hits, Misses: misses})
	}
	bytes, _ := a.tokens.Used()
	badBytes, _ := a.badTokens.Used()
	p.TokenBytes = bytes + badBytes
	for _, v := range verifiers {
		hits, misses := v.Counts()
		p.Caches = append(p.Caches, metrics.Cache{Name: "token", Hits: hits, Misses: misses})
	}
	wells := map[string]bool{}
	for _, d := range pdps {
		for address, well := range d.client.Points() {
			seen, asked := wells[plainAddress(address)]
			wells[plainAddress(address)] = well && (seen || !asked)
		}
		if d.decisions != nil {
			hits, misses, _ := d.decisions.Counts()
			p.Caches = append(p.Caches, metrics.Cache{Name: "decision", Hits: hits, Misses: misses})
		}
	}
	for address, well := range wells {
		p.PDPs = append(p.PDPs, metrics.PDP{URL: address, Well: well})
	}
	return p
}

// plainAddress is the URL without what may be secret in it: user, password and query.
func plainAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "unreadable"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
