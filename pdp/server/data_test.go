package server_test

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// telling is a server whose Data API answers below shop and orders/allow, with this value.
func telling(value any) *service {
	e := &fixed{document: dataapi.Document{Value: value, Defined: true, DecisionID: "d-1", Revision: "r-1"}}
	return serveWith(e, server.Options{DataPaths: []string{"shop", "/orders/allow/"}, OPAVersion: "1.2.3"})
}

// wantDataError fails unless w is a whole error in OPA's shape that repeats nothing of the request.
func wantDataError(t *testing.T, w *httptest.ResponseRecorder, status int, code string) dataapi.Error {
	t.Helper()
	var e dataapi.Error
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if w.Code != status || e.Code != code || e.Message == "" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("answered %d %s, want %d %s", w.Code, w.Body, status, code)
	}
	if strings.Contains(w.Body.String(), canary) {
		t.Errorf("the request is repeated: %s", w.Body)
	}
	return e
}

func TestTheDataAPIIsOffUnlessDocumentsAreNamed(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	for _, path := range []string{"/v1/data", "/v1/data/shop", "/v1/query", "/v1/policies", "/health"} {
		wantProblem(t, s.do(t, "GET", path, nil), 404, "not_found")
	}
}

// Documents that are not named are not told: neither those beside nor those above, which hold them too.
func TestOnlyNamedDocumentsAreTold(t *testing.T) {
	t.Parallel()
	s := telling(true)
	for _, path := range []string{"shop", "shop/allow", "orders/allow", "orders/allow/17"} {
		if w := s.do(t, "POST", "/v1/data/"+path, strings.NewReader(`{"input":{}}`)); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	asked := len(s.engine.questions)
	for _, path := range []string{"", "/", "/orders", "/shops", "/sho", "/Shop", "/orders/allowed", "/orders%2Fallow", "/gatehouse/authz", "/system", "/shop%2Fallow"} {
		wantDataError(t, s.do(t, "GET", "/v1/data"+path, nil), 403, "unauthorized")
	}
	if len(s.engine.questions) != asked {
		t.Errorf("the engine was asked %+v", s.engine.questions[asked:])
	}
	all := serveWith(&fixed{document: dataapi.Document{Value: 1, Defined: true}}, server.Options{DataPaths: []string{"/"}})
	for _, path := range []string{"/v1/data", "/v1/data/", "/v1/data/any/thing"} {
		if w := all.do(t, "GET", path, nil); w.Code != 200 {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

func TestAQuestionIsReadAsOPAReadsIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method, path, body string
		want               dataapi.Question
		warned             bool
	}{
		{"POST", "/v1/data/shop/a%2Fb/%20/7/", `{"input":{"n":1.50}}`, dataapi.Question{Path: []string{"shop", "a/b", " ", "7"}, Input: map[string]any{"n": json.Number("1.50")}, HasInput: true}, false},
		{"POST", "/v1/data/shop", `{"input":false,"other":1}`, dataapi.Question{Path: []string{"shop"}, Input: false, HasInput: true}, false},
		{"POST", "/v1/data/shop", `{"input":null}`, dataapi.Question{Path: []string{"shop"}}, true},
		{"POST", "/v1/data/shop", `{}`, dataapi.Question{Path: []string{"shop"}}, true},
		{"POST", "/v1/data/shop", " ", dataapi.Question{Path: []string{"shop"}}, true},
		{"GET", "/v1/data/shop", "", dataapi.Question{Path: []string{"shop"}}, false},
		{"GET", "/v1/data/shop?input=" + url.QueryEscape(`["a",1]`), "", dataapi.Question{Path: []string{"shop"}, Input: []any{"a", json.Number("1")}, HasInput: true}, false},
		{"GET", "/v1/data/shop?input=null", "", dataapi.Question{Path: []string{"shop"}, HasInput: true}, false},
	} {
		s := telling(true)
		w := s.do(t, c.method, c.path, strings.NewReader(c.body))
		if w.Code != 200 || len(s.engine.questions) != 1 || !reflect.DeepEqual(s.engine.questions[0], c.want) {
			t.Errorf("%s %s %s: %d %s, asked %+v", c.method, c.path, c.body, w.Code, w.Body, s.engine.questions)
		}
		if warned := strings.Contains(w.Body.String(), "api_usage_warning"); warned != c.warned {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.body, w.Body)
		}
	}
}

// OPA's webhook API: the body is the input, the answer is the value, and there is nothing at / unless system/main is named.
func TestPOSTToTheRootIsForTheDefaultDocument(t *testing.T) {
	t.Parallel()
	for _, paths := range [][]string{{"system/main"}, {"/system"}, {"/"}} {
		for body, want := range map[string]dataapi.Question{
			`{"input":{"n":1.50}}`: {Path: []string{"system", "main"}, Input: map[string]any{"input": map[string]any{"n": json.Number("1.50")}}, HasInput: true},
			" [1] ":                {Path: []string{"system", "main"}, Input: []any{json.Number("1")}, HasInput: true},
			"null":                 {Path: []string{"system", "main"}, HasInput: true},
			" ":                    {Path: []string{"system", "main"}, HasInput: true}, // null, as with OPA
		} {
			s := serveWith(&fixed{document: dataapi.Document{Value: map[string]any{"allowed": true}, Defined: true, DecisionID: "d-1"}}, server.Options{DataPaths: paths})
			w := s.do(t, "POST", "/", strings.NewReader(body))
			if w.Code != 200 || w.Body.String() != `{"allowed":true}`+"\n" || len(s.engine.questions) != 1 || !reflect.DeepEqual(s.engine.questions[0], want) {
				t.Errorf("%v %s: %d %s, asked %+v", paths, body, w.Code, w.Body, s.engine.questions)
			}
		}
	}
	named := func(e *fixed) *service {
		return serveWith(e, server.Options{DataPaths: []string{"system/main"}, MaxBody: 100})
	}
	undefined := wantDataError(t, named(&fixed{document: dataapi.Document{DecisionID: "d-9"}}).do(t, "POST", "/", strings.NewReader(`{"a":"canary-value"}`)), 404, "undefined_document")
	if undefined.DecisionID != "d-9" {
		t.Errorf("undefined: %+v", undefined)
	}
	wantDataError(t, named(&fixed{err: errors.New(canary)}).do(t, "POST", "/", strings.NewReader(`{}`)), 500, "internal_error")
	wantDataError(t, named(&fixed{panics: true}).do(t, "POST", "/", strings.NewReader(`{}`)), 500, "internal_error")
	for body, status := range map[string]int{`{"a":1,"a":"canary-value"}`: 400, canary: 400, "\"\xff\"": 400, `"` + strings.Repeat("a", 100) + `"`: 413} {
		s := named(&fixed{})
		wantDataError(t, s.do(t, "POST", "/", strings.NewReader(body)), status, "invalid_parameter")
		if len(s.engine.questions) != 0 {
			t.Errorf("%s: the engine was asked %+v", body, s.engine.questions)
		}
	}
	for _, s := range []*service{serve(allowing()), telling(true)} {
		wantProblem(t, s.do(t, "POST", "/", strings.NewReader(`{}`)), 404, "not_found")
	}
	wantProblem(t, named(&fixed{}).do(t, "GET", "/", nil), 405, "method_not_allowed")
}

// OPA's older Data API is the same for every document that is named, and for no other.
func TestTheOlderDataAPIAnswersTheBareValue(t *testing.T) {
	t.Parallel()
	s := telling(false)
	w := s.do(t, "POST", "/v0/data/shop/a%2Fb/%20/7/?pretty", strings.NewReader(`{"input":{"n":1.50}}`))
	want := dataapi.Question{Path: []string{"shop", "a/b", " ", "7"}, Input: map[string]any{"input": map[string]any{"n": json.Number("1.50")}}, HasInput: true}
	if w.Code != 200 || w.Body.String() != "false\n" || len(s.engine.questions) != 1 || !reflect.DeepEqual(s.engine.questions[0], want) {
		t.Errorf("%d %s, asked %+v", w.Code, w.Body, s.engine.questions)
	}
	s = telling(true)
	for _, path := range []string{"", "/", "/orders", "/shops", "/orders%2Fallow", "/gatehouse/authz", "/system/main"} {
		wantDataError(t, s.do(t, "POST", "/v0/data"+path, strings.NewReader(`{}`)), 403, "unauthorized")
	}
	for _, method := range []string{"GET", "PUT", "PATCH", "DELETE"} {
		w := s.do(t, method, "/v0/data/shop", strings.NewReader(`{}`))
		if wantDataError(t, w, 405, "invalid_operation"); w.Header().Get("Allow") != "POST" {
			t.Errorf("%s: %v", method, w.Header())
		}
	}
	for body, status := range map[string]int{`{"a":1,"a":"canary-value"}`: 400, canary: 400, "\"\xff\"": 400} {
		wantDataError(t, s.do(t, "POST", "/v0/data/shop", strings.NewReader(body)), status, "invalid_parameter")
	}
	wantDataError(t, s.do(t, "POST", "/v0/data/"+strings.Repeat("a", 3000), strings.NewReader(`{}`)), 400, "invalid_parameter")
	if len(s.engine.questions) != 0 {
		t.Errorf("the engine was asked %+v", s.engine.questions)
	}
	undefined := serveWith(&fixed{document: dataapi.Document{DecisionID: "d-9"}}, server.Options{DataPaths: []string{"shop"}})
	wantDataError(t, undefined.do(t, "POST", "/v0/data/shop", strings.NewReader(`{"a":"canary-value"}`)), 404, "undefined_document")
	wantProblem(t, serve(allowing()).do(t, "POST", "/v0/data/shop", strings.NewReader(`{}`)), 404, "not_found")
}

// S56: what has two readings, or none, reaches no policy.
func TestABadQuestionIsAnErrorInOPAsShape(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		status             int
		code               string
	}{
		"malformed":               {"POST", "/v1/data/shop", canary, nil, 400, "invalid_parameter"},
		"cut short":               {"POST", "/v1/data/shop", `{"input":`, nil, 400, "invalid_parameter"},
		"array":                   {"POST", "/v1/data/shop", `["canary-value"]`, nil, 400, "invalid_parameter"},
		"input twice":             {"POST", "/v1/data/shop", `{"input":1,"input":"canary-value"}`, nil, 400, "invalid_parameter"},
		"twice within":            {"POST", "/v1/data/shop", `{"input":{"a":1,"a":2}}`, nil, 400, "invalid_parameter"},
		"input in another case":   {"POST", "/v1/data/shop", `{"Input":1}`, nil, 400, "invalid_parameter"},
		"not UTF-8":               {"POST", "/v1/data/shop", "{\"input\":\"\xff\"}", nil, 400, "invalid_parameter"},
		"depth 10,000":            {"POST", "/v1/data/shop", `{"input":` + strings.Repeat("[", 10_000), nil, 400, "invalid_parameter"},
		"10 MB":                   {"POST", "/v1/data/shop", `{"input":"` + strings.Repeat("a", 10<<20), nil, 413, "invalid_parameter"},
		"gzip":                    {"POST", "/v1/data/shop", "{}", []string{"Content-Encoding", "gzip"}, 415, "invalid_parameter"},
		"YAML":                    {"POST", "/v1/data/shop", "input: 1", []string{"Content-Type", "application/x-yaml"}, 415, "invalid_parameter"},
		"malformed parameter":     {"GET", "/v1/data/shop?input=canary-value", "", nil, 400, "invalid_parameter"},
		"explain":                 {"POST", "/v1/data/shop?explain=full", "{}", nil, 400, "invalid_parameter"},
		"instrument":              {"POST", "/v1/data/shop?instrument", "{}", nil, 400, "invalid_parameter"},
		"rule labels":             {"GET", "/v1/data/shop?rule_labels=true", "", nil, 400, "invalid_parameter"},
		"control character":       {"GET", "/v1/data/shop/%00", "", nil, 400, "invalid_parameter"},
		"quote":                   {"GET", "/v1/data/shop/%22" + canary, "", nil, 400, "invalid_parameter"},
		"path not UTF-8":          {"GET", "/v1/data/shop/%ff", "", nil, 400, "invalid_parameter"},
		"path too long":           {"GET", "/v1/data/shop/" + strings.Repeat("a", 3000), "", nil, 400, "invalid_parameter"},
		"path too deep":           {"GET", "/v1/data/shop" + strings.Repeat("/a", 64), "", nil, 400, "invalid_parameter"},
		"PUT of data":             {"PUT", "/v1/data/shop", "{}", nil, 405, "invalid_operation"},
		"PATCH of data":           {"PATCH", "/v1/data/shop", "[]", nil, 405, "invalid_operation"},
		"DELETE of data":          {"DELETE", "/v1/data", "", nil, 405, "invalid_operation"},
		"PUT of a policy":         {"PUT", "/v1/policies/x", "package x", nil, 403, "invalid_operation"},
		"DELETE of a policy":      {"DELETE", "/v1/policies/x", "", nil, 403, "invalid_operation"},
		"policies":                {"GET", "/v1/policies", "", nil, 403, "invalid_operation"},
		"query":                   {"POST", "/v1/query", `{"query":"x = 1"}`, nil, 403, "invalid_operation"},
		"query by GET":            {"GET", "/v1/query?q=data", "", nil, 403, "invalid_operation"},
		"compile":                 {"POST", "/v1/compile/a/b", "{}", nil, 403, "invalid_operation"},
		"configuration":           {"GET", "/v1/config", "", nil, 403, "invalid_operation"},
		"status":                  {"GET", "/v1/status", "", nil, 403, "invalid_operation"},
		"something else":          {"GET", "/v1/canary-value", "", nil, 404, "resource_not_found"},
		"something like a query":  {"GET", "/v1/queryx", "", nil, 404, "resource_not_found"},
		"something like the data": {"GET", "/v1/database", "", nil, 404, "resource_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := telling(true)
			w := s.do(t, c.method, c.path, strings.NewReader(c.body), c.headers...)
			wantDataError(t, w, c.status, c.code)
			if c.status == 405 && w.Header().Get("Allow") != "GET, POST" {
				t.Errorf("Allow %q", w.Header().Get("Allow"))
			}
			if len(s.engine.questions) != 0 {
				t.Errorf("the engine was asked %+v", s.engine.questions)
			}
		})
	}
}

