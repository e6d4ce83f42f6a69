package stack

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// remembered is how many denials Why knows, the newest.
const remembered = 2000

// decisions picks out of the log why requests were denied.
type decisions struct {
	mu    sync.Mutex
	why   map[string]string
	order []string // decision ids, oldest first
}

func newDecisions() *decisions { return &decisions{why: map[string]string{}} }

func (d *decisions) find(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.why[id]
}

// watch answers a handler that hands every record on to next, and remembers those that have a decision id.
func (d *decisions) watch(next slog.Handler) slog.Handler { return watcher{next, d} }

type watcher struct {
	slog.Handler
	to *decisions
}

// Enabled is true for all: what next leaves out may still tell why.
func (w watcher) Enabled(context.Context, slog.Level) bool { return true }

func (w watcher) Handle(ctx context.Context, r slog.Record) error {
	id, why := "", ""
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "decision_id":
			id = a.Value.String()
		case "reasons":
			if reasons, ok := a.Value.Any().([]string); ok {
				why = strings.Join(reasons, ", ")
			}
		}
		return true
	})
	if id != "" && why != "" {
		w.to.keep(id, why)
	}
	if !w.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return w.Handler.Handle(ctx, r)
}

func (w watcher) WithAttrs(attrs []slog.Attr) slog.Handler {
	return watcher{w.Handler.WithAttrs(attrs), w.to}
}

func (w watcher) WithGroup(name string) slog.Handler { return watcher{w.Handler.WithGroup(name), w.to} }

func (d *decisions) keep(id, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, known := d.why[id]; !known {
		d.order = append(d.order, id)
	}
	d.why[id] = why
	if len(d.order) > remembered {
		delete(d.why, d.order[0])
		d.order = d.order[1:]
	}
}
