package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// errNoPeer says that every target of the upstream is sick.
var errNoPeer = errors.New("failure to get a peer from the ring-balancer")

// ServeHTTP finds the route, asks its plugin, and passes the request on.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target, ok := originForm(r)
	if !ok {
		refuse(w, http.StatusBadRequest, "Bad request")
		return
	}
	path, query, hasQuery := strings.Cut(target, "?")
	path, ok = normalize(path)
	if !ok || repeated(r.Header) {
		refuse(w, http.StatusBadRequest, "Bad request")
		return
	}
	place, upstreamPath := g.router.Match(r.Method, r.Host, path)
	if place < 0 || !utf8.ValidString(path) { // Kong's router compares text
		refuse(w, http.StatusNotFound, "no Route matched with those values")
		return
	}
	upstreamPath = escape(upstreamPath)
	rt := g.routes[place]
	address, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		address = r.RemoteAddr
	}
	dropUnderscores(r.Header)
	id := requestID()
	body := &requestBody{r: r}
	begin := func() *exchange {
		return &exchange{
			id: id, request: r, target: target, upstreamURI: upstreamPath, address: address, route: rt, body: body,
			upstream: r.Header.Clone(), response: http.Header{},
		}
	}
	if rt.outcome != nil {
		told := &answer{ResponseWriter: w}
		w = told
		defer func() { g.tell(r, rt, id, address, told) }()
	}
	var ex *exchange
	if rt.plugin == nil {
		ex = begin()
	} else {
		ex, err = g.client.run(r.Context(), "access", rt.plugin, begin)
		if errors.Is(err, errBody) {
			refuse(w, http.StatusBadRequest, "Bad request")
			return
		}
		if err != nil {
			g.log.ErrorContext(r.Context(), "plugin server error", "route", rt.spec.Name, "error", err)
			refuse(w, http.StatusInternalServerError, "An unexpected error occurred")
			return
		}
	}
	for name, values := range ex.response {
		w.Header()[name] = values
	}
	if ex.exit != nil {
		for name, values := range ex.exit.header {
			w.Header()[name] = values
		}
		w.WriteHeader(ex.exit.status)
		_, _ = w.Write(ex.exit.body) // the client is gone; there is nobody to tell
		return
	}
	if strings.HasPrefix(upstreamPath, "//") {
		refuse(w, http.StatusBadRequest, "Bad request") // net/http would take it for a host
		return
	}
	plainConnection(ex.upstream)
	r.Header = ex.upstream
	g.forward(w, r, ex, &url.URL{Scheme: "http", Host: "upstream", Opaque: upstreamPath, RawQuery: query, ForceQuery: hasQuery && query == ""})
}

func (g *Gateway) forward(w http.ResponseWriter, r *http.Request, ex *exchange, to *url.URL) {
	proxy := &httputil.ReverseProxy{
		Transport:     &balanced{gateway: g, service: ex.route.service},
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = to
			pr.Out.Host = ""
			if ex.route.spec.PreserveHost {
				pr.Out.Host = pr.In.Host
			}
			h := pr.Out.Header
			if prior := pr.In.Header.Values("X-Forwarded-For"); len(prior) > 0 {
				h.Set("X-Forwarded-For", strings.Join(prior, ", ")+", "+ex.address)
			} else {
				h.Set("X-Forwarded-For", ex.address)
			}
			h.Set("X-Forwarded-Proto", "http")
			h.Set("X-Forwarded-Host", pr.In.Host)
			h.Set("X-Forwarded-Path", ex.target)
			h.Set("X-Real-IP", ex.address)
			if _, ok := pr.In.Header["User-Agent"]; !ok {
				h.Set("User-Agent", "") // or net/http would invent one
			}
		},
		ModifyResponse: func(*http.Response) error {
			if a, told := w.(*answer); told {
				a.upstream = true
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				g.log.WarnContext(r.Context(), "upstream failed", "service", ex.route.service.spec.Name, "error", err)
			}
			var ne net.Error
			switch {
			case errors.Is(err, errBody):
				refuse(w, http.StatusBadRequest, "Bad request")
			case errors.Is(err, errNoPeer):
				refuse(w, http.StatusServiceUnavailable, errNoPeer.Error())
			case errors.As(err, &ne) && ne.Timeout():
				refuse(w, http.StatusGatewayTimeout, "The upstream server is timing out")
			default:
				refuse(w, http.StatusBadGateway, "An invalid response was received from the upstream server")
			}
		},
	}
	// Without this the server would read the whole request body before it sends the first byte of an answer.
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		g.log.DebugContext(r.Context(), "no full duplex", "error", err)
	}
	proxy.ServeHTTP(w, r)
}

// balanced sends a request to one target after the other: after a failed connection always, after a later failure only if
// the method is idempotent and no byte of a body was read.
type balanced struct {
	gateway *Gateway
	service *service
}

