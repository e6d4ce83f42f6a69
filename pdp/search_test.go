package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/testhttp"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// searching serves policies whose searches anybody may make.
func searching(t *testing.T, policies fs.FS) string {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{Policies: policies, Deadline: 5 * time.Second, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	pdp := httptest.NewServer(server.New(server.Options{
		Engine: e, Search: e, SearchCallers: []string{server.AnyCaller}, DecisionLog: decisionlog.New(quiet), Log: quiet, BatchTime: 20 * time.Second,
	}))
	t.Cleanup(func() {
		pdp.Close()
		e.Close()
	})
	return pdp.URL
}

// keyed reads a list of objects as an object by their ids.
func keyed(t *testing.T, file string) map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	all := map[string]any{}
	for _, o := range list {
		all[fmt.Sprint(o["id"])] = o
	}
	return all
}

// searchScenario is the policies of AuthZEN's search scenario over the users and records of a folder.
func searchScenario(t *testing.T, folder string) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	rules := os.DirFS(filepath.Join("testdata", "search", "policies"))
	for _, name := range []string{"gatehouse/authz.rego", "gatehouse/search.rego", "gatehouse/verbs.yaml"} {
		text, err := fs.ReadFile(rules, name)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: text}
	}
	for name, file := range map[string]string{"users": "users.json", "records": "records.json"} {
		text, err := json.Marshal(map[string]any{name: keyed(t, filepath.Join(folder, file))})
		if err != nil {
			t.Fatal(err)
		}
		files["gatehouse/"+file] = &fstest.MapFile{Data: text}
	}
	return files
}

