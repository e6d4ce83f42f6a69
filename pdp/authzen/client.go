package authzen

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/onejson"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 20

// Client asks one decision point. It is safe for concurrent use.
type Client struct {
	base    string
	timeout time.Duration
	http    *http.Client
	bearer  string // the Authorization header, or ""
	trace   func(context.Context) string
}

// Option is how a client shows who it is, and whom it believes.
type Option func(*Client, *http.Transport)

// WithToken brings a token (RFC 6750) with every evaluation; "" brings none.
func WithToken(token string) Option {
	return func(c *Client, _ *http.Transport) {
		if token != "" {
			c.bearer = "Bearer " + token
		}
	}
}

// WithTLS sets what an https base is verified by, and the certificate that is shown to it.
func WithTLS(config *tls.Config) Option {
	return func(_ *Client, t *http.Transport) { t.TLSClientConfig = config }
}

// WithTraceparent brings a traceparent (W3C Trace Context) with every evaluation, what of makes of its context; "" or a nil of
// brings none.
func WithTraceparent(of func(context.Context) string) Option {
	return func(c *Client, _ *http.Transport) { c.trace = of }
}

// NewClient makes a client for base: http://host:port, https://host:port, or unix:///path/to/socket. The timeout bounds
// each evaluation, connecting included.
func NewClient(base string, timeout time.Duration, opts ...Option) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("decision point: not a URL")
	}
	dialer := &net.Dialer{Timeout: timeout}
	transport := &http.Transport{
		DialContext:         dialer.DialContext,
		MaxIdleConns:        64,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
	switch u.Scheme {
	case "http", "https":
		if u.Host == "" {
			return nil, errors.New("decision point: URL has no host")
		}
	case "unix":
		if u.Path == "" {
			return nil, errors.New("decision point: unix URL has no path")
		}
		socket := u.Path
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
		base = "http://pdp"
	default:
		return nil, errors.New("decision point: URL must be http, https or unix")
	}
	c := &Client{
		base:    strings.TrimRight(base, "/"),
		timeout: timeout,
		http: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	for _, o := range opts {
		o(c, transport)
	}
	return c, nil
}

// Evaluate asks for one decision. Any answer that is not a whole, well-formed decision is an error; the caller must deny.
func (c *Client) Evaluate(ctx context.Context, r Request) (Response, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Response{}, fmt.Errorf("encode evaluation: %w", err)
	}
	answer, err := c.ask(ctx, Path, r, body)
	if err != nil {
		return Response{}, err
	}
	return parse(answer)
}

// ask posts a body, and answers that of a 200. r is what it is about.
func (c *Client) ask(ctx context.Context, path string, r Request, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask decision point: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.bearer != "" {
		req.Header.Set("Authorization", c.bearer)
	}
	if id, ok := r.Context["request_id"].(string); ok {
		req.Header.Set("X-Request-ID", id)
	}
	if c.trace != nil {
		if header := c.trace(ctx); header != "" {
			req.Header.Set("Traceparent", header)
		}
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask decision point: %w", err)
	}
	defer res.Body.Close()
	return read(res)
}

// MetadataPath is where a decision point describes itself (AuthZEN section 9).
const MetadataPath = "/.well-known/authzen-configuration"

// Ready asks whether the decision point is there, without asking for a decision.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+MetadataPath, nil)
	if err != nil {
		return fmt.Errorf("ask decision point: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask decision point: %w", err)
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)); err != nil { // so that the connection is kept
		return fmt.Errorf("ask decision point: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("decision point answered status %d", res.StatusCode)
	}
	return nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func read(res *http.Response) ([]byte, error) {
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("read decision: %w", err)
	}
	if len(answer) > maxAnswer {
		return nil, errors.New("read decision: answer too large")
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("decision point answered status %d", res.StatusCode)
	}
	if mt, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || mt != "application/json" {
		return nil, errors.New("decision point answered another media type than application/json")
	}
	return answer, nil
}

// parse insists on a decision member by this very name, and on text with one reading: an empty object is no denial and two
// decisions are no allowance, they are nonsense. encoding/json alone would take the last of several, and "DECISION" as well.
func parse(answer []byte) (Response, error) {
	if err := onejson.Check(answer); err != nil {
		return Response{}, fmt.Errorf("decision point answered malformed JSON: %w", err)
	}
	return decode(answer)
}

// decode reads one decision out of text that has one reading.
func decode(answer []byte) (Response, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(answer, &members); err != nil {
		return Response{}, errors.New("decision point answered no object")
	}
	var r Response
	switch string(members["decision"]) {
	case "true":
		r.Decision = true
	case "false":
	default:
		return Response{}, errors.New("decision point answered without a decision")
	}
	if c := members["context"]; c != nil {
		if err := json.Unmarshal(c, &r.Context); err != nil {
			return Response{}, errors.New("decision point answered a context of another form")
		}
	}
	return r, nil
}
