package forwardauth

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/requestline"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// Proxy is what asks.
type Proxy string

// The proxies.
const (
	NGINX   Proxy = "nginx"   // auth_request, ngx_http_auth_request_module
	Traefik Proxy = "traefik" // the middleware ForwardAuth
	Caddy   Proxy = "caddy"   // the directive forward_auth
	Envoy   Proxy = "envoy"   // ext_authz with http_service

	EnvoyGRPC Proxy = "envoy-grpc" // ext_authz with grpc_service; HTTP/2 without TLS
)

// CheckPath is where proxies ask. Envoy has the original path behind it.
const CheckPath = "/check"

// words are the headers in which a proxy tells of the original request; "" for what it sends as its own request's.
type words struct {
	method, uri, host string
	address           string // of the client, unless configured otherwise
}

func (p Proxy) words() (words, error) {
	switch p {
	case NGINX: // by the lines of deploy/nginx.conf
		return words{"X-Original-Method", "X-Original-Uri", "X-Original-Host", "X-Real-Ip"}, nil
	case Traefik, Caddy:
		return words{"X-Forwarded-Method", "X-Forwarded-Uri", "X-Forwarded-Host", "X-Forwarded-For"}, nil
	case Envoy:
		return words{"", "", "", "X-Forwarded-For"}, nil
	case EnvoyGRPC: // its message says all
		return words{}, nil
	default:
		return words{}, fmt.Errorf("proxy %q: expected nginx, traefik, caddy, envoy or envoy-grpc", string(p))
	}
}

// errWords is for the operator: its cause names the header that the proxy has to set.
var errWords = fault.New(fault.Invalid, "The request cannot be read.").Named("bad_request")

func unreadable(format string, args ...any) error {
	return errWords.Because(fmt.Errorf(format, args...))
}

// read answers the original request. The proxy's own headers are no longer among the request's.
func (w words) read(r *http.Request) (guard.Request, error) {
	out := guard.Request{Method: r.Method, Host: r.Host, Header: make(map[string][]string, len(r.Header)+1)}
	uri := strings.TrimPrefix(r.RequestURI, CheckPath)
	for _, told := range []struct {
		header string
		to     *string
	}{{w.method, &out.Method}, {w.host, &out.Host}, {w.uri, &uri}} {
		if told.header == "" {
			continue
		}
		values := r.Header[told.header]
		if len(values) != 1 || values[0] == "" {
			return out, unreadable("the proxy sent %s %d times", told.header, len(values))
		}
		*told.to = values[0]
	}
	var err error
	if out.Addr, err = lastAddress(r.Header[w.address]); err != nil {
		return out, unreadable("%s: %w", w.address, err)
	}
	for name, values := range r.Header {
		if name != w.method && name != w.host && name != w.uri && name != w.address {
			lower := strings.ToLower(name)
			out.Header[lower] = append(out.Header[lower], values...)
		}
	}
	return out, complete(&out, uri)
}

// complete checks the method and the host, and cuts the target.
func complete(r *guard.Request, target string) error {
	if !requestline.Method(r.Method) {
		return unreadable("the method is malformed")
	}
	if !requestline.Host(r.Host) {
		return unreadable("the host is malformed")
	}
	var err error
	if r.Path, r.Query, err = requestline.OriginForm(target); err != nil {
		return errWords.Because(err)
	}
	r.Header["host"] = []string{r.Host}
	return nil
}

// lastAddress answers the address that the proxy itself wrote: the last one. Those before it are what the proxy was told (S15).
func lastAddress(values []string) (netip.Addr, error) {
	if len(values) != 1 {
		return netip.Addr{}, fmt.Errorf("sent %d times", len(values))
	}
	last := values[0]
	if i := strings.LastIndexByte(last, ','); i >= 0 {
		last = last[i+1:]
	}
	a, err := netip.ParseAddr(strings.TrimSpace(last))
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("not an address")
	}
	return a.Unmap(), nil
}
