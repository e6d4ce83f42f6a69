package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/server/types"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// dataCase is a request to OPA's Data API and what OPA answered.
type dataCase struct {
	Name   string          `json:"name"`
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Body   string          `json:"body,omitempty"`
	Status int             `json:"status"`
	Answer json.RawMessage `json:"answer"`
}

// dataFolder is the policies and cases. The answers are those of OPA itself: with an OPA of the version in go.mod that serves
// the folder's policies with decision_logs.console=true at GATEHOUSE_OPA_URL, the test writes them anew.
const dataFolder = "testdata/dataapi"

func readDataCases(t *testing.T) []dataCase {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dataFolder, "cases.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []dataCase
	if err := json.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	return cases
}

func (c dataCase) ask(t *testing.T, base string) (status int, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), c.Method, base+c.Path, strings.NewReader(c.Body))
	if err != nil {
		t.Fatal(err)
	}
	if c.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: content type %q", c.Name, got)
	}
	return res.StatusCode, body
}

// record writes what the OPA at base answers into the cases.
func record(t *testing.T, base string, cases []dataCase) {
	t.Helper()
	for i := range cases {
		status, body := cases[i].ask(t, base)
		m := decoded(t, body)
		if status != http.StatusOK {
			m = map[string]any{"code": m["code"]}
		}
		answer, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		cases[i].Status, cases[i].Answer = status, answer
	}
	text, err := json.MarshalIndent(cases, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dataFolder, "cases.json"), append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// dataPDP serves the folder's policies.
func dataPDP(t *testing.T) *httptest.Server {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{Dir: filepath.Join(dataFolder, "policies"), Deadline: 5 * time.Second, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	pdp := httptest.NewServer(server.New(server.Options{Engine: e, DecisionLog: decisionlog.New(quiet), Log: quiet, DataPaths: []string{"/"}}))
	t.Cleanup(pdp.Close)
	return pdp
}

// The answers of errors are compared by status and code: their texts are for people, and OPA's repeat what was sent.
func TestTheDataAPIAnswersAsOPADoes(t *testing.T) {
	t.Parallel()
	cases := readDataCases(t)
	if base := os.Getenv("GATEHOUSE_OPA_URL"); base != "" {
		record(t, base, cases)
	}
	pdp := dataPDP(t)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			status, body := c.ask(t, pdp.URL)
			if status != c.Status {
				t.Errorf("answered %d %s, OPA %d %s", status, body, c.Status, c.Answer)
			}
			if status != http.StatusOK {
				var mine, theirs types.ErrorV1
				_, _ = json.Unmarshal(body, &mine), json.Unmarshal(c.Answer, &theirs) // errors do not decode
				if mine.Code != theirs.Code || mine.Message == "" {
					t.Errorf("answered %s, OPA %s", body, c.Answer)
				}
				return
			}
			if diff := cmp.Diff(decoded(t, c.Answer), decoded(t, body)); diff != "" {
				t.Errorf("other than OPA (-OPA +Gatehouse):\n%s", diff)
			}
			if spread := bytes.Count(body, []byte("\n")) > 1; spread != (strings.HasSuffix(c.Path, "?pretty") || strings.HasSuffix(c.Path, "?pretty=true")) {
				t.Errorf("spread over lines: %v", spread)
			}
			if strings.HasPrefix(c.Path, "/v0/") {
				return
			}
			// OPA's own type takes it.
			var answer types.DataResponseV1
			if err := json.Unmarshal(body, &answer); err != nil {
				t.Error(err)
			}
			if strings.HasPrefix(c.Path, "/v1/") && len(answer.DecisionID) != 36 {
				t.Errorf("decision id %q", answer.DecisionID)
			}
		})
	}
}

// decoded is an answer without its id, its numbers as they are written. One that is no object stands under "".
func decoded(t *testing.T, body []byte) map[string]any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	m, ok := v.(map[string]any)
	if !ok {
		return map[string]any{"": v}
	}
	if id, ok := m["decision_id"].(string); ok && id != "" {
		m["decision_id"] = "some"
	}
	return m
}
