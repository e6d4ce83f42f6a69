package forwardauth

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/plugin/guard"
)

// envoys is what Envoy sends, by its own messages; change may break it.
func envoys(change func(*auth.AttributeContext)) *auth.CheckRequest {
	a := &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Principal: "x", Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{
			Address: "192.0.2.1", PortSpecifier: &core.SocketAddress_PortValue{PortValue: 4711},
		}}}},
		Destination: &auth.AttributeContext_Peer{Address: &core.Address{Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "203.0.113.9"}}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Id: "1", Method: "PUT", Path: "/things/1?q=%2f", Host: "a.test", Scheme: "https", Protocol: "HTTP/2", Size: -1,
			Headers: map[string]string{":path": "/other", ":method": "GET", "authorization": "Bearer t", "x-forwarded-for": "203.0.113.9"},
		}},
		ContextExtensions: map[string]string{"a": "b"},
	}
	if change != nil {
		change(a)
	}
	return &auth.CheckRequest{Attributes: a}
}

// call serves the handler and answers a client of it, which is gRPC's own.
func call(t *testing.T) (auth.AuthorizationClient, *asked) {
	t.Helper()
	h, g, _ := handler(t, EnvoyGRPC, nil)
	ln, err := Listen(t.Context(), "127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- web.ServeHTTP2(ctx, ln, h, slog.New(slog.DiscardHandler)) }()
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return auth.NewAuthorizationClient(conn), g
}

func TestEnvoyAsksByGRPC(t *testing.T) {
	t.Parallel()
	envoy, g := call(t)
	g.answer = func(guard.Request) guard.Verdict {
		return guard.Verdict{
			Forward: true, Respond: map[string]string{"X-Notice": "soon"},
			SetHeaders: map[string]string{"X-Gatehouse-Subject": "ada", "X-Gatehouse-Tenant": "", "X-Gatehouse-Roles": ""},
		}
	}
	res, err := envoy.Check(t.Context(), envoys(nil))
	if err != nil {
		t.Fatal(err)
	}
	r := g.got
	if r.Method != "PUT" || r.Path != "/things/1" || r.Query != "q=%2f" || r.Host != "a.test" || r.Addr != netip.MustParseAddr("192.0.2.1") || r.Route != "hosted" {
		t.Errorf("the guard got %+v", r)
	}
	if len(r.Header["authorization"]) != 1 || r.Header["authorization"][0] != "Bearer t" || r.Header["host"][0] != "a.test" || r.Header[":path"] != nil {
		t.Errorf("the guard got the headers %v", r.Header)
	}
	// S54: what is not known is removed, what is known overwrites.
	ok := res.GetOkResponse()
	slices.Sort(ok.GetHeadersToRemove())
	if res.GetStatus().GetCode() != 0 || strings.Join(ok.GetHeadersToRemove(), " ") != "x-gatehouse-roles x-gatehouse-tenant" || len(ok.GetHeaders()) != 1 {
		t.Fatalf("answered %v", res)
	}
	for _, o := range append(ok.GetHeaders(), ok.GetResponseHeadersToAdd()...) {
		if o.GetAppendAction() != core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%v does not overwrite", o)
		}
	}
	if h := ok.GetHeaders()[0].GetHeader(); h.GetKey() != "x-gatehouse-subject" || h.GetValue() != "ada" {
		t.Errorf("header %v", h)
	}
	if h := ok.GetResponseHeadersToAdd()[0].GetHeader(); h.GetKey() != "x-notice" || h.GetValue() != "soon" {
		t.Errorf("header of the answer %v", h)
	}
}

