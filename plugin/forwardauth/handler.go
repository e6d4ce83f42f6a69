package forwardauth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/challenge"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// deadline bounds one check, far below what proxies wait.
const deadline = 5 * time.Second

// Options is what a Handler is made of.
type Options struct {
	Proxy         Proxy
	AddressHeader string         // in which the proxy tells the client's address; "" for the proxy's usual one
	Peers         []netip.Prefix // that may ask; empty where the listener lets nobody else in
	Routes        *Routes
	NewID         func() string // of a decision that no guard made
	Meter         guard.Meter   // told of those decisions; nil: nothing is counted
	Log           *slog.Logger
}

// Handler answers a proxy. It is made by New.
type Handler struct {
	Options
	words words
}

// New refuses a proxy that it does not know.
func New(o Options) (*Handler, error) {
	w, err := o.Proxy.words()
	if err != nil {
		return nil, err
	}
	if o.AddressHeader != "" {
		if o.Proxy == EnvoyGRPC {
			return nil, errors.New("client address: Envoy tells it without a header")
		}
		w.address = http.CanonicalHeaderKey(o.AddressHeader)
	}
	for _, header := range []string{w.method, w.uri, w.host} {
		if header != "" && header == w.address {
			return nil, fmt.Errorf("client address: %s is not for addresses", header)
		}
	}
	return &Handler{Options: o, words: w}, nil
}

// HTTP answers h with what every handler of ours has around it.
func (h *Handler) HTTP() http.Handler { return web.Trace(web.Recover(h.Log, h)) }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case !h.knows(r.RemoteAddr):
		answer(w, h.refuse(r.Context(), guard.Request{Method: r.Method}, errPeer))
	case h.Proxy == NGINX && path == RefusalPath:
		h.refusal(w, r)
	case h.Proxy == EnvoyGRPC && path == extauthz.Path:
		h.checkGRPC(w, r)
	case h.asksAt(path):
		h.check(w, r)
	case strings.HasPrefix(path, challenge.Assets):
		h.asset(w, r, path)
	default:
		answer(w, h.refuse(r.Context(), guard.Request{Method: r.Method}, errNowhere))
	}
}

var (
	errPeer    = fault.New(fault.Forbidden, "Only the proxy may ask.").Named("peer_unknown")
	errNowhere = fault.New(fault.NotFound, "There is nothing at this path for this proxy.").Named("not_found")
	errServed  = fault.New(fault.NotFound, "The proxy has to send this path to forward-auth without asking.").Named("not_found")
	errFailed  = fault.New(fault.Internal, "").Named("guard_failed")
)

// asset answers the script or the style of challenges. They are public, and a proxy has no way to take them from a check, for
// their 200 would be a pass; so it sends their path here without asking.
func (h *Handler) asset(w http.ResponseWriter, r *http.Request, path string) {
	v := guard.Asset(&guard.Request{Method: r.Method, Path: path})
	if v == nil {
		answer(w, h.refuse(r.Context(), guard.Request{Method: r.Method}, errNowhere))
		return
	}
	answer(w, *v)
}

func (h *Handler) knows(peer string) bool {
	if len(h.Peers) == 0 {
		return true
	}
	p, err := netip.ParseAddrPort(peer)
	if err != nil {
		return false
	}
	for _, network := range h.Peers {
		if network.Contains(p.Addr().Unmap()) {
			return true
		}
	}
	return false
}

// asksAt reports whether the path is where the proxy asks; Envoy has the original path behind it.
func (h *Handler) asksAt(path string) bool {
	switch h.Proxy {
	case Envoy:
		return strings.HasPrefix(path, CheckPath+"/")
	case EnvoyGRPC:
		return false
	default:
		return path == CheckPath
	}
}

func (h *Handler) check(w http.ResponseWriter, r *http.Request) {
	v := h.verdict(r.Context(), func() (guard.Request, error) { return h.words.read(r) })
	if v.Forward {
		h.allow(w, v)
		return
	}
	h.deny(w, v)
}

// verdict reads the original request and answers what its route's guard says of it.
func (h *Handler) verdict(ctx context.Context, read func() (guard.Request, error)) guard.Verdict {
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	r, err := read()
	if err != nil {
		return h.refuse(ctx, r, err)
	}
	g, err := h.Routes.find(&r)
	if err != nil {
		return h.refuse(ctx, r, err)
	}
	v := g.Check(ctx, r)
	if v.Served && v.Status < 300 {
		return h.refuse(ctx, r, errServed)
	}
	if !v.Forward && v.Status < 300 { // the proxy would take it for a pass
		return h.refuse(ctx, r, errFailed.Because(fmt.Errorf("neither forwarded nor denied: status %d", v.Status)))
	}
	if kept := r.Header["traceparent"]; v.Forward && v.SetHeaders["Traceparent"] == "" && len(kept) == 1 { // proxies overwrite it in any case
		v.SetHeaders["Traceparent"] = kept[0]
	}
	return v
}

// refuse is the denial where no guard has decided.
func (h *Handler) refuse(ctx context.Context, r guard.Request, err error) guard.Verdict {
	f, ok := fault.As(err)
	if !ok {
		f = errFailed.Because(err)
	}
	p := web.Problem(ctx, f)
	p.DecisionID = h.NewID()
	level := slog.LevelInfo
	switch f.Code {
	case fault.Invalid: // the proxy or the client; the operator has to see which
		level = slog.LevelWarn
	case fault.Internal:
		level = slog.LevelError
	}
	h.Log.Log(ctx, level, "request denied", "decision_id", p.DecisionID, "code", p.Code, "stage", "route", "route", r.Route, "method", r.Method,
		"path", r.Path, "address", r.Addr.String(), "trace_id", p.TraceID, "error", f)
	if h.Meter != nil {
		h.Meter.Decided(&guard.Decision{ID: p.DecisionID, Stage: "route", Code: p.Code, Route: r.Route, TraceID: p.TraceID})
	}
	return guard.Verdict{
		Status: p.Status, Body: p.JSON(),
		Header: map[string]string{"Content-Type": p.ContentType(""), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", principal.HeaderDecision: p.DecisionID},
	}
}
