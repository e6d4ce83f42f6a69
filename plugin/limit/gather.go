package limit

import (
	"errors"
	"sync"
)

const (
	// flights is how many batches may be under way at once. More would be smaller ones.
	flights = 1
	// maxBatch bounds a batch, so that its first does not wait for too many others' scripts.
	maxBatch = 64
)

// errUncounted is the error of a request whose batch came to no end.
var errUncounted = errors.New("limits: not counted")

// taking is one request on its way to be counted.
type taking struct {
	id   string
	keys []Key
	out  outcome
	err  error
	turn chan []*taking // the batch that it is to send for all, or nil when it is done
}

// gather sends what several requests ask at one time in one write: while batches are under way the next gathers. A request that
// comes alone goes at once. No goroutine stands behind it: of those that wait, one sends for all.
type gather struct {
	send func(batch []*taking) // sets out and err of each

	mu      sync.Mutex
	waiting []*taking // none while a flight is free
	flying  int
}

// do returns when t is counted.
func (g *gather) do(t *taking) {
	t.err = errUncounted
	batch := []*taking{t}
	g.mu.Lock()
	if g.flying < flights {
		g.flying++
		g.mu.Unlock()
	} else {
		t.turn = make(chan []*taking, 1)
		g.waiting = append(g.waiting, t)
		g.mu.Unlock()
		if batch = <-t.turn; batch == nil {
			return
		}
	}
	defer g.land(batch)
	g.send(batch)
}

// land tells a batch that it is done, and has the first of those that wait send the next. The first of a batch is its sender.
func (g *gather) land(batch []*taking) {
	for _, t := range batch[1:] {
		t.turn <- nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == 0 {
		g.flying--
		return
	}
	n := min(len(g.waiting), maxBatch)
	next := g.waiting[:n:n]
	if g.waiting = g.waiting[n:]; len(g.waiting) == 0 {
		g.waiting = nil
	}
	next[0].turn <- next
}