func TestEnvoyPassesTheGuardsRefusalOnByGRPC(t *testing.T) {
	t.Parallel()
	envoy, g := call(t)
	for _, v := range []guard.Verdict{
		{Status: 401, Header: map[string]string{"WWW-Authenticate": "Bearer"}, Body: []byte(`{}`)},
		{Status: 429, Header: map[string]string{"Retry-After": "7"}, Body: []byte(`{"code":"rate_limited"}`)},
		{Status: 503, Body: []byte("\xff")},
	} {
		g.answer = func(guard.Request) guard.Verdict { return v }
		res, err := envoy.Check(t.Context(), envoys(nil))
		if err != nil {
			t.Fatal(err)
		}
		denied := res.GetDeniedResponse()
		if res.GetStatus().GetCode() == 0 || int(denied.GetStatus().GetCode()) != v.Status || denied.GetBody() != strings.ToValidUTF8(string(v.Body), "\uFFFD") {
			t.Errorf("%d: answered %v", v.Status, res)
		}
		for _, o := range denied.GetHeaders() {
			found := false
			for name, value := range v.Header {
				found = found || (strings.ToLower(name) == o.GetHeader().GetKey() && value == o.GetHeader().GetValue())
			}
			if !found || len(denied.GetHeaders()) != len(v.Header) {
				t.Errorf("%d: headers %v", v.Status, denied.GetHeaders())
			}
		}
	}
	g.answer = func(guard.Request) guard.Verdict { panic("secret-canary") } // S56
	if res, err := envoy.Check(t.Context(), envoys(nil)); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("a panic: %v, %v", res, err)
	}
}