// S56, S69: a failure is neither a result nor undefined, and says nothing of its cause.
func TestADocumentThatFailsIsA500(t *testing.T) {
	t.Parallel()
	failed := fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed").Because(errors.New(canary))
	for name, e := range map[string]*fixed{
		"fault": {err: failed}, "error": {err: errors.New(canary)}, "panic": {panics: true},
		"no JSON":            {document: dataapi.Document{Value: func() {}, Defined: true}},
		"error with a value": {err: failed, document: dataapi.Document{Value: true, Defined: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if e.document.DecisionID = "d-9"; name == "panic" {
				e.document.DecisionID = ""
			}
			s := serveWith(e, server.Options{DataPaths: []string{"/"}})
			got := wantDataError(t, s.do(t, "POST", "/v1/data/shop/allow", strings.NewReader(`{"input":{}}`)), 500, "internal_error")
			if name != "panic" && got.DecisionID != "d-9" {
				t.Errorf("decision id %q", got.DecisionID)
			}
			if errors.Is(e.err, failed) && (len(got.Errors) != 1 || got.Errors[0].Code != "policy_failed") {
				t.Errorf("errors %+v", got.Errors)
			}
			if strings.Contains(s.log.String(), canary) {
				t.Errorf("logged %s", s.log)
			}
		})
	}
}

