package forwardauth

import (
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// The script and the style of challenges are there for a proxy that sends their path here.
func TestTheScriptOfChallengesIsServedWithoutAsking(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, Caddy, nil)
	for _, c := range []struct {
		method, target string
		status         int
	}{
		{"GET", "/.well-known/gatehouse/challenge.js?v=1", 200}, {"GET", "/.well-known/gatehouse/challenge.css", 200},
		{"GET", "/.well-known/gatehouse/", 404}, {"GET", "/.well-known/gatehouse/../check", 404}, {"POST", "/.well-known/gatehouse/challenge.js", 404},
	} {
		r := ask(h, c.method, c.target)
		if r.Code != c.status || g.got.Path != "" {
			t.Errorf("%s %s: %d", c.method, c.target, r.Code)
		}
	}
}

// S56: what the edge has itself is no pass, which a 2xx would be; a redirect goes to the client with its cookie.
func TestWhatTheEdgeHasItselfIsNoPass(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, Traefik, nil)
	asks := func(v guard.Verdict) (int, string) {
		g.answer = func(guard.Request) guard.Verdict { return v }
		w := ask(h, "GET", "/check", "X-Forwarded-Method", "GET", "X-Forwarded-Host", "x", "X-Forwarded-Uri", "/things", "X-Forwarded-For", "192.0.2.1")
		return w.Code, w.Header().Get("Set-Cookie")
	}
	if code, _ := asks(guard.Verdict{Served: true, Status: 200, Body: []byte("script")}); code != 404 {
		t.Errorf("a script: %d", code)
	}
	if code, cookie := asks(guard.Verdict{Served: true, Status: 303, Header: map[string]string{"Set-Cookie": "a=b"}}); code != 303 || cookie != "a=b" {
		t.Errorf("a clearance: %d %q", code, cookie)
	}
}

func TestEnvoyAddsACookieBesideTheUpstreams(t *testing.T) {
	t.Parallel()
	var response auth.CheckResponse
	if err := proto.Unmarshal(appendVerdict(nil, guard.Verdict{Forward: true, Respond: map[string]string{"Set-Cookie": "a=b", "X-Notice": "c"}}), &response); err != nil {
		t.Fatal(err)
	}
	for _, h := range response.GetOkResponse().GetResponseHeadersToAdd() {
		want := core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if h.GetHeader().GetKey() == "set-cookie" {
			want = core.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		if h.GetAppendAction() != want || !strings.Contains("a=b c", h.GetHeader().GetValue()) {
			t.Errorf("%v", h)
		}
	}
	if n := len(response.GetOkResponse().GetResponseHeadersToAdd()); n != 2 {
		t.Errorf("%d headers", n)
	}
}
