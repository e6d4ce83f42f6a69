package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	canary = "canary-value"
	trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	body   = `{"subject":{"type":"user","id":"ann","properties":{"claims":{"email":"canary-value"}}},"action":{"name":"GET"},` +
		`"resource":{"type":"order","id":"17","properties":{"note":"canary-value"}},"context":{"ip":"10.0.0.1"}}`
)

// fixed is an engine that always answers the same, and counts how often it was asked.
type fixed struct {
	response authzen.Response
	err      error
	ready    error
	panics   bool

	document dataapi.Document
	block    chan struct{} // if there is one, decisions wait until it is closed
	entered  chan struct{} // if there is one, told of each decision that is asked for
	byID     bool          // decide by the resource's id: yes, no or error

	mu        sync.Mutex
	asked     []authzen.Request
	questions []dataapi.Question
}

func (f *fixed) Evaluate(_ context.Context, r authzen.Request) (authzen.Response, error) {
	f.mu.Lock()
	f.asked = append(f.asked, r)
	f.mu.Unlock()
	f.wait()
	if f.panics {
		panic(canary)
	}
	if f.byID {
		about := &authzen.ResponseContext{DecisionID: "d-" + r.Resource.ID}
		if r.Resource.ID == "error" {
			return authzen.Response{Context: about}, errors.New("evaluation cancelled")
		}
		return authzen.Response{Decision: r.Resource.ID == "yes", Context: about}, nil
	}
	return f.response, f.err
}

func (f *fixed) Document(_ context.Context, q dataapi.Question) (dataapi.Document, error) {
	f.mu.Lock()
	f.questions = append(f.questions, q)
	f.mu.Unlock()
	f.wait()
	if f.panics {
		panic(canary)
	}
	return f.document, f.err
}

func (f *fixed) wait() {
	if f.entered != nil {
		f.entered <- struct{}{}
	}
	if f.block != nil {
		<-f.block
	}
}

func (f *fixed) Ready() error { return f.ready }

