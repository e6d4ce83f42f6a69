package server_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-auth/gatehouse/internal/extauthz"
	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

var plugin = server.EnvoyOptions{Document: "envoy/authz/allow"}

func documents(value any) *fixed {
	return &fixed{document: dataapi.Document{Value: value, Defined: true, DecisionID: "d-1", Revision: "r-1"}}
}

// S56: what is not a clear yes of the document's is refused, in an answer that Envoy cannot take for a failure to ask.
func TestADocumentThatIsNoDecisionRefuses(t *testing.T) {
	t.Parallel()
	failed := documents(true)
	failed.err = fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed").Because(errors.New(canary))
	undefined := documents(nil)
	undefined.document.Defined = false
	for name, c := range map[string]struct {
		engine *fixed
		code   string
	}{
		"failed":                       {failed, "policy_failed"},
		"undefined":                    {undefined, "undefined"},
		"neither boolean nor object":   {documents("canary-value"), "result_unusable"},
		"allowed is text":              {documents(map[string]any{"allowed": "canary-value"}), "result_unusable"},
		"a header of two lines":        {documents(map[string]any{"allowed": true, "headers": map[string]any{"x-a": "a\r\ncanary-value: b"}}), "result_unusable"},
		"a header that has no name":    {documents(map[string]any{"allowed": false, "headers": map[string]any{"": "a"}}), "result_unusable"},
		"a header with blanks":         {documents(map[string]any{"allowed": true, "response_headers_to_add": map[string]any{"x a": "a"}}), "result_unusable"},
		"a status that Envoy does not": {documents(map[string]any{"allowed": false, "http_status": json.Number("418")}), "result_unusable"},
	} {
		p := refused(t, check(t, envoy(t, c.engine, server.Options{}, plugin), envoys(t, nil)), 503, c.code)
		if p.DecisionID != "d-1" {
			t.Errorf("%s: decision %q", name, p.DecisionID)
		}
	}
	panicking := documents(true)
	panicking.panics = true
	refused(t, check(t, envoy(t, panicking, server.Options{}, plugin), envoys(t, nil)), 500, "internal")
}

// S54: identity that a policy has set overwrites the client's, whatever else is removed, and the decision's id is never another's.
func TestADocumentsHeadersAreTheOnlyIdentity(t *testing.T) {
	t.Parallel()
	e := documents(map[string]any{"allowed": true, "headers": map[string]any{"X-Gatehouse-Subject": "ada", "x-gatehouse-decision": "forged", "x-plan": []any{"a", "b"}, ":path": "/other"}})
	res := check(t, envoy(t, e, server.Options{}, plugin), envoys(t, nil)).GetOkResponse()
	var set []string
	for _, o := range res.GetHeaders() {
		set = append(set, fmt.Sprintf("%s=%s %d", o.GetHeader().GetKey(), o.GetHeader().GetValue(), o.GetAppendAction()))
	}
	if want := []string{":path=/other 0", "X-Gatehouse-Subject=ada 2", "x-plan=a 0", "x-plan=b 0", "x-gatehouse-decision=d-1 2"}; !slices.Equal(set, want) {
		t.Errorf("set %q, want %q", set, want)
	}
	slices.Sort(res.HeadersToRemove)
	if want := []string{"x-gatehouse-assertion", "x-gatehouse-roles", "x-gatehouse-scope", "x-gatehouse-tenant"}; !slices.Equal(res.GetHeadersToRemove(), want) {
		t.Errorf("removed %q, want %q", res.GetHeadersToRemove(), want)
	}
	if q := e.questions; len(q) != 1 || !slices.Equal(q[0].Path, []string{"envoy", "authz", "allow"}) || !q[0].HasInput {
		t.Errorf("asked %+v", q)
	}
}

// S55, S56: what has two readings, or none, reaches no policy.
func TestWhatADocumentCannotBeAskedAboutIsRefused(t *testing.T) {
	t.Parallel()
	e := documents(true)
	client := envoy(t, e, server.Options{}, plugin)
	h := func(path, kind, body string) func(*auth.AttributeContext) {
		return func(a *auth.AttributeContext) {
			a.Request.Http.Path, a.Request.Http.Headers["content-type"], a.Request.Http.RawBody = path, kind, []byte(body)
		}
	}
	for name, change := range map[string]func(*auth.AttributeContext){
		"malformed path":       h("/%zz", "", ""),
		"path not UTF-8":       h("/%ff", "", ""),
		"malformed query":      h("/?a;b", "", ""),
		"query not UTF-8":      h("/?a=%ff", "", ""),
		"malformed JSON":       h("/", "application/json", `{"canary-value`),
		"a name twice":         h("/", "application/json", `{"a":1,"a":"canary-value"}`),
		"JSON not UTF-8":       h("/", "application/json", "\"\xff\""),
		"too deep":             h("/", "application/json", strings.Repeat("[", 40)+strings.Repeat("]", 40)),
		"form not UTF-8":       h("/", "application/x-www-form-urlencoded", "a=%ff"),
		"a name twice in form": h("/", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"x\"\r\nContent-Type: application/json\r\n\r\n{\"a\":1,\"a\":2}\r\n--b--\r\n"),
	} {
		refused(t, check(t, client, envoys(t, change)), 400, "bad_request")
		if len(e.questions) != 0 {
			t.Fatalf("%s: asked %+v", name, e.questions)
		}
	}
	// Bodies make larger messages than those that evaluations are made of.
	if res := check(t, client, envoys(t, h("/", "application/json", `"`+strings.Repeat("x", 2<<20)+`"`))); res.GetStatus().GetCode() != 0 {
		t.Errorf("a body of 2 MiB: %v", res.GetDeniedResponse())
	}
	if _, err := client.Check(t.Context(), envoys(t, h("/", "", strings.Repeat("x", 5<<20)))); err == nil {
		t.Error("a message of 5 MiB is answered")
	}
	for _, o := range []server.EnvoyOptions{
		{Document: "/"}, {Document: "a/%ff"}, {Document: "a", Claims: "filter/key"}, {Document: "a", Headers: []string{"X-Plan"}}, {Document: "a", Resources: mesh.Resources},
	} {
		if _, err := server.New(server.Options{}).Envoy(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

// FuzzEnvoyDocument: whatever bytes come, nothing panics, what reaches the engine is JSON, and nothing passes that it does not allow.
func FuzzEnvoyDocument(f *testing.F) {
	for _, kind := range []string{"", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"} {
		b, err := proto.Marshal(&auth.CheckRequest{Attributes: &auth.AttributeContext{Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: "POST", Path: "/a%20b?c=d", Headers: map[string]string{"content-type": kind, "content-length": "4"}, Body: "a=1&--b\r\n\r\nx",
		}}}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	quiet := slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, message []byte) {
		e := documents(map[string]any{"allowed": false})
		h, err := server.New(server.Options{Engine: e, Log: quiet, DecisionLog: decisionlog.New(quiet)}).Envoy(plugin)
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, extauthz.Path, bytes.NewReader(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)))
		r.ProtoMajor = 2
		r.Header.Set("Content-Type", "application/grpc")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var res auth.CheckResponse
		if w.Body.Len() < 5 || proto.Unmarshal(w.Body.Bytes()[5:], &res) != nil || res.GetDeniedResponse() == nil || res.GetStatus().GetCode() == 0 {
			t.Fatalf("%x is answered %v", message, &res)
		}
		for _, q := range e.questions {
			if _, err := json.Marshal(q.Input); err != nil {
				t.Fatalf("%x is asked as %v: %v", message, q.Input, err)
			}
		}
	})
}