// S67: what is not a plain yes is logged: who was told what, when, without the input.
func TestTheLogTellsWhatTheDataAPITold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		document         dataapi.Document
		outcome, message string
	}{
		"true":                  {dataapi.Document{Value: true, Defined: true}, "", ""},
		"an object that allows": {dataapi.Document{Value: map[string]any{"allow": true, "headers": nil}, Defined: true}, "", ""},
		"one that is allowed":   {dataapi.Document{Value: map[string]any{"allowed": true}, Defined: true}, "", ""},
		"one that is not":       {dataapi.Document{Value: map[string]any{"allowed": false}, Defined: true}, "deny", "denied"},
		"false":                 {dataapi.Document{Value: false, Defined: true}, "deny", "denied"},
		"an object that denies": {dataapi.Document{Value: map[string]any{"allow": false}, Defined: true}, "deny", "denied"},
		"a decision of no rule": {dataapi.Document{Value: map[string]any{"allow": false, "reasons": []any{"no_rule"}}, Defined: true}, "not_applicable", "denied"},
		"of no rule and another": {
			dataapi.Document{Value: map[string]any{"allow": false, "reasons": []any{"not_owner", "action_unknown"}}, Defined: true}, "deny", "denied",
		},
		"no list of reasons":    {dataapi.Document{Value: map[string]any{"allow": false, "reasons": []any{"no_rule", true}}, Defined: true}, "deny", "denied"},
		"a reason, and allowed": {dataapi.Document{Value: map[string]any{"allow": true, "reasons": []any{"no_rule"}}, Defined: true}, "", ""},
		"undefined":             {dataapi.Document{}, "not_applicable", "denied"},
		"an object":             {dataapi.Document{Value: map[string]any{"roles": []any{}}, Defined: true}, "document", "document told"},
		"allow is text":         {dataapi.Document{Value: map[string]any{"allow": "true"}, Defined: true}, "document", "document told"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.document.DecisionID, c.document.Revision = "d-1", "r-1"
			s := serveWith(&fixed{document: c.document}, server.Options{DataPaths: []string{"/"}})
			w := s.do(t, "POST", "/v1/data/shop/allow", strings.NewReader(`{"input":{"secret":"canary-value"}}`), "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
			if defined := strings.Contains(w.Body.String(), `"result"`); w.Code != 200 || defined != c.document.Defined || !strings.Contains(w.Body.String(), `"decision_id":"d-1"`) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			lines := s.logged(t)
			if c.outcome == "" {
				if len(lines) != 0 {
					t.Errorf("logged %v", lines)
				}
				return
			}
			if len(lines) != 1 {
				t.Fatalf("logged %v", lines)
			}
			for name, want := range map[string]string{"outcome": c.outcome, "msg": c.message, "path": "/shop/allow", "decision_id": "d-1", "revision": "r-1",
				"trace_id": trace, "decided_at": "2026-03-03T10:00:00Z"} {
				if lines[0][name] != want {
					t.Errorf("%s is %v, want %s", name, lines[0][name], want)
				}
			}
			if strings.Contains(s.decisions.String(), canary) {
				t.Errorf("logged %s", s.decisions)
			}
		})
	}
}