func allowing() *fixed {
	return &fixed{response: authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-1", Revision: "r-1"}}}
}

// service is a server under test and what it logs.
type service struct {
	http.Handler
	engine    *fixed
	log       *bytes.Buffer // of requests
	decisions *bytes.Buffer
	written   *decisionlog.Log
}

func serve(e *fixed) *service { return serveWith(e, server.Options{}) }

// serveWith serves with some options of a test's own.
func serveWith(e *fixed, opts server.Options) *service {
	s := &service{engine: e, log: &bytes.Buffer{}, decisions: &bytes.Buffer{}}
	s.written = decisionlog.New(telemetry.Logger(s.decisions, slog.LevelInfo))
	opts.Engine, opts.DecisionLog, opts.Log = e, s.written, telemetry.Logger(s.log, slog.LevelInfo)
	opts.Now = func() time.Time { return time.Date(2026, 3, 3, 11, 0, 0, 0, time.FixedZone("", 3600)) }
	s.Handler = server.New(opts)
	return s
}

// logged is what the decision log holds once it has been written out.
func (s *service) logged(t *testing.T) []map[string]any {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.written.Run(ctx); err != nil {
		t.Fatal(err)
	}
	var lines []map[string]any
	for line := range strings.Lines(s.decisions.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		lines = append(lines, m)
	}
	return lines
}

// do sends a request; headers are name, value pairs.
func (s *service) do(t *testing.T, method, path string, body io.Reader, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, body)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func (s *service) ask(t *testing.T, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return s.do(t, http.MethodPost, authzen.Path, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

// post posts the body to another path.
func (s *service) post(t *testing.T, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	return s.do(t, http.MethodPost, path, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
}

// wantProblem fails unless w is a whole problem document that repeats nothing of the request.
func wantProblem(t *testing.T, w *httptest.ResponseRecorder, status int, code string) web.ProblemDocument {
	t.Helper()
	var p web.ProblemDocument
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if w.Code != status || p.Status != status || p.Code != code || p.Type == "" || len(p.TraceID) != 32 {
		t.Errorf("answered %d %s, want %d %s", w.Code, w.Body, status, code)
	}
	if w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("headers %v", w.Header())
	}
	if strings.Contains(w.Body.String(), canary) {
		t.Errorf("the request is repeated: %s", w.Body)
	}
	return p
}

func TestADecisionIsA200(t *testing.T) {
	t.Parallel()
	for _, decision := range []bool{true, false} {
		e := &fixed{response: authzen.Response{Decision: decision, Context: &authzen.ResponseContext{
			DecisionID: "d-1", Revision: "r-1", Reasons: []string{"not_owner"}, Need: &authzen.Need{ACR: "aal2", MaxAge: 600},
		}}}
		w := serve(e).ask(t, body)
		var got authzen.Response
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusOK || got.Decision != decision || got.Context.DecisionID != "d-1" || got.Context.Need.MaxAge != 600 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if !strings.HasPrefix(w.Body.String(), `{"decision":`) { // a denial says so too
			t.Errorf("body %s", w.Body)
		}
		if len(e.asked) != 1 || e.asked[0].Subject.ID != "ann" || e.asked[0].Context["ip"] != "10.0.0.1" {
			t.Errorf("asked %+v", e.asked)
		}
	}
}

// S56: what is no request reaches no policy.
func TestABadBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	large := strings.Replace(body, "10.0.0.1", strings.Repeat("a", 10<<20), 1)
	for name, c := range map[string]struct {
		body, contentType, encoding string
		status                      int
		code                        string
	}{
		"malformed":       {canary, "application/json", "", 400, "bad_request"},
		"truncated":       {body[:len(body)-2], "application/json", "", 400, "bad_request"},
		"empty":           {"", "application/json", "", 400, "bad_request"},
		"wrong types":     {`{"subject":"canary-value","action":1,"resource":[]}`, "application/json", "", 400, "bad_request"},
		"member twice":    {strings.Replace(body, `"id":"17"`, `"id":"17","id":"canary-value"`, 1), "application/json", "", 400, "bad_request"},
		"10 MB":           {large, "application/json", "", 413, "body_too_large"},
		"no type":         {body, "", "", 415, "unsupported_media_type"},
		"form":            {body, "application/x-www-form-urlencoded", "", 415, "unsupported_media_type"},
		"text":            {body, "text/json", "", 415, "unsupported_media_type"},
		"malformed type":  {body, "application/json; charset", "", 415, "unsupported_media_type"},
		"another charset": {body, "application/json; charset=latin1", "", 415, "unsupported_media_type"},
		"encoded":         {body, "application/json", "gzip", 415, "unsupported_media_type"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := serve(allowing())
				r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, authzen.Path, strings.NewReader(c.body))
				if chunked {
					r.ContentLength = -1
				}
				if c.contentType != "" {
					r.Header.Set("Content-Type", c.contentType)
				}
				if c.encoding != "" {
					r.Header.Set("Content-Encoding", c.encoding)
				}
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				wantProblem(t, w, c.status, c.code)
				if len(s.engine.asked) != 0 {
					t.Errorf("the engine was asked %+v", s.engine.asked)
				}
				if strings.Contains(s.log.String(), canary) {
					t.Errorf("logged %s", s.log)
				}
			})
		}
	}
	for _, good := range []string{"application/json; charset=utf-8", "application/json; charset=UTF-8", "Application/JSON"} {
		if w := serve(allowing()).ask(t, body, "Content-Type", good); w.Code != http.StatusOK {
			t.Errorf("%s: %d", good, w.Code)
		}
	}
}

func TestWhatIsWrongIsSaidByFieldAndNotByValue(t *testing.T) {
	t.Parallel()
	w := serve(allowing()).ask(t, `{"subject":{"type":1,"id":"canary-value"},"action":{},"resource":{"type":"order","id":"17"},"Context":{"canary-value":1}}`)
	p := wantProblem(t, w, http.StatusBadRequest, "bad_request")
	paths := map[string]bool{}
	for _, e := range p.Errors {
		paths[e.Path] = true
	}
	if len(p.Errors) != 3 || !paths["context"] || !paths["subject.type"] || !paths["action.name"] {
		t.Errorf("errors %+v", p.Errors)
	}
}

