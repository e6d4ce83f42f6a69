// Package egress is how the programs fetch what somebody else serves: key sets, metadata, answers of an issuer. It refuses
// what a configuration or a foreign document could be made to point at (S64): plain http to other machines, private and
// special addresses, redirects, endless bodies and endless waits. Addresses are checked when they are dialled, after the
// name has been resolved, so that a name which answers differently the second time (DNS rebinding) gains nothing.
package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Options say what a Client may reach.
type Options struct {
	// Origin is a URL that an operator wrote. Where its host is this machine (localhost, 127.0.0.0/8 or ::1, by that very
	// name), the client may reach this machine, by plain http too; else it never may, whatever a document says.
	Origin string
	// AllowPrivate lets it reach private addresses (RFC 1918, RFC 4193, RFC 6598).
	AllowPrivate bool
	// AllowHTTP lets it speak plain http to private addresses; it needs AllowPrivate.
	AllowHTTP bool
	// Timeout bounds one exchange, from the look-up of the name to the last byte of the body. 0 is 5 seconds.
	Timeout time.Duration
	// Resolver looks names up; nil is the system's.
	Resolver *net.Resolver
	// Connections bounds the connections to one host; 0 is 2.
	Connections int
}

const (
	defaultTimeout     = 5 * time.Second
	defaultConnections = 2
)

// ErrRefused is in the chain of every error by which a Client refused to go where it was sent.
var ErrRefused = errors.New("address is not allowed")

// Client fetches within its Options. It is safe for concurrent use.
type Client struct {
	loopback, private, plain bool
	https, http              *http.Client
}

// New makes a client. It fails if Origin is no URL that the client could fetch.
func New(o Options) (*Client, error) {
	if o.AllowHTTP && !o.AllowPrivate {
		return nil, errors.New("plain http is for private addresses, which are not allowed")
	}
	u, err := url.Parse(o.Origin)
	if err != nil || u.Host == "" {
		return nil, errors.New("not a URL")
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if o.Connections <= 0 {
		o.Connections = defaultConnections
	}
	c := &Client{loopback: IsLoopback(u.Hostname()), private: o.AllowPrivate, plain: o.AllowHTTP}
	c.https, c.http = c.client(o, false), c.client(o, true)
	return c, c.Check(o.Origin)
}

func (c *Client) client(o Options, plain bool) *http.Client {
	dialer := &net.Dialer{Timeout: o.Timeout, Resolver: o.Resolver, ControlContext: c.control(plain)}
	return &http.Client{
		Timeout: o.Timeout,
		Transport: &http.Transport{ // no proxy: it would dial in our place
			DialContext: dialer.DialContext, TLSHandshakeTimeout: o.Timeout, IdleConnTimeout: 30 * time.Second,
			MaxConnsPerHost: o.Connections, MaxIdleConnsPerHost: o.Connections, MaxResponseHeaderBytes: 32 << 10, ForceAttemptHTTP2: true,
			DisableCompression: true, // a small body cannot unfold into a large one
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Check answers whether the client may be sent to the URL, as far as its text tells; what the host's name stands for is
// seen when it is dialled.
func (c *Client) Check(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" {
		return errors.New("not an https URL")
	}
	switch {
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("not an https URL")
	case c.loopback && IsLoopback(u.Hostname()), c.plain:
		return nil
	}
	return errors.New("plain http is for this machine alone")
}

// Do sends r and answers the status and the body, which is at most limit bytes. A longer body is an error.
func (c *Client) Do(r *http.Request, limit int64) (status int, header http.Header, body []byte, err error) {
	if err := c.Check(r.URL.String()); err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	client := c.https
	if r.URL.Scheme == "http" {
		client = c.http
	}
	res, err := client.Do(r)
	if err != nil {
		return 0, nil, nil, withoutURL(err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return 0, nil, nil, withoutURL(err)
	}
	if int64(len(body)) > limit {
		return 0, nil, nil, fmt.Errorf("body is larger than %d bytes", limit)
	}
	return res.StatusCode, res.Header, body, nil
}

// Get fetches a body of status 200.
func (c *Client) Get(ctx context.Context, address, accept string, limit int64) (http.Header, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, errors.New("not a URL")
	}
	r.Header.Set("Accept", accept)
	status, header, body, err := c.Do(r, limit)
	if err != nil {
		return nil, nil, err
	}
	if status != http.StatusOK {
		return nil, nil, fmt.Errorf("status %d", status)
	}
	return header, body, nil
}

// Close drops idle connections.
func (c *Client) Close() {
	c.https.CloseIdleConnections()
	c.http.CloseIdleConnections()
}

// withoutURL drops the URL from an error of net/http: its query may hold what no log should.
func withoutURL(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// control checks the address that is about to be dialled.
func (c *Client) control(plain bool) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("%w: %q", ErrRefused, address)
		}
		ip := at.Addr().WithZone("").Unmap()
		switch {
		case ip.IsLoopback():
			if c.loopback {
				return nil
			}
		case isPrivate(ip):
			if c.private && (!plain || c.plain) {
				return nil
			}
		case isPublic(ip):
			if !plain {
				return nil
			}
		}
		return fmt.Errorf("%w: %s", ErrRefused, ip)
	}
}

// IsLoopback reports whether a URL's host names this machine as it is written.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

func isPrivate(ip netip.Addr) bool {
	return ip.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(ip)
}

// special are networks that net/netip has no name for and where nobody's issuer is: RFC 6890, RFC 8215, RFC 3056, RFC 6052. The
// last two carry an IPv4 address, so that a private one could hide in them.
func special() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("192.0.2.0/24"),
		netip.MustParsePrefix("192.88.99.0/24"), netip.MustParsePrefix("198.18.0.0/15"), netip.MustParsePrefix("198.51.100.0/24"),
		netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("240.0.0.0/4"), netip.MustParsePrefix("::/96"),
		netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
		netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
	}
}

func isPublic(ip netip.Addr) bool {
	if !ip.IsGlobalUnicast() || isPrivate(ip) || ip.IsLoopback() {
		return false
	}
	for _, p := range special() {
		if p.Contains(ip) {
			return false
		}
	}
	return true
}