// S15, S53, S55: what Envoy does not say, says twice or says in two ways is refused.
func TestWhatEnvoyDoesNotSayIsRefused(t *testing.T) {
	t.Parallel()
	envoy, g := call(t)
	http := func(change func(*auth.AttributeContext_HttpRequest)) func(*auth.AttributeContext) {
		return func(a *auth.AttributeContext) { change(a.GetRequest().GetHttp()) }
	}
	for name, c := range map[string]struct {
		change func(*auth.AttributeContext)
		status int
		code   string
	}{
		"no address": {func(a *auth.AttributeContext) { a.Source = nil }, 400, "bad_request"},
		"a pipe": {func(a *auth.AttributeContext) {
			a.Source.Address = &core.Address{Address: &core.Address_Pipe{Pipe: &core.Pipe{Path: "/x"}}}
		}, 400, "bad_request"},
		"no request":    {func(a *auth.AttributeContext) { a.Request = nil }, 400, "bad_request"},
		"no method":     {http(func(h *auth.AttributeContext_HttpRequest) { h.Method = "" }), 400, "bad_request"},
		"no host":       {http(func(h *auth.AttributeContext_HttpRequest) { h.Host = "" }), 400, "bad_request"},
		"absolute form": {http(func(h *auth.AttributeContext_HttpRequest) { h.Path = "http://x/things" }), 400, "bad_request"},
		"a fragment":    {http(func(h *auth.AttributeContext_HttpRequest) { h.Fragment = "x" }), 400, "bad_request"},
		"dots":          {http(func(h *auth.AttributeContext_HttpRequest) { h.Host, h.Path = "x", "/x/../things" }), 400, "bad_path"},
		"no route":      {http(func(h *auth.AttributeContext_HttpRequest) { h.Host, h.Path = "x", "/x" }), 403, "route_unknown"},
	} {
		res, err := envoy.Check(t.Context(), envoys(c.change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if d := res.GetDeniedResponse(); res.GetStatus().GetCode() == 0 || int(d.GetStatus().GetCode()) != c.status || !strings.Contains(d.GetBody(), `"code":"`+c.code+`"`) || g.got.Path != "" {
			t.Errorf("%s: answered %v", name, res)
		}
	}
	// With encode_raw_headers they come as bytes, each on its own.
	_, err := envoy.Check(t.Context(), envoys(http(func(h *auth.AttributeContext_HttpRequest) {
		h.Headers, h.HeaderMap = nil, &core.HeaderMap{Headers: []*core.HeaderValue{
			{Key: "authorization", RawValue: []byte("Bearer a")}, {Key: "Authorization", RawValue: []byte("Bearer b")}, {Key: ":path", RawValue: []byte("/x")}, {Key: "x-bad", RawValue: []byte{0xff}},
		}}
	})))
	if err != nil || strings.Join(g.got.Header["authorization"], "|") != "Bearer a|Bearer b" || g.got.Header["x-bad"][0] != "\xff" || g.got.Header[":path"] != nil {
		t.Errorf("raw headers: %v, %v", err, g.got.Header)
	}
	large := envoys(http(func(h *auth.AttributeContext_HttpRequest) { h.Body = strings.Repeat("x", extauthz.MaxMessage) }))
	if res, err := envoy.Check(t.Context(), large); status.Code(err) != codes.InvalidArgument {
		t.Errorf("too large: %v, %v", res, err)
	}
}

// S56: a body of which Envoy has sent a part only, or nothing, is none.
func TestABodyThatEnvoySendsIsShown(t *testing.T) {
	t.Parallel()
	envoy, g := call(t)
	for name, c := range map[string]struct {
		change func(*auth.AttributeContext_HttpRequest)
		want   string
		err    error
	}{
		"a text": {func(h *auth.AttributeContext_HttpRequest) { h.Body = "{}"; h.Headers[partial] = "false" }, "{}", nil},
		"bytes":  {func(h *auth.AttributeContext_HttpRequest) { h.RawBody = []byte("{\xff}") }, "{\xff}", nil},
		"a part": {func(h *auth.AttributeContext_HttpRequest) { h.Body = "{}"; h.Headers[partial] = "true" }, "", guard.ErrBodyBuffered},
		"empty":  {func(h *auth.AttributeContext_HttpRequest) { h.Headers["content-length"] = "0" }, "", nil},
	} {
		if _, err := envoy.Check(t.Context(), envoys(func(a *auth.AttributeContext) { c.change(a.GetRequest().GetHttp()) })); err != nil || g.got.Body == nil {
			t.Fatalf("%s: %v, body %v", name, err, g.got.Body)
		}
		if got, err := g.got.Body.Body(t.Context()); string(got) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := envoy.Check(t.Context(), envoys(nil)); err != nil || g.got.Body != nil {
		t.Errorf("%v: a body that was not sent is shown", err)
	}
	both := envoys(func(a *auth.AttributeContext) { h := a.GetRequest().GetHttp(); h.Body, h.RawBody = "{}", []byte("[]") })
	if res, err := envoy.Check(t.Context(), both); err != nil || res.GetStatus().GetCode() == 0 {
		t.Errorf("two bodies: %v, %v", res, err)
	}
}

// Only HTTP/2 is spoken, and only of the one method.
func TestWhatIsNoCallGetsNoAnswer(t *testing.T) {
	t.Parallel()
	h, g, _ := handler(t, EnvoyGRPC, nil)
	for _, target := range []string{extauthz.Path, "/check", "/check/things", "/envoy.service.auth.v2.Authorization/Check"} {
		w := ask(h, "POST", target, "Content-Type", "application/grpc")
		if w.Body.Len() > 0 && w.Header().Get("Content-Type") == "application/grpc" || g.got.Path != "" {
			t.Errorf("%s: %d %q", target, w.Code, w.Body)
		}
	}
	if _, err := New(Options{Proxy: EnvoyGRPC, AddressHeader: "X-Real-IP"}); err == nil {
		t.Error("an address in a header is believed")
	}
}

// FuzzCheck: whatever bytes come, nothing panics, what is read agrees with Envoy's own messages, and a denial never reads as a pass.
func FuzzCheck(f *testing.F) {
	for _, change := range []func(*auth.AttributeContext){nil, func(a *auth.AttributeContext) { a.Source = nil }} {
		b, err := proto.Marshal(envoys(change))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, 403, "Retry-After", "x")
	}
	f.Add([]byte{0x0a, 0xff}, 0, "", "")
	f.Fuzz(func(t *testing.T, message []byte, code int, name, text string) {
		if r, err := readCheck(message); err == nil {
			var m auth.CheckRequest
			if err := proto.Unmarshal(message, &m); err == nil {
				told := m.GetAttributes().GetRequest().GetHttp()
				whole := r.Path
				if strings.Contains(told.GetPath(), "?") {
					whole += "?" + r.Query
				}
				if r.Method != told.GetMethod() || r.Host != told.GetHost() || whole != told.GetPath() || told.GetFragment() != "" {
					t.Fatalf("%v was read as %+v", told, r)
				}
			}
		}
		var res auth.CheckResponse
		if err := proto.Unmarshal(appendVerdict(nil, guard.Verdict{Status: code, Header: map[string]string{name: text}, Body: []byte(text)}), &res); err != nil && strings.ToValidUTF8(name, "") == name {
			t.Fatal(err)
		} else if err == nil && res.GetStatus().GetCode() == 0 {
			t.Fatalf("a denial is answered by %v", &res)
		}
	})
}
