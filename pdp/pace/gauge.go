package pace

import "sync"

// Gauge adds up what is asked of several who answer in one process, so that each gives way to all. Its zero is ready.
type Gauge struct {
	mu sync.Mutex
	of map[*func() uint64]struct{}

	gone uint64 // what those were asked that have left, so that the sum never goes back
}

// Join adds one who answers, until leave is called.
func (g *Gauge) Join(asked func() uint64) (leave func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.of == nil {
		g.of = map[*func() uint64]struct{}{}
	}
	at := &asked
	g.of[at] = struct{}{}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if _, there := g.of[at]; there {
			g.gone += asked()
			delete(g.of, at)
		}
	}
}

// Asked is how much has been asked of all.
func (g *Gauge) Asked() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	sum := g.gone
	for asked := range g.of {
		sum += (*asked)()
	}
	return sum
}
