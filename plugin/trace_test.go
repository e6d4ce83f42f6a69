package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/spans"
)

const (
	theirTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	theirParent = "00-" + theirTrace + "-00f067aa0ba902b7-01"
)

// asks sends what NGINX asks for a request, until the guard knows keys and ended sessions if wait says so.
func (s *site) asks(t *testing.T, target, token string, wait bool, further ...string) (status int, header http.Header) {
	t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.socket)
	}}
	defer transport.CloseIdleConnections()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://guard/check", nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, h := 0, append([]string{
			"Authorization", "Bearer " + token, "X-Original-Method", "GET", "X-Original-Uri", target, "X-Original-Host", "api.test", "X-Real-Ip", "192.0.2.1",
		}, further...); i < len(h); i += 2 {
			req.Header.Add(h[i], h[i+1])
		}
		res, err := (&http.Client{Transport: transport}).Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			if !wait || res.StatusCode == http.StatusOK {
				return res.StatusCode, res.Header
			}
		}
		if time.Now().After(end) {
			t.Fatalf("not ready: %v\n%s", err, s.log.String())
		}
	}
}

// S67: spans hold neither who asks nor for what.
// The upstream and the decision point learn the edge's own spans, also where the client's word of a trace is not believed.
func TestForwardAuthContinuesTraces(t *testing.T) {
	t.Parallel()
	to := spans.Receive(t)
	s, _ := serveGuard(t, "nginx", "-traces", to.URL)
	token := s.token(t, map[string]any{"sub": "canary-ada", "roles": []string{"canary-role"}})
	s.asks(t, "/orders", token, true)
	_, good := s.asks(t, "/orders/17?q=canary", token, false, "Traceparent", theirParent, "Tracestate", "v=canary")
	asked := *s.parent.Load()
	_, bad := s.asks(t, "/orders", token, false, "Traceparent", strings.ToUpper(theirParent), "Tracestate", "v=canary")
	_, two := s.asks(t, "/orders", token, false, "Traceparent", theirParent, "Traceparent", theirParent)
	refused, _ := s.asks(t, "/orders", token+"x", false, "Traceparent", theirParent[:len(theirParent)-1]+"0")
	wrong, _ := s.asks(t, "/orders", "canary", false, "Traceparent", theirParent)
	if refused != http.StatusUnauthorized || wrong != http.StatusUnauthorized {
		t.Errorf("status %d and %d of bad tokens", refused, wrong)
	}
	s.stop() // sends what waits
	var of []spans.Span
	denied := spans.Span{}
	for _, span := range to.Spans() {
		switch {
		case span.Trace != theirTrace:
		case span.Attributes["gatehouse.decision"] == "denied":
			denied = span
		case span.Name == "guard" || span.Attributes["gatehouse.reason"] == "":
			of = append(of, span)
		}
	}
	guard, authorize := spans.Named(t, of, "gatehouse-plugin", "guard"), spans.Span{}
	for _, span := range of {
		if span.Name == "authorize" {
			authorize = span
		}
	}
	if got := good.Get("Traceparent"); got != "00-"+theirTrace+"-"+guard.ID+"-01" || guard.Parent != "00f067aa0ba902b7" {
		t.Errorf("the upstream is told %s; the span is %+v", got, guard)
	}
	if asked != "00-"+theirTrace+"-"+authorize.ID+"-01" || authorize.Parent != guard.ID {
		t.Errorf("the decision point is told %s; the span is %+v", asked, authorize)
	}
	if denied.Attributes["gatehouse.reason"] != "token_invalid" || denied.Attributes["http.response.status_code"] != "401" || denied.Failed {
		t.Errorf("the refusal of a client is %+v", denied)
	}
	for name, got := range map[string]http.Header{"malformed": bad, "two": two} {
		if p := got.Get("Traceparent"); len(p) != 55 || strings.Contains(p, theirTrace) || !strings.HasSuffix(p, "-01") {
			t.Errorf("%s: the upstream is told %q", name, p)
		}
	}
	if _, kept := bad["Tracestate"]; !kept || bad.Get("Tracestate") != "" {
		t.Errorf("tracestate %q of a trace that is not believed", bad.Get("Tracestate"))
	}
	if _, changed := good["Tracestate"]; changed {
		t.Errorf("tracestate %q", good.Get("Tracestate"))
	}
	bodies, _ := to.Sent()
	for _, body := range bodies {
		for _, secret := range append(strings.Split(token, "."), "canary", "api.test", "192.0.2.1") {
			if strings.Contains(string(body), secret) {
				t.Errorf("a span holds %q", secret)
			}
		}
	}
}

// Spans are not worth a request: nobody waits for them, and nobody is refused for them.
func TestRequestsPassWhileNobodyTakesSpans(t *testing.T) {
	t.Parallel()
	s, _ := serveGuard(t, "nginx", "-traces", "http://127.0.0.1:1")
	token := s.token(t, nil)
	s.asks(t, "/orders", token, true)
	for range 20 {
		if status, header := s.asks(t, "/orders", token, false, "Traceparent", theirParent); status != http.StatusOK || !strings.Contains(header.Get("Traceparent"), theirTrace) {
			t.Fatalf("status %d, traceparent %q", status, header.Get("Traceparent"))
		}
	}
	s.stop()
	if !strings.Contains(s.log.String(), "spans are lost") {
		t.Errorf("nothing says so: %s", s.log.String())
	}
}
