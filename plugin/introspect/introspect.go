// Package introspect asks a token's issuer who it stands for and whether it is alive (RFC 7662): for opaque tokens, and for
// others while it is not known which sessions have ended. It refuses what it cannot find out. An answer is remembered for
// some seconds, a bad one too, and never beyond the token's expiry; however many requests bear a token, one of them asks.
package introspect

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/jose"
	"github.com/gatehouse-auth/gatehouse/internal/principal"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/plugin/remember"
)

// Options of a Client.
type Options struct {
	URL          string           // the issuer's introspection endpoint
	ClientID     string           // by which the edge authenticates there (RFC 6749 section 2.3.1, HTTP Basic)
	ClientSecret telemetry.Secret //
	Policy       jose.Policy      // what an answer must be like
	Timeout      time.Duration    // of one question
	Remember     time.Duration    // how long an answer is good at most; 0 is for its own request alone
	Egress       egress.Options   // without Origin and Timeout
	Good, Bad    *remember.Cache  // of those alive, and of those not; a flood of the bad must not push out the good
	Now          func() time.Time
}

const (
	maxToken    = 8 << 10  // bytes (S32)
	maxAnswer   = 64 << 10 // bytes
	maxFlights  = 256      // questions at the same moment, those that wait for a connection too
	connections = 16
	badFor      = 10 * time.Second // how long a bad answer is good at most
	withoutExp  = time.Minute      // the life of a principal whose answer names no expiry
)

// ErrUnavailable says that the issuer could not be asked.
var ErrUnavailable = fault.New(fault.Unavailable, "The token's issuer cannot be asked at the moment; try again later.").Named("introspection_unavailable")

var errMalformed = fault.New(fault.Unauthenticated, "The token is not valid.").Named("token_invalid").Because(errors.New("no token of RFC 6750 section 2.1, or too long"))

// Client asks one issuer. It is safe for concurrent use.
type Client struct {
	o         Options
	http      *egress.Client
	good, bad *remember.Owner

	hits, misses atomic.Uint64

	mu      sync.Mutex
	flights map[remember.Sum]*flight
}

// flight is one question, for all who wait for its answer. who and err are there once done is closed.
type flight struct {
	done chan struct{}
	who  principal.Principal
	err  error
}

// answer is what is remembered.
type answer struct {
	who   principal.Principal
	err   error
	until time.Time
}

// New makes a client. It does not ask anybody yet.
func New(o Options) (*Client, error) {
	switch {
	case o.ClientID == "" || o.ClientSecret == "":
		return nil, errors.New("client_id and client_secret are needed")
	case o.Timeout <= 0 || o.Remember < 0:
		return nil, errors.New("times are above zero")
	}
	o.Egress.Origin, o.Egress.Timeout, o.Egress.Connections = o.URL, o.Timeout, connections
	client, err := egress.New(o.Egress)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return &Client{o: o, http: client, good: o.Good.Owner(), bad: o.Bad.Owner(), flights: map[remember.Sum]*flight{}}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.Close() }

// Counts answers how many answers were remembered, and how many were asked for.
func (c *Client) Counts() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }

// Ask answers who the token stands for. Its failures are fault.Unauthenticated, or ErrUnavailable.
func (c *Client) Ask(ctx context.Context, token string) (principal.Principal, error) {
	if !wellFormed(token) {
		return principal.Principal{}, errMalformed
	}
	sum := remember.SumOf(token)
	if a, ok := c.remembered(sum); ok {
		c.hits.Add(1)
		return a.who, a.err
	}
	c.misses.Add(1)
	f := c.join(ctx, sum, token)
	if f == nil {
		return principal.Principal{}, ErrUnavailable.Because(errors.New("too many questions at once"))
	}
	select {
	case <-f.done:
		return f.who, f.err
	case <-ctx.Done():
		return principal.Principal{}, ErrUnavailable.Because(ctx.Err())
	}
}

// wellFormed reports whether the token is one that a Bearer header may carry (RFC 6750 section 2.1), so that it can mean
// nothing else to the issuer.
func wellFormed(token string) bool {
	body := strings.TrimRight(token, "=")
	return body != "" && len(token) <= maxToken && strings.Trim(body, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~+/") == ""
}

func (c *Client) remembered(sum remember.Sum) (*answer, bool) {
	for _, o := range []*remember.Owner{c.good, c.bad} {
		if v, ok := o.Get(sum); ok {
			if a, is := v.(*answer); is && c.o.Now().Before(a.until) {
				return a, true
			}
		}
	}
	return nil, false
}

// join answers the flight that asks for the token: the one under way or a new one, or nil if there are too many.
func (c *Client) join(ctx context.Context, sum remember.Sum, token string) *flight {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[sum]; f != nil {
		return f
	}
	if len(c.flights) >= maxFlights {
		return nil
	}
	f := &flight{done: make(chan struct{})}
	c.flights[sum] = f
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.o.Timeout) // no single request's end may cut what others wait for
	go func() {
		defer cancel()
		defer close(f.done)
		f.who, f.err = c.find(ctx, token)
		c.keep(sum, f)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.flights, sum)
	}()
	return f
}

// find asks, and reads the answer.
func (c *Client) find(ctx context.Context, token string) (who principal.Principal, err error) {
	defer func() {
		if p := recover(); p != nil { // whatever an issuer sends ends neither the process nor those who wait
			who, err = principal.Principal{}, ErrUnavailable.Because(fmt.Errorf("panic: %v", p))
		}
	}()
	body, err := c.post(ctx, token)
	if err != nil {
		return principal.Principal{}, ErrUnavailable.Because(err)
	}
	who, err = jose.Introspected(body, c.o.Policy, withoutExp)
	if err != nil && fault.CodeOf(err) != fault.Unauthenticated {
		return principal.Principal{}, ErrUnavailable.Because(err)
	}
	return who, err
}

func (c *Client) post(ctx context.Context, token string) ([]byte, error) {
	form := url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.o.URL, strings.NewReader(form))
	if err != nil {
		return nil, errors.New("not a URL")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	r.SetBasicAuth(url.QueryEscape(c.o.ClientID), url.QueryEscape(c.o.ClientSecret.Reveal()))
	status, _, body, err := c.http.Do(r, maxAnswer)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d", status)
	}
	return body, nil
}

// keep remembers what was answered; that nobody answered is not remembered.
func (c *Client) keep(sum remember.Sum, f *flight) {
	now := c.o.Now()
	a := &answer{who: f.who, err: f.err, until: now.Add(c.o.Remember)}
	switch {
	case c.o.Remember == 0:
	case f.err == nil:
		if f.who.ExpiresAt.Before(a.until) {
			a.until = f.who.ExpiresAt
		}
		c.good.Put(sum, a, remember.SizeOf(&a.who)+64)
	case fault.CodeOf(f.err) == fault.Unauthenticated:
		if latest := now.Add(badFor); latest.Before(a.until) {
			a.until = latest
		}
		a.who = principal.Principal{}
		c.bad.Put(sum, a, 1024)
	}
}