// With GATEHOUSE_AUTHZEN_SEARCH_FOLDER the published files are tried, which are not kept here: users.json and records.json of the
// search scenario, and its results as subject.json, resource.json and action.json.
func TestAuthZENsSearchScenarioGetsItsResults(t *testing.T) {
	t.Parallel()
	folder := os.Getenv("GATEHOUSE_AUTHZEN_SEARCH_FOLDER")
	if folder == "" {
		folder = filepath.Join("testdata", "search")
	}
	endpoints := discover(t, searching(t, searchScenario(t, folder)))
	for kind, endpoint := range map[string]string{"subject": endpoints["search_subject_endpoint"], "resource": endpoints["search_resource_endpoint"], "action": endpoints["search_action_endpoint"]} {
		text, err := os.ReadFile(filepath.Join(folder, kind+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var all struct {
			Evaluation []struct {
				Request  map[string]any         `json:"request"`
				Expected authzen.SearchResponse `json:"expected"`
			} `json:"evaluation"`
		}
		if err := json.Unmarshal(text, &all); err != nil || len(all.Evaluation) == 0 {
			t.Fatalf("%s: %v", kind, err)
		}
		for _, c := range all.Evaluation {
			whole := pages(t, endpoint, c.Request)
			if !slices.Equal(names(whole), names(c.Expected.Results)) {
				t.Errorf("%s %v: found %v, want %v", kind, c.Request, names(whole), names(c.Expected.Results))
			}
			c.Request["page"] = map[string]any{"limit": 2}
			if paged := pages(t, endpoint, c.Request); !slices.Equal(names(paged), names(whole)) {
				t.Errorf("%s %v: found %v in pages, and %v at once", kind, c.Request, paged, whole)
			}
		}
		t.Logf("%s: %d searches", kind, len(all.Evaluation))
	}
}

func names(entities []authzen.Entity) []string {
	var all []string
	for _, e := range entities {
		all = append(all, e.Type+" "+e.ID+e.Name)
	}
	slices.Sort(all)
	return all
}

// pages follows the tokens of a search to its end; the token alone names the next page, as in AuthZEN's example.
func pages(t *testing.T, endpoint string, request map[string]any) (all []authzen.Entity) {
	t.Helper()
	for range 100 {
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		var res authzen.SearchResponse
		postJSON(t, endpoint, body, &res)
		if res.Results == nil || res.Page.Count != len(res.Results) || res.Context == nil || !res.Context.Complete || res.Context.DecisionID == "" {
			t.Errorf("%s: answered %+v", body, res)
		}
		all = append(all, res.Results...)
		if res.Page.NextToken == "" {
			return all
		}
		request["page"] = map[string]any{"token": res.Page.NextToken}
	}
	t.Fatal("the pages do not end")
	return nil
}

// certified are the policies of the fixture that AuthZEN's certification asks for (certification scenario 1.0, section "Required
// Fixture").
var certified = fstest.MapFS{
	"gatehouse/authz.rego": {Data: []byte(`package gatehouse.authz
default decision := {"allow": false, "reasons": ["no_rule"]}
decision := {"allow": true} if permitted
known := data.gatehouse.users[input.subject.id]
permitted if { known; input.action.name == "read" }
permitted if { input.subject.id == "alice"; input.action.name == "write"; not archived }
permitted if { object.get(known, "role", "") == "admin"; input.action.name == "write"; archived }
permitted if { input.subject.properties.role == "admin"; input.action.name == "write"; archived }
permitted if { input.subject.id == "alice"; input.action.name == "delete"; input.action.properties.soft == true }
archived if input.resource.properties.status == "archived"
`)},
	"gatehouse/search.rego": {Data: []byte(`package gatehouse.search
subjects := {"complete": true, "candidates": [{"type": "user", "id": id} | some id, _ in data.gatehouse.users]}
resources := {"complete": true, "candidates": [{"type": "record", "id": id, "properties": p} | some id, p in data.gatehouse.records]}
actions := {"complete": true, "candidates": [{"name": name} | some name in ["read", "write", "delete"]]}
`)},
	"gatehouse/data.yaml": {Data: []byte("users: {alice: {}, bob: {role: admin}}\nrecords: {record-1: {status: active}, record-2: {status: archived}}\n")},
}

func TestAuthZENsCertificationOfSearchPasses(t *testing.T) {
	t.Parallel()
	endpoints := discover(t, searching(t, certified))
	for request, want := range map[string]string{
		`subject {"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`:                                                                         "user alice,user bob",
		`subject {"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"},"context":{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1"}}`:          "user alice,user bob",
		`subject {"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`:                                                            "user alice,user bob",
		`subject {"subject":{"type":"user"},"action":{"name":"write"},"resource":{"type":"record","id":"record-2","properties":{"status":"archived"}}}`:                                     "user bob",
		`resource {"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record"}}`:                                                                           "record record-1,record record-2",
		`resource {"subject":{"type":"user","id":"alice"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`:                                                           "record record-1,record record-2",
		`resource {"subject":{"type":"user","id":"bob","properties":{"role":"admin"}},"action":{"name":"write"},"resource":{"type":"record"}}`:                                              "record record-2",
		`action {"subject":{"type":"user","id":"alice"},"resource":{"type":"record","id":"record-1"}}`:                                                                                      " read, write",
		`action {"subject":{"type":"user","id":"alice"},"resource":{"type":"record","id":"record-1"},"context":{"time":"2025-06-27T18:03-07:00","ip":"192.168.1.1"}}`:                       " read, write",
		`action {"subject":{"type":"user","id":"bob","properties":{"role":"admin"}},"resource":{"type":"record","id":"record-2","properties":{"status":"archived"}},"action":"is ignored"}`: " read, write",
		`action {"subject":{"type":"nobody","id":"x"},"resource":{"type":"nothing","id":"x"},"unknown":{"member":[]}}`:                                                                      "",
		`subject {"subject":{"type":"robot"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`:                                                                        "",
	} {
		kind, body, _ := strings.Cut(request, " ")
		var res authzen.SearchResponse
		postJSON(t, endpoints["search_"+kind+"_endpoint"], []byte(body), &res)
		if got := strings.Join(names(res.Results), ","); got != want {
			t.Errorf("%s: found %q, want %q", request, got, want)
		}
	}
	// What is missing makes it a bad request, whatever else is there.
	for request, field := range map[string]string{
		`subject {"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`:                      `"subject"`,
		`subject {"subject":{"id":"x"},"action":{"name":"read"},"resource":{"type":"record","id":"record-1"}}`: `"subject.type"`,
		`subject {"subject":{"type":"user"},"resource":{"type":"record","id":"record-1"}}`:                     `"action"`,
		`subject {"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record"}}`:            `"resource.id"`,
		`resource {"subject":{"type":"user"},"action":{"name":"read"},"resource":{"type":"record"}}`:           `"subject.id"`,
		`resource {"subject":{"type":"user","id":"x"},"action":{"name":"read"}}`:                               `"resource"`,
		`action {"subject":{"type":"user","id":"x"}}`:                                                          `"resource"`,
	} {
		kind, body, _ := strings.Cut(request, " ")
		res, err := testhttp.Client.Post(endpoints["search_"+kind+"_endpoint"], "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var p struct {
			Errors []struct{ Path string }
		}
		err = errors.Join(json.NewDecoder(res.Body).Decode(&p), res.Body.Close())
		if err != nil || res.StatusCode != http.StatusBadRequest || len(p.Errors) != 1 || `"`+p.Errors[0].Path+`"` != field {
			t.Errorf("%s: %s %+v, %v", request, res.Status, p, err)
		}
	}
}

// Without any rule of candidates, subjects come from the directory and actions from the policy, page by page over HTTP; resources do not.
func TestSearchesNeedNoRules(t *testing.T) {
	t.Parallel()
	view, err := directory.ReadData(strings.NewReader(`{"subjects":{"ann":{"roles":["clerk"]},"bob":{"roles":["clerk"]},"cid":{"roles":["reader"]},"dan":{"roles":["clerk"]}},"roles":{}}`), directory.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	e, err := engine.Open(t.Context(), engine.Options{
		Deadline: 5 * time.Second, Log: quiet, Directory: directory.Fixed(view, directory.Options{ForgetUnknown: true}),
		Policies: fstest.MapFS{"gatehouse/authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if {\n\t\"clerk\" in input.subject.roles\n\tinput.action.name in {\"GET\", \"PUT\"}\n}\n")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	pdp := httptest.NewServer(server.New(server.Options{Engine: e, Search: e, SearchCallers: []string{server.AnyCaller}, DecisionLog: decisionlog.New(quiet), Log: quiet, BatchTime: 20 * time.Second}))
	t.Cleanup(func() {
		pdp.Close()
		e.Close()
	})
	endpoints := discover(t, pdp.URL)
	for _, limit := range []int{1, 2, 3, 100} {
		who := map[string]any{"subject": map[string]any{"type": "user"}, "action": map[string]any{"name": "GET"}, "resource": map[string]any{"type": "order", "id": "17"}, "page": map[string]any{"limit": limit}}
		if got := fmt.Sprint(names(pages(t, endpoints["search_subject_endpoint"], who))); got != "[user ann user bob user dan]" {
			t.Errorf("pages of %d: %s", limit, got)
		}
		what := map[string]any{"subject": map[string]any{"type": "user", "id": "bob"}, "resource": map[string]any{"type": "order", "id": "17"}, "page": map[string]any{"limit": limit}}
		if got := fmt.Sprint(names(pages(t, endpoints["search_action_endpoint"], what))); got != "[ GET  PUT]" {
			t.Errorf("pages of %d: %s", limit, got)
		}
	}
	if endpoints["search_resource_endpoint"] != "" {
		t.Error("resources are offered")
	}
	res, err := testhttp.Client.Post(pdp.URL+authzen.SearchResourcePath, "application/json", strings.NewReader(`{"subject":{"type":"user","id":"bob"},"action":{"name":"GET"},"resource":{"type":"order"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if err := res.Body.Close(); err != nil || res.StatusCode != http.StatusNotImplemented {
		t.Errorf("resources: %s, %v", res.Status, err)
	}
}
