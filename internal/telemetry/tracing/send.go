package tracing

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"golang.org/x/net/http/httpguts"
	"google.golang.org/protobuf/proto"
)

const (
	defaultReceiver = "http://localhost:4318/v1/traces"
	defaultTimeout  = 10 * time.Second
	maxAnswer       = 64 << 10 // bytes that are read of an answer, so that its connection is kept
)

// sender sends spans as OTLP over HTTP, binary (OTLP 1.x, section OTLP/HTTP). OpenTelemetry's own, otlptracehttp, links gRPC and its
// gateway for the type of one message, 11 MB; docs/adr/otlp-client.md.
type sender struct {
	url    string
	header http.Header
	http   *http.Client
}

var _ otlptrace.Client = (*sender)(nil)

// newSender reads what OpenTelemetry's variables say of the receiver; to goes before OTEL_EXPORTER_OTLP_ENDPOINT. Errors name a
// variable and never its value.
func newSender(to string, lookup func(string) (string, bool)) (*sender, error) {
	env := func(name string) (value, from string) {
		for _, from := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
			if v, _ := lookup(from); strings.TrimSpace(v) != "" {
				return strings.TrimSpace(v), from
			}
		}
		return "", ""
	}
	if protocol, from := env("PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		return nil, fmt.Errorf("%s: only http/protobuf is spoken", from)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true, TLSHandshakeTimeout: defaultTimeout}
	s := &sender{header: http.Header{}, http: &http.Client{
		Timeout: defaultTimeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	var err error
	switch endpoint, from := env("ENDPOINT"); {
	case to != OTLP:
		if s.url, err = receiver(to, true); err != nil {
			return nil, fmt.Errorf("traces: %w", err)
		}
	case endpoint != "":
		if s.url, err = receiver(endpoint, from == "OTEL_EXPORTER_OTLP_ENDPOINT"); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	default:
		s.url = defaultReceiver
	}
	if text, from := env("TIMEOUT"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil || ms < 1 {
			return nil, fmt.Errorf("%s: expected milliseconds", from)
		}
		s.http.Timeout = time.Duration(ms) * time.Millisecond
	}
	if text, from := env("HEADERS"); text != "" {
		if err := s.addHeaders(text); err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
	}
	if file, from := env("CERTIFICATE"); file != "" {
		text, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
		if !transport.TLSClientConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s: holds no certificate", from)
		}
	}
	return s, nil
}

var errReceiver = errors.New("expected a URL such as http://collector:4318, without user and query")

// receiver answers the whole URL. A user and a password would show in logs; OTEL_EXPORTER_OTLP_HEADERS is for them.
func receiver(to string, base bool) (string, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errReceiver
	}
	if base && !strings.HasSuffix(u.Path, "/v1/traces") {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/v1/traces"
	}
	return u.String(), nil
}

// addHeaders reads "name=value,name=value", values percent-encoded.
func (s *sender) addHeaders(text string) error {
	for pair := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || err != nil || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return errors.New("expected name=value,name=value")
		}
		s.header.Set(name, value)
	}
	return nil
}

// Start implements otlptrace.Client.
func (s *sender) Start(context.Context) error { return nil }

// Stop implements otlptrace.Client.
func (s *sender) Stop(context.Context) error {
	s.http.CloseIdleConnections()
	return nil
}

// UploadTraces implements otlptrace.Client. Whatever is no 2xx is a failure, and nothing is sent twice.
func (s *sender) UploadTraces(ctx context.Context, spans []*otlp.ResourceSpans) error {
	// On the wire it is what ExportTraceServiceRequest is.
	body, err := proto.Marshal(&otlp.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	req.Header = s.header.Clone()
	req.Header.Set("Content-Type", "application/x-protobuf")
	res, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("send spans: %w", err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // what it says of the spans is not for us
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("the receiver of spans answered status %d", res.StatusCode)
	}
	return nil
}
