package bundle

import (
	"bytes"
	"compress/gzip"
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
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/web"
)

// mediaType is what a server that knows long polling calls a bundle; so OPA has it.
const mediaType = "application/vnd.openpolicyagent.bundles"

var sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// check answers everything that is wrong with the options, in an operator's words.
func (o Options) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !sourceName.MatchString(o.Name) {
		bad("its name must be of a-z, 0-9 and -, at most 63 of them")
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		bad("url must be http:// or https://")
	} else {
		near := egress.IsLoopback(u.Hostname())
		if u.User != nil || u.Fragment != "" {
			bad("url must hold neither a password nor a fragment; a token belongs in token_file")
		}
		if u.Scheme == "http" && !near && o.TokenFile != "" {
			bad("a token must not go over plain http to another machine")
		}
	}
	if o.Roots != nil {
		if err := CheckRoots(o.Roots); err != nil {
			errs = append(errs, err)
		}
	}
	for name, d := range map[string]time.Duration{"poll": o.Poll, "timeout": o.Timeout, "max_age": o.MaxAge} {
		if d <= 0 {
			bad("%s must be more than 0", name)
		}
	}
	if o.LongPoll < 0 || o.LongPoll%time.Second != 0 || o.LongPoll > time.Hour {
		bad("long_poll must be whole seconds, at most an hour")
	}
	if o.MaxStaleness != 0 && o.MaxStaleness <= max(o.Poll, o.LongPoll)+o.Timeout {
		bad("max_staleness must be longer than poll or long_poll, and timeout, together; else it is passed without a failure")
	}
	if o.DenyWhenStale && o.MaxStaleness == 0 {
		bad("when_stale needs max_staleness")
	}
	if o.Limits.Compressed < 0 || o.Limits.Uncompressed < 0 || o.Limits.File < 0 || o.Limits.Files < 0 {
		bad("limits must be more than 0")
	}
	return errors.Join(errs...)
}

func newClient(o Options) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile != "" {
		text, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, errors.New("ca_file: holds no certificate")
		}
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			MaxConnsPerHost:        2,
			IdleConnTimeout:        2 * time.Minute,
			MaxResponseHeaderBytes: 32 << 10,
			DisableCompression:     true, // the limit is on what arrives
		},
		// Elsewhere, nobody would know whom the token was sent to, or who decides what is new.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// answer is what a server sent. Without an archive, there is nothing new.
type answer struct {
	archive    []byte
	etag       string
	retryAfter time.Duration
}

// tooLarge is about the bundle, not the server.
type tooLarge struct{ limit int64 }

func (e *tooLarge) Error() string { return fmt.Sprintf("larger than %d bytes", e.limit) }

// fetch asks once. Its errors hold neither the URL nor the token.
func (s *Source) fetch(ctx context.Context) (answer, error) {
	wait := time.Duration(0)
	if s.waits {
		wait = s.LongPoll
	}
	ctx, cancel := context.WithTimeout(ctx, wait+s.Timeout)
	defer cancel()
	req, err := s.request(ctx, wait)
	if err != nil {
		return answer{}, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return answer{}, plain(ctx, err)
	}
	defer func() { _ = res.Body.Close() }() // it was only read
	switch {
	case res.StatusCode == http.StatusOK:
		a := answer{etag: etagOf(res.Header)}
		a.archive, err = s.body(ctx, res)
		if s.LongPoll > 0 {
			kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")) // anything else is no long polling
			s.waits = kind == mediaType
		}
		return a, err
	case res.StatusCode == http.StatusNotModified && s.etag != "":
		return answer{}, nil
	case res.StatusCode >= 300 && res.StatusCode < 400:
		return answer{}, fmt.Errorf("answered %d; redirects are not followed", res.StatusCode)
	default:
		seconds, _ := strconv.Atoi(res.Header.Get("Retry-After")) // a date, or nothing, is 0
		return answer{retryAfter: time.Duration(min(max(seconds, 0), 3600)) * time.Second}, fmt.Errorf("answered %d", res.StatusCode)
	}
}

func (s *Source) request(ctx context.Context, wait time.Duration) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	if err != nil {
		return nil, errors.New("the URL cannot be asked")
	}
	req.Header.Set("User-Agent", "gatehouse-pdp")
	req.Header.Set("Accept", mediaType+", application/gzip, */*;q=0.5")
	req.Header.Set("Accept-Encoding", "gzip")
	prefer := "modes=snapshot"
	if wait > 0 {
		prefer += ";wait=" + strconv.Itoa(int(wait/time.Second)) // joined as OPA does, which its servers know
	}
	req.Header.Set("Prefer", prefer)
	if s.etag != "" {
		req.Header.Set("If-None-Match", s.etag)
	}
	if s.TokenFile != "" {
		token, err := web.ReadToken(s.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return req, nil
}

// etagOf answers the ETag if it is one that can be sent back.
func etagOf(h http.Header) string {
	tag := h.Get("ETag")
	if len(tag) > 1024 || strings.ContainsFunc(tag, func(c rune) bool { return c < ' ' || c > '~' }) {
		return ""
	}
	return tag
}

// body reads the archive, as it is or packed once more for the way.
func (s *Source) body(ctx context.Context, res *http.Response) ([]byte, error) {
	limit := s.Limits.Compressed
	if res.ContentLength > limit {
		return nil, &tooLarge{limit}
	}
	b, err := readUpTo(res.Body, limit)
	if err != nil {
		return nil, plain(ctx, err)
	}
	switch encoding := strings.ToLower(res.Header.Get("Content-Encoding")); encoding {
	case "", "identity":
		return b, nil
	case "gzip", "x-gzip":
	default:
		return nil, errors.New("answered in an encoding that was not asked for")
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, errors.New("answered something that is not gzip, but is called so")
	}
	inner, err := readUpTo(z, limit)
	var large *tooLarge
	if err != nil && !errors.As(err, &large) {
		return nil, errors.New("answered damaged gzip")
	}
	if err == nil && bytes.HasPrefix(inner, []byte{0x1f, 0x8b}) {
		return inner, nil
	}
	return b, nil // some servers call the bundle's own packing an encoding
}

func readUpTo(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, &tooLarge{limit}
	}
	return b, err
}

// plain is an error of a request without its URL, whose query may hold a secret.
func plain(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	var large *tooLarge
	switch {
	case errors.As(err, &large):
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return errors.New("no answer in time")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the answer was cut off")
	}
	return err
}
