package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// askBatch sends a batch.
func (s *service) askBatch(t *testing.T, body string, headers ...string) (int, authzen.BatchResponse, string) {
	t.Helper()
	w := s.do(t, http.MethodPost, authzen.BatchPath, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, headers...)...)
	var b authzen.BatchResponse
	if err := json.Unmarshal(w.Body.Bytes(), &b); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return w.Code, b, w.Body.String()
}

// orders is a batch on these orders.
func orders(semantic string, ids ...string) string {
	items := make([]string, len(ids))
	for i, id := range ids {
		items[i] = fmt.Sprintf(`{"resource":{"type":"order","id":%q}}`, id)
	}
	return fmt.Sprintf(`{"subject":{"type":"user","id":"ann"},"action":{"name":"GET"},"context":{"ip":"10.0.0.1","secret":%q},"options":{"evaluations_semantic":%q},"evaluations":[%s]}`,
		canary, semantic, strings.Join(items, ","))
}

// AuthZEN, section "Evaluations semantics". The engine allows "yes…", denies "no…" and fails at "error…".
func TestABatchStopsWhereItsSemanticSays(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ semantic, asked, decided string }{
		{"execute_all", "yes no error yes", "yes no error yes"},
		{"execute_all", "no no", "no no"},
		{"deny_on_first_deny", "yes no yes", "yes no"},
		{"deny_on_first_deny", "yes error yes", "yes error"},
		{"deny_on_first_deny", "yes yes", "yes yes"},
		{"permit_on_first_permit", "no error yes no", "no error yes"},
		{"permit_on_first_permit", "yes no", "yes"},
		{"permit_on_first_permit", "no no", "no no"},
	} {
		t.Run(c.semantic+" "+c.asked, func(t *testing.T) {
			t.Parallel()
			e := &fixed{byID: true}
			s := serve(e)
			status, got, text := s.askBatch(t, orders(c.semantic, strings.Fields(c.asked)...))
			want := strings.Fields(c.decided)
			if status != http.StatusOK || len(got.Evaluations) != len(want) || len(e.asked) != len(want) {
				t.Fatalf("%d %s, asked %d times", status, text, len(e.asked))
			}
			denied := 0
			for i, id := range want {
				r := got.Evaluations[i]
				if r.Decision != (id == "yes") || r.Context.DecisionID != "d-"+id || (r.Context.Error != nil) != (id == "error") {
					t.Errorf("%d: %+v", i, r)
				}
				if id != "yes" {
					denied++
				}
			}
			if strings.Contains(text, canary) || strings.HasPrefix(text, `{"decision"`) {
				t.Errorf("body %s", text)
			}
			// S67: each denial has its line.
			lines := s.logged(t)
			if len(lines) != denied {
				t.Errorf("logged %d lines, want %d", len(lines), denied)
			}
			if strings.Contains(s.decisions.String(), canary) {
				t.Errorf("logged %s", s.decisions)
			}
		})
	}
}

// S56: what fails in a batch is a denial with a code of its own, apart from those that a rule makes.
func TestWhatFailsInABatchIsADenialThatSaysSo(t *testing.T) {
	t.Parallel()
	failed := fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed").Because(errors.New(canary))
	for name, c := range map[string]struct {
		engine *fixed
		want   authzen.Error
	}{
		"fault":           {&fixed{err: failed}, authzen.Error{Status: 503, Code: "policy_failed", Message: "No decision could be made."}},
		"panic":           {&fixed{panics: true}, authzen.Error{Status: 500, Code: "internal"}},
		"allowing error":  {&fixed{response: allowing().response, err: errors.New(canary)}, authzen.Error{Status: 500, Code: "internal"}},
		"answers nothing": {&fixed{err: errors.New(canary)}, authzen.Error{Status: 500, Code: "internal"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(c.engine)
			status, got, text := s.askBatch(t, orders("execute_all", "1", "2"))
			if status != http.StatusOK || len(got.Evaluations) != 2 || strings.Contains(text, canary) {
				t.Fatalf("%d %s", status, text)
			}
			for _, r := range got.Evaluations {
				if r.Decision || r.Context.Outcome != authzen.Indeterminate || r.Context.Error == nil || r.Context.Error.Status != c.want.Status || r.Context.Error.Code != c.want.Code {
					t.Errorf("%+v, error %+v", r, r.Context.Error)
				}
			}
			for _, line := range s.logged(t) {
				if line["outcome"] != "indeterminate" || line["msg"] != "not decided" || line["level"] != "ERROR" {
					t.Errorf("logged %v", line)
				}
			}
		})
	}
}

