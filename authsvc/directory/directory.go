// Package directory tells decision points who has which roles, groups and attributes: it is the sending side of
// pdp/directory/feed. It reads only; package role changes.
package directory

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// ErrGone is a Store's answer to a reader that cannot go on from where it is and has to begin again with a snapshot.
var ErrGone = errors.New("begin again with a snapshot")

// Store reads what is administered. storetest.Run is its contract.
type Store interface {
	// At answers epoch and revision; its At is zero.
	At(ctx context.Context) (feed.Begin, error)
	// Changes answers at most limit lines, each a feed.Line, of the changes with a revision above since in their order, and the
	// revision of the last of them, or the present one if there are none. It answers ErrGone if the epoch is another, the reader is
	// ahead of the data, or what it has missed is not kept any more.
	Changes(ctx context.Context, epoch string, since uint64, limit int) (feed.Begin, []json.RawMessage, error)
	// Snapshot tells line all roles and all subjects as they are at one moment, after telling begin which that is. It ends with the
	// first error of either.
	Snapshot(ctx context.Context, begin func(feed.Begin) error, line func(feed.Line) error) error
	// Changed answers a channel that is closed when this process has committed the next change.
	Changed() <-chan struct{}
}

const (
	maxLines     = 10_000 // of changes, in one answer
	maxSnapshots = 4      // at once: each holds a connection of the database
	// patience is how long the other side may take to read a part of an answer.
	patience = 30 * time.Second
	// poll is how often somebody who waits looks for what another process has committed.
	poll = 250 * time.Millisecond
)

// Options are the parts behind the feed.
type Options struct {
	Store Store
	// Identify answers which decision point asks, or why it may not.
	Identify func(*http.Request) (string, error)
	Poll     time.Duration // 0 for 250 ms
	Now      func() time.Time
	Log      *slog.Logger
}

type handler struct {
	Options
	snapshots chan struct{}
}

// New makes the handler of the feed.
func New(o Options) http.Handler {
	if o.Poll == 0 {
		o.Poll = poll
	}
	h := &handler{o, make(chan struct{}, maxSnapshots)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+feed.SnapshotPath, h.snapshot)
	mux.HandleFunc("GET "+feed.ChangesPath, h.changes)
	health := web.Health(map[string]web.Check{"database": func(ctx context.Context) error {
		_, err := o.Store.At(ctx)
		return err
	}})
	open := web.Mux(mux)
	known := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := o.Identify(r); err != nil {
			web.WriteProblem(w, web.Problem(r.Context(), err))
			return
		}
		open.ServeHTTP(w, r)
	})
	all := http.NewServeMux()
	all.Handle("GET /healthz", health)
	all.Handle("GET /readyz", health)
	all.Handle("/", known)
	chain := web.LimitBody(0, all)
	chain = web.SecurityHeaders(chain)
	chain = web.Recover(o.Log, chain)
	chain = web.Log(o.Log, chain)
	return web.Trace(chain)
}

var (
	errQuery = fault.New(fault.Invalid, "Expected epoch, since and, if it is to wait, wait in seconds.").Named("invalid_query")
	errBusy  = fault.New(fault.Unavailable, "Too many snapshots at once; ask again.").Named("overloaded")
)

// query reads epoch, since and wait; more than feed.MaxWait is that.
func query(r *http.Request) (epoch string, since uint64, wait time.Duration, err error) {
	q := r.URL.Query()
	since, err = strconv.ParseUint(q.Get("since"), 10, 63)
	if err != nil || len(q["since"]) != 1 || len(q["epoch"]) != 1 || len(q["wait"]) > 1 || q.Get("epoch") == "" {
		return "", 0, 0, errQuery
	}
	if q.Has("wait") {
		seconds, err := strconv.ParseUint(q.Get("wait"), 10, 31)
		if err != nil {
			return "", 0, 0, errQuery
		}
		wait = min(time.Duration(seconds)*time.Second, feed.MaxWait)
	}
	return q.Get("epoch"), since, wait, nil
}

func (h *handler) changes(w http.ResponseWriter, r *http.Request) {
	epoch, since, wait, err := query(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	// The server's own deadline is for answers that come at once.
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(wait + patience)); err != nil {
		h.fail(w, r, err)
		return
	}
	begin, lines, err := h.await(r.Context(), epoch, since, wait)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	out := h.writer(w)
	begin.At = h.Now().UTC()
	if out.line(feed.Line{Begin: &begin}) != nil {
		return
	}
	for _, l := range lines {
		if out.raw(l) != nil {
			return
		}
	}
	_ = out.end(len(lines)) // the reader is gone; there is nobody to tell
}

// await answers changes as soon as there are any, and none when the time is over or the reader has hung up.
func (h *handler) await(ctx context.Context, epoch string, since uint64, wait time.Duration) (feed.Begin, []json.RawMessage, error) {
	over := time.NewTimer(wait)
	defer over.Stop()
	tick := time.NewTicker(h.Poll)
	defer tick.Stop()
	for {
		changed := h.Store.Changed() // before looking, so that nothing is committed in between unheard
		begin, lines, err := h.Store.Changes(ctx, epoch, since, maxLines)
		if err != nil || len(lines) > 0 || wait == 0 {
			return begin, lines, err
		}
		if moved := h.sleep(ctx, begin, changed, tick.C, over.C); !moved {
			return begin, nil, nil
		}
	}
}

// sleep returns true when the data is no longer at begin, and false when waiting is over. While it is, only the revision is looked at.
func (h *handler) sleep(ctx context.Context, begin feed.Begin, changed <-chan struct{}, tick, over <-chan time.Time) bool {
	for {
		select {
		case <-changed:
			return true
		case <-tick:
			// An error is for the caller, who asks for more than this, to meet again.
			if now, err := h.Store.At(ctx); err != nil || now.Epoch != begin.Epoch || now.Revision != begin.Revision {
				return true
			}
		case <-over:
			return false
		case <-ctx.Done():
			return false
		}
	}
}

func (h *handler) snapshot(w http.ResponseWriter, r *http.Request) {
	select {
	case h.snapshots <- struct{}{}:
		defer func() { <-h.snapshots }()
	default:
		w.Header().Set("Retry-After", "1")
		h.fail(w, r, errBusy)
		return
	}
	out := h.writer(w)
	n := 0
	err := h.Store.Snapshot(r.Context(),
		func(b feed.Begin) error {
			b.At = h.Now().UTC()
			return out.line(feed.Line{Begin: &b})
		},
		func(l feed.Line) error {
			n++
			return out.line(l)
		})
	switch {
	case err == nil:
		_ = out.end(n) // the reader is gone; there is nobody to tell
	case !out.begun:
		h.fail(w, r, err)
	default: // cut short: without its End it counts for nothing
		if r.Context().Err() == nil {
			h.Log.WarnContext(r.Context(), "snapshot cut short", "trace_id", web.TraceID(r.Context()), "error", err)
		}
		panic(http.ErrAbortHandler)
	}
}

// fail answers an error: 410 for a reader that has to begin again.
func (h *handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, ErrGone) {
		web.WriteProblem(w, web.NewProblem(web.TraceID(r.Context()), http.StatusGone, "directory_gone",
			"The changes since then are not kept, or of another epoch: begin again with a snapshot."))
		return
	}
	p := web.Problem(r.Context(), err)
	if p.Status >= http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		h.Log.ErrorContext(r.Context(), "request failed on our side", "trace_id", p.TraceID, "code", p.Code, "error", err)
	}
	web.WriteProblem(w, p)
}