// S56: a failure to decide is no decision. S67: it is logged under the id that the caller gets, without what the request holds.
func TestAFailureIsNoDecision(t *testing.T) {
	t.Parallel()
	failed := fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed")
	s := serve(&fixed{response: authzen.Response{Context: &authzen.ResponseContext{DecisionID: "d-9", Revision: "r-1"}}, err: failed.Because(errors.New("evaluation cancelled"))})
	p := wantProblem(t, s.ask(t, body), http.StatusServiceUnavailable, "policy_failed")
	if p.DecisionID != "d-9" {
		t.Errorf("decision %q", p.DecisionID)
	}
	lines := s.logged(t)
	if len(lines) != 1 || lines[0]["decision_id"] != "d-9" || lines[0]["msg"] != "not decided" || lines[0]["level"] != "ERROR" || lines[0]["error"] == "" {
		t.Errorf("logged %v", lines)
	}
	if all := s.decisions.String() + s.log.String(); strings.Contains(all, canary) {
		t.Errorf("logged %s", all)
	}
}

// S56: nor is a panic, an error that says it allows, or an answer that is no JSON.
func TestWhateverElseBreaksIsNoDecision(t *testing.T) {
	t.Parallel()
	yes := authzen.Response{Decision: true, Context: &authzen.ResponseContext{DecisionID: "d-1"}}
	notJSON := authzen.Response{Decision: true, Context: &authzen.ResponseContext{Obligations: map[string]any{"f": func() {}}}}
	for name, e := range map[string]*fixed{
		"panic": {panics: true}, "allowing error": {response: yes, err: errors.New(canary)}, "not JSON": {response: notJSON},
		"error without context": {err: errors.New(canary)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serve(e).ask(t, body)
			wantProblem(t, w, http.StatusInternalServerError, "internal")
			if strings.Contains(w.Body.String(), `"decision":`) {
				t.Errorf("a decision: %s", w.Body)
			}
		})
	}
}

