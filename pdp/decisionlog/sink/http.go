package sink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// HTTPOptions say where an HTTP sink sends records.
type HTTPOptions struct {
	URL       string // of the service; records go to its path /logs, as OPA's do
	TokenFile string // a bearer token, read for each batch so that it can be changed; "" for none
	AllowHTTP bool   // plain http to a private address; this machine may always be reached so
	Timeout   time.Duration
}

// HTTP sends batches by OPA's protocol: POST /logs, a JSON array, compressed by gzip.
type HTTP struct {
	url       string
	tokenFile string
	client    *egress.Client
	zip       *gzip.Writer // used again, for it has a megabyte of tables
	closed    bool
}

// OpenHTTP checks the URL and the token's file; it sends nothing.
func OpenHTTP(o HTTPOptions) (*HTTP, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	base := strings.TrimRight(o.URL, "/")
	if strings.ContainsAny(base, "?#") {
		return nil, errors.New("http: the URL has a query or a fragment")
	}
	client, err := egress.New(egress.Options{Origin: base, AllowPrivate: true, AllowHTTP: o.AllowHTTP, Timeout: o.Timeout, Connections: 1})
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	zip, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("http: %w", err)
	}
	h := &HTTP{url: base + "/logs", tokenFile: o.TokenFile, client: client, zip: zip}
	if _, err := h.token(); err != nil {
		return nil, err
	}
	return h, nil
}

func (h *HTTP) token() (string, error) {
	if h.tokenFile == "" {
		return "", nil
	}
	token, err := web.ReadToken(h.tokenFile)
	if err != nil {
		return "", fmt.Errorf("http: token_file: %w", err)
	}
	return token, nil
}

// Write implements decisionlog.Sink.
func (h *HTTP) Write(ctx context.Context, records [][]byte) error {
	switch {
	case h.closed:
		return errClosed
	case len(records) == 0:
		return nil
	}
	body, err := compress(h.zip, records)
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("http: not a URL")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	token, err := h.token()
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	status, header, _, err := h.client.Do(r, 64<<10) // what it answers may repeat what it was sent, so it is not looked at
	if err != nil {
		return fmt.Errorf("http: %w", err)
	}
	return judge(status, header)
}

func compress(z *gzip.Writer, records [][]byte) ([]byte, error) {
	var body bytes.Buffer
	z.Reset(&body)
	for i, r := range records {
		before := []byte{','}
		if i == 0 {
			before[0] = '['
		}
		if _, err := z.Write(before); err != nil {
			return nil, err
		}
		if _, err := z.Write(r); err != nil {
			return nil, err
		}
	}
	if _, err := z.Write([]byte{']'}); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return body.Bytes(), nil
}

// judge tells what is wrong with the records from what is wrong with the server, or with what it was told of us.
func judge(status int, header http.Header) error {
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusBadRequest, status == http.StatusRequestEntityTooLarge, status == http.StatusUnprocessableEntity:
		return fmt.Errorf("http: status %d: %w", status, decisionlog.ErrRejected)
	}
	if after := retryAfter(header.Get("Retry-After")); after > 0 {
		return fmt.Errorf("http: status %d: %w", status, decisionlog.Later{After: after})
	}
	return fmt.Errorf("http: status %d", status)
}

// retryAfter reads the number of seconds or the date of Retry-After (RFC 9110 section 10.2.3); 0 where it is neither.
func retryAfter(text string) time.Duration {
	if n, err := strconv.Atoi(text); err == nil {
		return time.Duration(min(max(n, 0), 3600)) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return max(time.Until(at), 0)
}

// Close implements decisionlog.Sink.
func (h *HTTP) Close() error {
	h.closed = true
	h.client.Close()
	return nil
}
