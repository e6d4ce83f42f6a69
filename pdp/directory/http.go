package directory

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

const (
	maxWait = feed.MaxWait
	minGap  = 20 * time.Millisecond  // between two answers with changes, so that many small ones come together
	idleGap = 500 * time.Millisecond // between two without, for a sender that does not wait
	maxSlow = 10 * time.Minute       // for a whole snapshot
)

// check answers everything that is wrong with the options, in an operator's words.
func (o Options) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if o.Wait < time.Second || o.Wait > maxWait || o.Wait%time.Second != 0 {
		bad("wait must be whole seconds, at most %v", maxWait)
	}
	for name, d := range map[string]time.Duration{"timeout": o.Timeout, "poll": o.Poll, "max age": o.MaxAge} {
		if d <= 0 {
			bad("%s must be more than 0", name)
		}
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		bad("certificate and key belong together")
	}
	quiet := o.Wait + o.Timeout
	if strings.HasPrefix(o.URL, "file:") {
		quiet = 2 * o.Poll
	}
	if o.MaxStaleness < 0 || o.MaxStaleness > 0 && o.MaxStaleness <= quiet {
		bad("max staleness must be longer than %v; else it is passed without a failure", quiet)
	}
	if o.DenyWhenStale && o.MaxStaleness == 0 {
		bad("when stale: deny needs max staleness")
	}
	return errors.Join(errs...)
}

func (o Options) source() (source, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("url is not one")
	}
	if u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return nil, errors.New("url must hold neither a password nor a query; a token belongs in the token file")
	}
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.Path == "" || o.TokenFile != "" || o.CAFile != "" || o.CertFile != "" {
			return nil, errors.New("url must be file:///path, without token, CA and certificate")
		}
		return &file{name: u.Path, limits: o.Limits, poll: o.Poll}, nil
	case "unix":
		if u.Host != "" || u.Path == "" {
			return nil, errors.New("url must be unix:///path")
		}
		socket := u.Path
		return newSender(o, "http://directory", func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "unix", socket)
		})
	case "http", "https":
		if u.Host == "" {
			return nil, errors.New("url has no host")
		}
		if u.Scheme == "http" && !o.PlainHTTP && !egress.IsLoopback(u.Hostname()) {
			return nil, errors.New("url must be https:// to another machine: whoever stands between decides who holds which role")
		}
		return newSender(o, strings.TrimSuffix(o.URL, "/"), (&net.Dialer{Timeout: 10 * time.Second}).DialContext)
	}
	return nil, errors.New("url must be http://, https://, unix:// or file://")
}

// sender is a feed by HTTP.
type sender struct {
	Options
	base   string
	client *http.Client
	heard  bool // the last question was answered; the next one may be held
}

func newSender(o Options, base string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (*sender, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("CA file: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("CA file: holds no certificate")
		}
	}
	if o.CertFile != "" {
		if _, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile); err != nil {
			return nil, fmt.Errorf("certificate file: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
			return &pair, err
		}
	}
	return &sender{Options: o, base: base, client: &http.Client{
		Transport: &http.Transport{
			DialContext: dial, TLSClientConfig: config, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 1, MaxConnsPerHost: 2, IdleConnTimeout: 2 * time.Minute, MaxResponseHeaderBytes: 32 << 10,
			DisableCompression: true, // the limit is on what arrives
		},
		// Elsewhere, nobody would know whom the token was sent to, or who says who holds which role.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (s *sender) close() { s.client.CloseIdleConnections() }

func (s *sender) pause(took time.Duration, news bool) time.Duration {
	if news {
		return max(0, minGap-took)
	}
	return max(0, idleGap-took)
}

// next implements source.
func (s *sender) next(ctx context.Context, v *View) (*View, error) {
	next, err := s.ask(ctx, v)
	s.heard = err == nil
	return next, err
}

func (s *sender) ask(ctx context.Context, v *View) (*View, error) {
	if v == nil {
		return s.snapshot(ctx, 0)
	}
	q := url.Values{"epoch": {v.epoch}, "since": {strconv.FormatUint(v.revision, 10)}}
	if s.heard {
		q.Set("wait", strconv.Itoa(int(s.Wait/time.Second)))
	}
	next, status, err := s.get(ctx, feed.ChangesPath+"?"+q.Encode(), s.Wait+s.Timeout, s.Wait+s.Timeout, func(in io.Reader) (*View, error) {
		return v.readChanges(in, s.Limits)
	})
	var away *awayError
	switch {
	case status == http.StatusGone:
	case err != nil && status == http.StatusOK && ctx.Err() == nil && !errors.As(err, &away) && !errors.Is(err, errCut):
		// What does not follow from what is known can only be known anew.
		s.Log.WarnContext(ctx, "changes of the directory are not used; asking for all of it", "error", err)
	default:
		return next, err
	}
	return s.snapshot(ctx, v.subjects)
}

func (s *sender) snapshot(ctx context.Context, hint int) (*View, error) {
	v, _, err := s.get(ctx, feed.SnapshotPath, maxSlow, s.Timeout, func(in io.Reader) (*View, error) {
		return readSnapshot(in, hint, s.Limits)
	})
	return v, err
}

// get asks once. The answer must be whole by whole, and no part of it may take longer than part. Errors hold neither the URL nor
// the token; those of the way are an *awayError.
func (s *sender) get(ctx context.Context, path string, whole, part time.Duration, read func(io.Reader) (*View, error)) (v *View, status int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, whole, errLate)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	timer := time.AfterFunc(part, func() { stop(errLate) })
	defer timer.Stop()
	away := func(err error, after time.Duration) error {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return &awayError{err, after}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, 0, errors.New("the URL cannot be asked")
	}
	req.Header.Set("Accept", feed.MediaType)
	req.Header.Set("User-Agent", "gatehouse-pdp")
	if s.TokenFile != "" {
		token, err := web.ReadToken(s.TokenFile)
		if err != nil {
			return nil, 0, away(fmt.Errorf("token file: %w", err), 0)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, 0, away(err, 0)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode != http.StatusOK:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")) // a date, or nothing, is 0
		return nil, res.StatusCode, away(fmt.Errorf("answered %d", res.StatusCode), time.Duration(min(max(seconds, 0), 3600))*time.Second)
	case kind != feed.MediaType:
		return nil, res.StatusCode, away(errors.New("answered something that is not called "+feed.MediaType), 0)
	}
	body := &alive{in: res.Body, timer: timer, part: part}
	v, err = read(body)
	if err != nil && body.err != nil { // not what was read, but the reading
		return nil, res.StatusCode, away(body.err, 0)
	}
	return v, res.StatusCode, err
}

var errLate = errors.New("no answer in time")

// alive starts the timer anew with each part that comes.
type alive struct {
	in    io.Reader
	timer *time.Timer
	part  time.Duration
	err   error
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.in.Read(p)
	if n > 0 {
		a.timer.Reset(a.part)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if a.err = err; errors.Is(err, io.ErrUnexpectedEOF) {
			a.err = errCut
		}
	}
	return n, err
}
