package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/caller"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

const claims = `{"payload":{"sub":"ada","iss":"https://id.test","roles":["customer","a,b"],"tenant":"t1","scope":"orders:read","acr":"aal1","auth_time":1700000000,"email":"canary-value"}}`

var mesh = server.EnvoyOptions{
	Resources: []server.EnvoyResource{{Pattern: "/orders", Type: "order"}, {Pattern: "/orders/{id}", Type: "order"}},
	Claims:    "envoy.filters.http.jwt_authn/payload", Headers: []string{"X-Plan"},
}

// envoys is what Envoy sends, by its own messages; change may break it.
func envoys(t *testing.T, change func(*auth.AttributeContext)) *auth.CheckRequest {
	t.Helper()
	told := &structpb.Struct{}
	if err := told.UnmarshalJSON([]byte(claims)); err != nil {
		t.Fatal(err)
	}
	a := &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: "spiffe://mesh/shop", Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "192.0.2.1"}}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: "HEAD", Path: "/orders/17?q=canary-value", Host: "a.test", Scheme: "https", Protocol: "HTTP/2",
			Headers: map[string]string{":path": "/other", "authorization": "Bearer canary-value", "user-agent": "curl", "traceparent": "00-" + trace + "-00f067aa0ba902b7-01"},
		}},
		ContextExtensions: map[string]string{"route": "shop"},
		MetadataContext:   &core.Metadata{FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.jwt_authn": told}},
	}
	if change != nil {
		change(a)
	}
	return &auth.CheckRequest{Attributes: a}
}

// envoy serves the door and answers a client of it, which is gRPC's own.
func envoy(t *testing.T, e *fixed, opts server.Options, envoy server.EnvoyOptions) auth.AuthorizationClient {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	opts.Engine = e
	if opts.Log == nil {
		opts.Log = quiet
	}
	opts.DecisionLog = decisionlog.New(quiet)
	h, err := server.New(opts).Envoy(envoy)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- web.ServeHTTP2(ctx, ln, h, quiet) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(conn.Close(), <-ended); err != nil {
			t.Error(err)
		}
	})
	return auth.NewAuthorizationClient(conn)
}

// check asks, and answers nothing but CheckResponses that say what they are.
func check(t *testing.T, client auth.AuthorizationClient, m *auth.CheckRequest) *auth.CheckResponse {
	t.Helper()
	res, err := client.Check(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if (res.GetStatus().GetCode() == 0) != (res.GetOkResponse() != nil) || res.GetStatus() == nil {
		t.Fatalf("answered %v", res)
	}
	return res
}

// refused fails unless the answer is a problem document that says nothing of the request.
func refused(t *testing.T, res *auth.CheckResponse, status int, code string) web.ProblemDocument {
	t.Helper()
	var p web.ProblemDocument
	d := res.GetDeniedResponse()
	if err := json.Unmarshal([]byte(d.GetBody()), &p); err != nil || res.GetStatus().GetCode() == 0 || int(d.GetStatus().GetCode()) != status || p.Status != status || p.Code != code {
		t.Errorf("answered %v, %v, want %d %s", res, err, status, code)
	}
	if strings.Contains(d.String(), canary) || headersOf(d.GetHeaders())["content-type"] != "application/problem+json" {
		t.Errorf("answered %v", d)
	}
	return p
}

func headersOf(options []*core.HeaderValueOption) map[string]string {
	all := map[string]string{}
	for _, o := range options {
		if o.GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			all["does not overwrite"] = o.GetHeader().GetKey()
		}
		all[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
	}
	return all
}

func TestEnvoysQuestionIsTheEdges(t *testing.T) {
	t.Parallel()
	e := allowing()
	e.response.Context.Obligations = map[string]any{
		"upstream_headers": map[string]any{"x-plan": "gold"}, "response_headers": map[string]any{"X-Plan": "gold"},
	}
	res := check(t, envoy(t, e, server.Options{}, mesh), envoys(t, nil))
	want := authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "ada", Properties: map[string]any{
			"roles": []string{"customer", "a,b"}, "groups": []string{}, "tenant": "t1", "session": "", "attributes": map[string]any{},
			"claims": map[string]any{"iss": "https://id.test", "client_id": "", "scope": []string{"orders:read"}, "acr": "aal1", "amr": []string{}},
		}},
		Action: authzen.Action{Name: "GET"},
		Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{
			"path": "/orders/17", "segments": []string{"orders", "17"}, "params": map[string]any{"id": "17"}, "route": "shop",
		}},
		Context: map[string]any{
			"ip": "192.0.2.1", "user_agent": "curl", "request_id": trace, "host": "a.test", "scheme": "https", "peer": "spiffe://mesh/shop", "acr": "aal1", "auth_time": 1700000000,
		},
	}
	got, err := json.Marshal(e.asked)
	wanted, err2 := json.Marshal([]authzen.Request{want})
	if err != nil || err2 != nil || string(got) != string(wanted) {
		t.Errorf("asked %s\nwant  %s", got, wanted)
	}
	// S54: identity is what Envoy verified, and what is not known is removed.
	ok := res.GetOkResponse()
	set := headersOf(ok.GetHeaders())
	if len(set) != 6 || set["x-gatehouse-subject"] != "ada" || set["x-gatehouse-roles"] != "customer" || set["x-gatehouse-tenant"] != "t1" || set["x-gatehouse-scope"] != "orders:read" ||
		set["x-gatehouse-decision"] != "d-1" || set["x-plan"] != "gold" || strings.Join(ok.GetHeadersToRemove(), " ") != "x-gatehouse-assertion" {
		t.Errorf("set %v, removed %v", set, ok.GetHeadersToRemove())
	}
	if respond := headersOf(ok.GetResponseHeadersToAdd()); len(respond) != 1 || respond["x-plan"] != "gold" {
		t.Errorf("for the answer %v", respond)
	}
}