func (b *balanced) RoundTrip(r *http.Request) (*http.Response, error) {
	pool := b.service.pool
	body := &kept{ReadCloser: r.Body}
	if r.Body == nil || r.Body == http.NoBody {
		body = nil
	}
	var tried []*target
	var last error
	for range b.service.retries() + 1 {
		t := pool.next(tried)
		if t == nil {
			if last == nil {
				last = errNoPeer
			}
			break
		}
		tried = append(tried, t)
		resp, connected, err := b.try(r, t, body)
		if err == nil {
			pool.passive(t, answered, resp.StatusCode)
			return resp, nil
		}
		if body != nil && body.broken.Load() {
			return nil, errBody // says nothing of the target
		}
		if r.Context().Err() != nil {
			return nil, err
		}
		pool.passive(t, outcomeOf(err), 0)
		last = err
		if body != nil && body.read.Load() || connected && !idempotent(r.Method) {
			break
		}
	}
	return nil, last
}

func (b *balanced) try(r *http.Request, t *target, body *kept) (*http.Response, bool, error) {
	var connected atomic.Bool
	ctx, cancel := context.WithCancelCause(r.Context())
	ctx = context.WithValue(ctx, connectTimeout{}, time.Duration(b.service.spec.ConnectTimeout)*time.Millisecond)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	out := r.Clone(ctx)
	out.URL.Host = t.name
	if body != nil {
		out.Body = body
	}
	// read_timeout is the longest silence before the answer's header; a streamed body may take as long as it likes.
	limit := time.AfterFunc(time.Duration(b.service.spec.ReadTimeout)*time.Millisecond, func() { cancel(errSilent) })
	resp, err := b.gateway.transport.RoundTrip(out)
	limit.Stop()
	if err != nil {
		if errors.Is(context.Cause(ctx), errSilent) {
			err = errSilent
		}
		cancel(nil)
		return nil, connected.Load(), err
	}
	if up, ok := resp.Body.(io.ReadWriteCloser); ok { // an upgraded connection must stay writable
		resp.Body = &ending{ReadCloser: up, Writer: up, end: func() { cancel(nil) }}
	} else {
		resp.Body = &releasing{ReadCloser: resp.Body, end: func() { cancel(nil) }}
	}
	return resp, true, nil
}

// silence is the error of an upstream that does not answer in time.
type silence struct{}

func (silence) Error() string   { return "upstream did not answer in time" }
func (silence) Timeout() bool   { return true }
func (silence) Temporary() bool { return true }

var errSilent error = silence{}

// kept is a request body that survives a failed connection: closing it is left to the server.
type kept struct {
	io.ReadCloser
	read   atomic.Bool
	broken atomic.Bool // the client did not send what it announced
}

func (k *kept) Read(p []byte) (int, error) {
	k.read.Store(true)
	n, err := k.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		k.broken.Store(true)
	}
	return n, err
}

func (k *kept) Close() error { return nil }

// releasing frees the request's context at the end of its response body.
type releasing struct {
	io.ReadCloser
	end func()
}

func (r *releasing) Close() error {
	defer r.end()
	return r.ReadCloser.Close()
}

type ending struct {
	io.ReadCloser
	io.Writer
	end func()
}

func (e *ending) Close() error {
	defer e.end()
	return e.ReadCloser.Close()
}

// originForm answers path and query exactly as the client sent them, without scheme and authority.
func originForm(r *http.Request) (string, bool) {
	target := r.RequestURI
	if strings.HasPrefix(target, "/") {
		return target, true
	}
	_, rest, ok := strings.Cut(target, "://")
	if !ok {
		return "", false // "*" and CONNECT's authority
	}
	slash := strings.IndexAny(rest, "/?")
	switch {
	case slash < 0:
		return "/", true
	case rest[slash] == '?':
		return "/" + rest[slash:], true
	}
	return rest[slash:], true
}

// repeated reports whether a header stands there twice that nginx wants once.
func repeated(h http.Header) bool {
	for _, name := range [...]string{
		"Authorization", "Content-Range", "Expect", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "User-Agent",
	} {
		if len(h[name]) > 1 {
			return true
		}
	}
	return false
}

// dropUnderscores removes headers with an underscore in the name, as nginx does by default: many upstreams take
// X_Gatehouse_Subject for X-Gatehouse-Subject.
func dropUnderscores(h http.Header) {
	for name := range h {
		if strings.Contains(name, "_") {
			delete(h, name)
		}
	}
}

// plainConnection keeps "Connection: Upgrade" and nothing else. The proxy would drop every header that Connection names, and
// so a client could make it drop the identity that the plugin has set.
func plainConnection(h http.Header) {
	upgrade := false
	for _, v := range h.Values("Connection") {
		for token := range strings.SplitSeq(v, ",") {
			upgrade = upgrade || strings.EqualFold(strings.TrimSpace(token), "upgrade")
		}
	}
	h.Del("Connection")
	if upgrade {
		h.Set("Connection", "Upgrade")
	}
}

func idempotent(method string) bool {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete, http.MethodTrace:
		return true
	}
	return false
}

// refuse answers in Kong's own shape.
func refuse(w http.ResponseWriter, status int, message string) {
	id := requestID()
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-Kong-Request-Id", id)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message, "request_id": id}) // the client is gone; there is nobody to tell
}

// requestID makes an id of Kong's form.
func requestID() string { return strings.ReplaceAll(uuid.NewString(), "-", "") }