func TestProvenanceMetricsAndPrettyAreAnswered(t *testing.T) {
	t.Parallel()
	w := telling([]any{"a"}).do(t, "GET", "/v1/data/shop?provenance&metrics=true&pretty", nil)
	var got dataapi.Response
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Provenance == nil || got.Provenance.Version != "1.2.3" || got.Provenance.Bundles["policies"].Revision != "r-1" {
		t.Errorf("provenance %+v", got.Provenance)
	}
	if _, ok := got.Metrics["timer_server_handler_ns"]; !ok || len(got.Metrics) != 3 {
		t.Errorf("metrics %v", got.Metrics)
	}
	if !strings.Contains(w.Body.String(), "\n  \"result\": [\n") {
		t.Errorf("not pretty: %s", w.Body)
	}
	w = telling([]any{"a"}).do(t, "GET", "/v1/data/shop?provenance=false&metrics=no&pretty=false&unknown=1", nil)
	if w.Body.String() != `{"decision_id":"d-1","result":["a"]}`+"\n" {
		t.Errorf("%s", w.Body)
	}
}

func TestHealthIsAsOPAAnswersIt(t *testing.T) {
	t.Parallel()
	degraded := fault.New(fault.Unavailable, "The policies have changed but do not load.").Named("degraded")
	for _, c := range []struct {
		ready  error
		path   string
		status int
		body   string
	}{
		{nil, "/health", 200, `{}`}, {nil, "/health?bundles", 200, `{}`}, {nil, "/health?plugins&exclude-plugin=x", 200, `{}`},
		{degraded, "/health?bundles", 200, `{}`}, // older policies decide, as in OPA
		{errors.New(canary), "/health", 200, `{}`}, {errors.New(canary), "/health?bundles=true", 500, `{"error":"one or more bundles are not activated"}`},
	} {
		e := allowing()
		e.ready = c.ready
		w := serveWith(e, server.Options{DataPaths: []string{"x"}}).do(t, "GET", c.path, nil)
		if w.Code != c.status || w.Body.String() != c.body {
			t.Errorf("%s with %v: %d %s", c.path, c.ready, w.Code, w.Body)
		}
	}
}