func TestWhoEnvoyDoesNotKnowIsAnonymous(t *testing.T) {
	t.Parallel()
	e := allowing()
	client := envoy(t, e, server.Options{}, mesh)
	for name, c := range map[string]struct {
		change func(*auth.AttributeContext)
		who    string
	}{
		"a certificate": {func(a *auth.AttributeContext) { a.MetadataContext = nil }, "service spiffe://mesh/shop"},
		"neither":       {func(a *auth.AttributeContext) { a.MetadataContext, a.Source.Principal = nil, "" }, "anonymous anonymous"},
		"another filter": {func(a *auth.AttributeContext) {
			a.Source.Principal, a.MetadataContext.FilterMetadata = "", map[string]*structpb.Struct{"other": a.MetadataContext.FilterMetadata["envoy.filters.http.jwt_authn"]}
		}, "anonymous anonymous"},
	} {
		e.asked = nil
		res := check(t, client, envoys(t, c.change))
		if len(e.asked) != 1 || e.asked[0].Subject.Type+" "+e.asked[0].Subject.ID != c.who {
			t.Errorf("%s: asked %+v", name, e.asked)
		}
		if removed := res.GetOkResponse().GetHeadersToRemove(); len(removed) != 5+1-len(headersOf(res.GetOkResponse().GetHeaders()))+1 {
			t.Errorf("%s: removed %v, set %v", name, removed, headersOf(res.GetOkResponse().GetHeaders()))
		}
	}
	// Without patterns paths stand for themselves, and without a filter no claims are believed.
	e.asked = nil
	check(t, envoy(t, e, server.Options{}, server.EnvoyOptions{}), envoys(t, func(a *auth.AttributeContext) { a.ContextExtensions["resource_type"] = "page" }))
	if r := e.asked[0]; r.Subject.Type != "service" || r.Resource.Type != "page" || r.Resource.ID != "/orders/17" {
		t.Errorf("asked %+v", r)
	}
}