func TestABatchWithoutEvaluationsIsAnsweredAsASingleOne(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	w := s.do(t, http.MethodPost, authzen.BatchPath, strings.NewReader(body), "Content-Type", "application/json")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Body.String(), `{"decision":true`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	s = serve(&fixed{err: errors.New(canary)})
	wantProblem(t, s.do(t, http.MethodPost, authzen.BatchPath, strings.NewReader(body), "Content-Type", "application/json"), 500, "internal")
}

// S56: nothing of a bad batch is decided.
func TestABadBatchIsNoRequest(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body, contentType string
		status            int
		code, path        string
	}{
		"malformed":     {canary, "application/json", 400, "bad_request", ""},
		"no subject":    {strings.Replace(orders("execute_all", "1", "2"), `"subject"`, `"whoever"`, 1), "application/json", 400, "bad_request", "evaluations.0.subject"},
		"semantic":      {orders(canary, "1"), "application/json", 400, "bad_request", "options.evaluations_semantic"},
		"too many":      {orders("execute_all", "1", "2", "3", "4"), "application/json", 400, "batch_too_large", ""},
		"too large":     {orders("execute_all", strings.Repeat("1", 5000)), "application/json", 413, "body_too_large", ""},
		"another type":  {orders("execute_all", "1"), "text/plain", 415, "unsupported_media_type", ""},
		"twice the id":  {strings.Replace(orders("execute_all", "1"), `"id":"ann"`, `"id":"ann","id":"bob"`, 1), "application/json", 400, "bad_request", ""},
		"not UTF-8":     {orders("execute_all", "1") + "\xff", "application/json", 400, "bad_request", ""},
		"depth 10,000":  {strings.Repeat(`{"evaluations":[`, 10_000), "application/json", 413, "body_too_large", ""},
		"depth 100":     {strings.Repeat(`{"evaluations":[`, 100), "application/json", 400, "bad_request", ""},
		"NUL in a name": {`{"subject` + "\x00" + `":1}`, "application/json", 400, "bad_request", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serveWith(allowing(), server.Options{MaxBatch: 3, MaxBody: 4096})
			w := s.do(t, http.MethodPost, authzen.BatchPath, strings.NewReader(c.body), "Content-Type", c.contentType, "X-Request-ID", "r-1")
			p := wantProblem(t, w, c.status, c.code)
			if w.Header().Get("X-Request-ID") != "r-1" {
				t.Error("the request id is not echoed")
			}
			if c.path != "" && (len(p.Errors) == 0 || p.Errors[0].Path != c.path) {
				t.Errorf("errors %+v", p.Errors)
			}
			if len(s.engine.asked) != 0 {
				t.Errorf("the engine was asked %+v", s.engine.asked)
			}
		})
	}
}

func TestARequestIDIsEchoedWhateverTheAnswer(t *testing.T) {
	t.Parallel()
	s := serve(allowing())
	large := io.LimitReader(strings.NewReader(strings.Repeat("a", 2<<20)), 2<<20)
	for path, body := range map[string]io.Reader{authzen.BatchPath: strings.NewReader(orders("execute_all", "1")), "/nowhere": nil, authzen.Path: large} {
		if w := s.do(t, http.MethodPost, path, body, "Content-Type", "application/json", "X-Request-ID", "r-1"); w.Header().Get("X-Request-ID") != "r-1" {
			t.Errorf("%s: %d without the request id", path, w.Code)
		}
	}
}

// S67: the log tells why there was no permit.
func TestTheLogTellsTheOutcome(t *testing.T) {
	t.Parallel()
	for _, outcome := range []authzen.Outcome{authzen.Deny, authzen.NotApplicable, authzen.Indeterminate} {
		s := serve(&fixed{response: authzen.Response{Context: &authzen.ResponseContext{DecisionID: "d-2", Outcome: outcome}}})
		s.ask(t, body)
		if lines := s.logged(t); len(lines) != 1 || lines[0]["outcome"] != string(outcome) {
			t.Errorf("%s: logged %v", outcome, lines)
		}
	}
}