// FuzzQuestion holds that whatever is sent, the answer is JSON and of a status that OPA's clients know, and that what reaches
// the engine is a document that may be told.
func FuzzQuestion(f *testing.F) {
	f.Add("GET", "/v1/data/shop/allow?input=%7B%7D", "", "")
	f.Add("POST", "/v1/data/shop/allow", `{"input":{"a":[1,"b",null]}}`, "application/json")
	f.Add("POST", "/v1/data/shop/%2e%2e/gatehouse", `{"input":1,"input":2}`, "text/yaml")
	f.Add("PUT", "/v1/data/shop", `{}`, "")
	f.Add("GET", "/v1/data/shop?explain=full&pretty", "", "")
	f.Add("POST", "/", `{"a":1}`, "")
	f.Add("POST", "/v0/data/shop/%2e%2e/gatehouse", `{"a":1}`, "")
	s := serveWith(&fixed{document: dataapi.Document{Value: true, Defined: true}}, server.Options{DataPaths: []string{"shop", "orders/allow", "system/main"}})
	f.Fuzz(func(t *testing.T, method, target, body, contentType string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || !strings.HasPrefix(target, "/v1/data") && !strings.HasPrefix(target, "/v0/data/") && u.Path != "/" || strings.ContainsAny(target, " \r\n") {
			return
		}
		r := &http.Request{Method: method, URL: u, Host: "pdp", Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
		w := httptest.NewRecorder()
		s.engine.questions = nil
		s.ServeHTTP(w, r.WithContext(t.Context()))
		switch w.Code {
		case 200, 400, 403, 404, 405, 413, 415:
		case 301, 307, 308: // to the clean path
			return
		default:
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Fatalf("%d %q", w.Code, w.Body)
		}
		for _, q := range s.engine.questions {
			if q.Path[0] != "shop" && (q.Path[0] != "orders" || q.Path[1] != "allow") && (q.Path[0] != "system" || q.Path[1] != "main") {
				t.Fatalf("%q was asked", q.Path)
			}
		}
	})
}