// S56: whatever is not a clear yes is refused, in an answer that Envoy cannot take for a failure to ask.
func TestEnvoyIsRefusedWhateverGoesWrong(t *testing.T) {
	t.Parallel()
	about := func(c authzen.ResponseContext) authzen.Response {
		c.DecisionID = "d-1"
		return authzen.Response{Context: &c}
	}
	allowed := func(obligations map[string]any) *fixed {
		return &fixed{response: authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-1", Obligations: obligations}}}
	}
	for name, c := range map[string]struct {
		engine *fixed
		status int
		code   string
	}{
		"denied":                       {&fixed{response: about(authzen.ResponseContext{Reasons: []string{"reason-canary"}, Rules: []string{"rule-canary"}})}, 403, "forbidden"},
		"no context":                   {&fixed{}, 403, "forbidden"},
		"step-up":                      {&fixed{response: about(authzen.ResponseContext{Need: &authzen.Need{ACR: "aal2", MaxAge: 600}})}, 401, "insufficient_user_authentication"},
		"failed":                       {&fixed{response: about(authzen.ResponseContext{}), err: fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed").Because(errors.New(canary))}, 503, "policy_failed"},
		"no fault":                     {&fixed{response: about(authzen.ResponseContext{}), err: errors.New(canary)}, 500, "internal"},
		"panicked":                     {&fixed{panics: true}, 500, "internal"},
		"an allowance with an error":   {&fixed{response: authzen.Response{Decision: true}, err: errors.New(canary)}, 500, "internal"},
		"an obligation nobody knows":   {allowed(map[string]any{"mail": map[string]any{}}), 500, "obligation_unmet"},
		"a header that is not its own": {allowed(map[string]any{"upstream_headers": map[string]any{"Authorization": "x"}}), 500, "obligation_unmet"},
		"a header of two lines":        {allowed(map[string]any{"response_headers": map[string]any{"X-Plan": "a\r\nb"}}), 500, "obligation_unmet"},
	} {
		res := check(t, envoy(t, c.engine, server.Options{}, mesh), envoys(t, nil))
		p := refused(t, res, c.status, c.code)
		headers := headersOf(res.GetDeniedResponse().GetHeaders())
		if strings.Contains(res.String(), "canary") { // reasons and rules are for staff
			t.Errorf("%s: the client is told %s", name, res)
		}
		if named := name != "no context" && name != "panicked" && name != "an allowance with an error"; named != (p.DecisionID == "d-1") || named != (headers["x-gatehouse-decision"] == "d-1") {
			t.Errorf("%s: decision %q, headers %v", name, p.DecisionID, headers)
		}
		if challenge := headers["www-authenticate"]; (challenge != "") != (c.status == 401) || name == "step-up" && challenge != `Bearer realm="gatehouse", error="insufficient_user_authentication", acr_values="aal2", max_age="600"` {
			t.Errorf("%s: challenge %q", name, challenge)
		}
	}
}

// S15, S53, S55: what Envoy does not say, or what reads in two ways, is refused before anybody is asked.
func TestWhatEnvoyDoesNotSayIsRefused(t *testing.T) {
	t.Parallel()
	e := allowing()
	client := envoy(t, e, server.Options{}, mesh)
	http := func(change func(*auth.AttributeContext_HttpRequest)) func(*auth.AttributeContext) {
		return func(a *auth.AttributeContext) { change(a.GetRequest().GetHttp()) }
	}
	told := func(claims string) func(*auth.AttributeContext) {
		return func(a *auth.AttributeContext) {
			if err := a.MetadataContext.FilterMetadata["envoy.filters.http.jwt_authn"].UnmarshalJSON([]byte(claims)); err != nil {
				t.Error(err)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*auth.AttributeContext)
		status int
		code   string
	}{
		"no address":     {func(a *auth.AttributeContext) { a.Source = nil }, 400, "bad_request"},
		"no request":     {func(a *auth.AttributeContext) { a.Request = nil }, 400, "bad_request"},
		"no method":      {http(func(h *auth.AttributeContext_HttpRequest) { h.Method = "" }), 400, "bad_request"},
		"another method": {http(func(h *auth.AttributeContext_HttpRequest) { h.Method = "get" }), 400, "bad_request"},
		"no host":        {http(func(h *auth.AttributeContext_HttpRequest) { h.Host = "" }), 400, "bad_request"},
		"absolute form":  {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "http://x/orders" }), 400, "bad_request"},
		"a fragment":     {http(func(h *auth.AttributeContext_HttpRequest) { h.Fragment = "x" }), 400, "bad_request"},
		"dots":           {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "/x/../orders" }), 400, "bad_path"},
		"hidden slash":   {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "/orders%2f17" }), 400, "bad_path"},
		"not covered":    {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "/orders/17/items" }), 403, "resource_unknown"},
		"empty segment":  {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "/orders/" }), 403, "resource_unknown"},
		"too long":       {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "/orders/" + strings.Repeat("x", 2000) }), 400, "bad_request"},
		"no subject":     {told(`{"payload":{"roles":["admin"]}}`), 400, "bad_request"},
		"empty subject":  {told(`{"payload":{"sub":""}}`), 400, "bad_request"},
		"not an object":  {told(`{"payload":"ada"}`), 400, "bad_request"},
	} {
		refused(t, check(t, client, envoys(t, c.change)), c.status, c.code)
		if len(e.asked) != 0 {
			t.Fatalf("%s: asked %+v", name, e.asked)
		}
	}
	large := envoys(t, http(func(h *auth.AttributeContext_HttpRequest) { h.Body = strings.Repeat("x", 1<<20) }))
	if res, err := client.Check(t.Context(), large); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too large: %v, %v", res, err)
	}
}

