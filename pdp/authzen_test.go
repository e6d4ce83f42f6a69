package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// interop is a file of decisions in the shape of the todo application of AuthZEN's interoperability tests: "decisions" as in its
// first version, whose requests have members that the final text does not know, the others as in the later ones.
type interop struct {
	Decisions   []interopCase `json:"decisions"`
	Evaluation  []interopCase `json:"evaluation"`
	Evaluations []struct {
		Request  json.RawMessage `json:"request"`
		Expected []struct {
			Decision bool `json:"decision"`
		} `json:"expected"`
	} `json:"evaluations"`
}

type interopCase struct {
	Request  json.RawMessage `json:"request"`
	Expected bool            `json:"expected"`
}

// With GATEHOUSE_AUTHZEN_FOLDER the published files are tried, which are not kept here: a folder of decisions*.json (those of
// draft 01 and later; before, a resource had its owner beside its properties), and policies/gatehouse with this folder's
// authz.rego and their users.
func TestAuthZENsTodoApplicationGetsItsDecisions(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("GATEHOUSE_AUTHZEN_FOLDER")
	if folder == "" {
		folder = filepath.Join("testdata", "authzen")
	}
	files, err := filepath.Glob(filepath.Join(folder, "decisions*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no decisions in %s, %v", folder, err)
	}
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{Dir: filepath.Join(folder, "policies"), Deadline: 5 * time.Second, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	pdp := httptest.NewServer(server.New(server.Options{Engine: e, DecisionLog: decisionlog.New(quiet), Log: quiet}))
	defer pdp.Close()
	endpoints := discover(t, pdp.URL)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var all interop
		if err := json.Unmarshal(text, &all); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, c := range append(all.Decisions, all.Evaluation...) {
			var got authzen.Response
			postJSON(t, endpoints["access_evaluation_endpoint"], c.Request, &got)
			if got.Decision != c.Expected {
				t.Errorf("%s: decided %v for %s", file, got.Decision, c.Request)
			}
		}
		for _, c := range all.Evaluations {
			var got authzen.BatchResponse
			postJSON(t, endpoints["access_evaluations_endpoint"], c.Request, &got)
			if len(got.Evaluations) != len(c.Expected) {
				t.Errorf("%s: %d decisions for %s", file, len(got.Evaluations), c.Request)
				continue
			}
			for i, want := range c.Expected {
				if got.Evaluations[i].Decision != want.Decision {
					t.Errorf("%s: decided %v at %d for %s", file, got.Evaluations[i].Decision, i, c.Request)
				}
			}
		}
		t.Logf("%s: %d single, %d in batches", filepath.Base(file), len(all.Decisions)+len(all.Evaluation), len(all.Evaluations))
	}
}

// discover reads the metadata, which must name the server as it was asked for (AuthZEN, section on validation).
func discover(t *testing.T, base string) map[string]string {
	t.Helper()
	res, err := testhttp.Client.Get(base + authzen.MetadataPath)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var m map[string]string
	if err := json.NewDecoder(res.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	if m["policy_decision_point"] != base {
		t.Errorf("%q names itself %q", base, m["policy_decision_point"])
	}
	return m
}

func postJSON(t *testing.T, url string, body []byte, into any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(string(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Request-ID", "bfe9eb29-ab87-4ca3-be83-a1d5d8305716")
	res, err := testhttp.Client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("X-Request-ID") != "bfe9eb29-ab87-4ca3-be83-a1d5d8305716" {
		t.Errorf("%s: %s, %v", body, res.Status, res.Header)
	}
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		t.Fatal(err)
	}
}