// S67: every denial is logged with who, what, when in UTC, where from and why, and with nothing else of the request.
func TestEveryDenialIsLogged(t *testing.T) {
	t.Parallel()
	s := serve(&fixed{response: authzen.Response{Context: &authzen.ResponseContext{DecisionID: "d-2", Revision: "r-1", Reasons: []string{"not_owner"}}}})
	atTheEdge := strings.Replace(body, `"ip":"10.0.0.1"`, `"ip":"10.0.0.1","request_id":"`+trace+`"`, 1)
	s.ask(t, atTheEdge)
	s.ask(t, body, "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	lines := s.logged(t)
	if len(lines) != 2 {
		t.Fatalf("logged %v", lines)
	}
	for _, line := range lines {
		for name, want := range map[string]string{
			"msg": "denied", "decision_id": "d-2", "revision": "r-1", "subject_type": "user", "subject": "ann", "action": "GET", "resource_type": "order",
			"resource": "17", "address": "10.0.0.1", "decided_at": "2026-03-03T10:00:00Z", "trace_id": trace,
		} {
			if line[name] != want {
				t.Errorf("%s is %v, want %s", name, line[name], want)
			}
		}
		if reasons, ok := line["reasons"].([]any); !ok || len(reasons) != 1 || reasons[0] != "not_owner" {
			t.Errorf("reasons %v", line["reasons"])
		}
	}
	if all := s.decisions.String() + s.log.String(); strings.Contains(all, canary) {
		t.Errorf("logged %s", all)
	}
	allowed := serve(allowing())
	allowed.ask(t, body)
	if lines := allowed.logged(t); len(lines) != 0 {
		t.Errorf("an allowance is logged: %v", lines)
	}
}

func TestARequestIDIsEchoedIfItIsOne(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	for id, want := range map[string]string{
		"bfe9eb29-ab87-4ca3-be83-a1d5d8305716": "bfe9eb29-ab87-4ca3-be83-a1d5d8305716",
		strings.Repeat("a", 128):               strings.Repeat("a", 128),
		strings.Repeat("a", 129):               "", "": "", "a b": "", "a\tb": "", "a\r\nSet-Cookie: x": "", "\x7f": "", "é": "",
	} {
		if got := s.ask(t, body, "X-Request-ID", id).Header().Get("X-Request-ID"); got != want {
			t.Errorf("%q is echoed as %q", id, got)
		}
	}
	if got := s.ask(t, canary, "X-Request-ID", "r-1").Header().Get("X-Request-ID"); got != "r-1" {
		t.Errorf("with an error %q is echoed", got)
	}
}

func TestMetadataSaysWhereToAsk(t *testing.T) {
	t.Parallel()
	for base, want := range map[string]string{"": "http://pdp.test:8181", "https://pdp.example/": "https://pdp.example"} {
		h := server.New(server.Options{Engine: allowing(), DecisionLog: decisionlog.New(slog.New(slog.DiscardHandler)), Log: slog.New(slog.DiscardHandler), BaseURL: base})
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/.well-known/authzen-configuration", nil)
		r.Host = "pdp.test:8181"
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var got map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if w.Code != 200 || got["policy_decision_point"] != want || got["access_evaluation_endpoint"] != want+"/access/v1/evaluation" ||
			got["access_evaluations_endpoint"] != want+"/access/v1/evaluations" || len(got) != 3 {
			t.Errorf("%d %v", w.Code, got)
		}
	}
}

func TestOtherPathsAndMethodsAreProblems(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	for _, c := range []struct {
		method, path string
		status       int
		code, allow  string
	}{
		{"GET", "/", 404, "not_found", ""},
		{"POST", "/access/v1/evaluation/", 404, "not_found", ""},
		{"POST", "/access/v1/Evaluation", 404, "not_found", ""},
		{"GET", "/v1/data/gatehouse", 404, "not_found", ""},
		{"GET", "/debug/pprof/", 404, "not_found", ""},
		{"GET", "/access/v1/evaluation", 405, "method_not_allowed", "POST"},
		{"PUT", "/access/v1/evaluation", 405, "method_not_allowed", "POST"},
		{"POST", "/healthz", 405, "method_not_allowed", "GET, HEAD"},
		{"POST", "/.well-known/authzen-configuration", 405, "method_not_allowed", "GET, HEAD"},
	} {
		w := s.do(t, c.method, c.path, strings.NewReader(body), "Content-Type", "application/json")
		wantProblem(t, w, c.status, c.code)
		if got := w.Header().Get("Allow"); got != c.allow {
			t.Errorf("%s %s: Allow %q, want %q", c.method, c.path, got, c.allow)
		}
	}
	if len(s.engine.asked) != 0 {
		t.Errorf("the engine was asked %+v", s.engine.asked)
	}
}

func TestReadinessIsThatOfThePolicies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ready  error
		status int
		want   string
	}{
		{nil, 200, `"status":"ok"`},
		{fault.New(fault.Unavailable, "The policies have changed but do not load.").Named("degraded"), 200, `"status":"degraded"`},
		{errors.New(canary), 503, `"status":"unavailable"`},
	} {
		e := allowing()
		e.ready = c.ready
		s := serve(e)
		if w := s.do(t, "GET", "/readyz", nil); w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || strings.Contains(w.Body.String(), canary) {
			t.Errorf("%d %s, want %d %s", w.Code, w.Body, c.status, c.want)
		}
		if w := s.do(t, "GET", "/healthz", nil); w.Code != 200 {
			t.Errorf("healthz answers %d", w.Code)
		}
	}
}

// S70: on answers and on problems alike.
func TestAnswersCannotBeFramedSniffedOrCached(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	for _, w := range []*httptest.ResponseRecorder{s.ask(t, body), s.ask(t, canary), s.do(t, "GET", "/none", nil), s.do(t, "GET", "/readyz", nil)} {
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
		} {
			if got := w.Header().Get(name); got != want {
				t.Errorf("%d: %s is %q, want %q", w.Code, name, got, want)
			}
		}
	}
}