// S71: Envoy shows who it is as other callers do, and a refusal for want of that is no failure to ask either.
func TestEnvoyShowsAToken(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "tokens")
	token := strings.Repeat("a", 32)
	if err := os.WriteFile(file, []byte("envoy "+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens, err := caller.OpenTokens(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	e := allowing()
	client := envoy(t, e, server.Options{Callers: caller.Check{Tokens: tokens}}, mesh)
	refused(t, check(t, client, envoys(t, nil)), 503, "caller_unknown")
	if len(e.asked) != 0 {
		t.Error("a stranger was answered")
	}
	// Nothing of a stranger's message is read.
	h, err := server.New(server.Options{Engine: e, Callers: caller.Check{Tokens: tokens}, Log: slog.New(slog.DiscardHandler)}).Envoy(mesh)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, extauthz.Path, unread{t})
	r.ProtoMajor = 2
	r.Header.Set("Content-Type", "application/grpc")
	h.ServeHTTP(httptest.NewRecorder(), r)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	if res, err := client.Check(ctx, envoys(t, nil)); err != nil || res.GetOkResponse() == nil || len(e.asked) != 1 {
		t.Errorf("answered %v, %v", res, err)
	}
}

func TestEnvoyIsRefusedAtOnceWhenThereIsNoRoom(t *testing.T) {
	t.Parallel()
	e := allowing()
	e.entered, e.block = make(chan struct{}), make(chan struct{})
	client := envoy(t, e, server.Options{MaxConcurrent: 1}, mesh)
	first := make(chan error, 1)
	go func() {
		_, err := client.Check(context.WithoutCancel(t.Context()), envoys(t, nil))
		first <- err
	}()
	<-e.entered
	res := check(t, client, envoys(t, nil))
	refused(t, res, 503, "overloaded")
	if headersOf(res.GetDeniedResponse().GetHeaders())["retry-after"] != "1" {
		t.Errorf("answered %v", res)
	}
	close(e.block)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestAWrongEnvoyConfigurationIsRefused(t *testing.T) {
	t.Parallel()
	resource := func(pattern, kind string) server.EnvoyOptions {
		return server.EnvoyOptions{Resources: []server.EnvoyResource{{Pattern: pattern, Type: kind}}}
	}
	for _, o := range []server.EnvoyOptions{
		{Claims: "payload"}, {Claims: "/payload"}, {Claims: "filter/"},
		resource("orders", "order"), resource("/orders", ""), resource("/orders/{id", "order"), resource("/orders/a{id}", "order"), resource("/a/../b", "x"), resource("/{{id}}", "x"),
		{Headers: []string{"Authorization"}}, {Headers: []string{"X-Gatehouse-Subject"}}, {Headers: []string{"X-Forwarded-For"}}, {Headers: []string{"X_Plan"}},
	} {
		if _, err := server.New(server.Options{}).Envoy(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// FuzzEnvoy: whatever bytes come, nothing panics, and nothing passes that the engine does not allow.
func FuzzEnvoy(f *testing.F) {
	for _, m := range []*auth.CheckRequest{{}, {Attributes: &auth.AttributeContext{
		Source:  &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "192.0.2.1"}}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET", Path: "/orders/17", Host: "a"}},
	}}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	quiet := slog.New(slog.DiscardHandler)
	h, err := server.New(server.Options{Engine: &fixed{}, Log: quiet, DecisionLog: decisionlog.New(quiet)}).Envoy(mesh)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, extauthz.Path, bytes.NewReader(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)))
		r.ProtoMajor = 2
		r.Header.Set("Content-Type", "application/grpc")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var res auth.CheckResponse
		if w.Body.Len() < 5 || proto.Unmarshal(w.Body.Bytes()[5:], &res) != nil || res.GetDeniedResponse() == nil || res.GetStatus().GetCode() == 0 {
			t.Fatalf("%x is answered %v", message, &res)
		}
	})
}
