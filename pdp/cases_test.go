package main

import (
	"bytes"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/policies"
)

// decisionCase is one entry of policies/cases.
type decisionCase struct {
	Who struct {
		ID, Type, Tenant, Department string
		Roles                        []string
	}
	Asks     string         // METHOD /path
	Type     string         // of the resource; default order
	Known    map[string]any // what the API says of the object
	At       time.Time
	From     string
	Decision string // allow or deny
	Reasons  []string
}

// defaults are what the head of policies/cases/orders.yaml promises.
func (c *decisionCase) defaults() {
	if c.At.IsZero() {
		c.At = time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)
	}
	if c.From == "" {
		c.From = "10.1.2.3"
	}
	if c.Who.Type == "" {
		c.Who.Type = "user"
	}
	if c.Type == "" {
		c.Type = "order"
	}
}

// request asks as the edge does.
func (c *decisionCase) request(t *testing.T) authzen.Request {
	t.Helper()
	method, path, ok := strings.Cut(c.Asks, " ")
	if !ok {
		t.Fatalf("asks: %q is not METHOD /path", c.Asks)
	}
	segments := strings.Split(strings.Trim(path, "/"), "/")
	id, params := path, map[string]any{}
	if len(segments) > 1 {
		id = segments[1]
		params["id"] = id
	}
	attributes := map[string]any{}
	if c.Who.Department != "" {
		attributes["department"] = c.Who.Department
	}
	return authzen.Request{
		Subject: authzen.Subject{Type: c.Who.Type, ID: c.Who.ID, Properties: map[string]any{
			"roles": c.Who.Roles, "groups": []string{}, "tenant": c.Who.Tenant, "attributes": attributes,
		}},
		Action: authzen.Action{Name: method},
		Resource: authzen.Resource{Type: c.Type, ID: id, Properties: map[string]any{
			"path": path, "segments": segments, "params": params,
		}},
		Context: map[string]any{"ip": c.From},
	}
}

func readCases(t *testing.T) map[string]decisionCase {
	t.Helper()
	all := map[string]decisionCase{}
	files, err := fs.Glob(policies.FS, "cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("cases: %v, %v", files, err)
	}
	for _, name := range files {
		f, err := policies.FS.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		dec := yaml.NewDecoder(f)
		dec.KnownFields(true) // a misspelt expectation would be none
		var some map[string]decisionCase
		if err := dec.Decode(&some); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for title, c := range some {
			if _, twice := all[title]; twice {
				t.Fatalf("%s: a second case %q", name, title)
			}
			c.defaults()
			all[title] = c
		}
	}
	return all
}

// patient is the policies with a look-up deadline that a busy machine can keep.
func patient(t *testing.T) fs.FS {
	t.Helper()
	files := fstest.MapFS{}
	err := fs.WalkDir(policies.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(policies.FS, name)
		if strings.HasSuffix(name, "_test.rego") {
			return err // policies_test.go runs them once
		}
		files[name] = &fstest.MapFile{Data: bytes.Replace(b, []byte("deadline: 30ms"), []byte("deadline: 2s"), 1)}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The written cases, decided by the engine itself and then over HTTP. S53 and S59 are among them.
func TestCases(t *testing.T) {
	t.Parallel()
	files := patient(t)
	for title, c := range readCases(t) {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.Known == nil || c.Known["missing"] == true {
					http.NotFound(w, r)
					return
				}
				if err := json.NewEncoder(w).Encode(c.Known); err != nil {
					t.Error(err)
				}
			}))
			defer api.Close()
			quiet := slog.New(slog.DiscardHandler)
			e, err := engine.Open(t.Context(), engine.Options{
				Policies: files, Services: map[string][]string{"orders": {api.URL}},
				Deadline: 5 * time.Second, Now: func() time.Time { return c.At }, Log: quiet,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close()
			direct, err := e.Evaluate(t.Context(), c.request(t))
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, direct)

			pdp := httptest.NewServer(server.New(server.Options{Engine: e, DecisionLog: decisionlog.New(quiet), Log: quiet}))
			defer pdp.Close()
			client, err := authzen.NewClient(pdp.URL, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			remote, err := client.Evaluate(t.Context(), c.request(t))
			if err != nil {
				t.Fatal(err)
			}
			c.check(t, remote)
		})
	}
}

func (c *decisionCase) check(t *testing.T, got authzen.Response) {
	t.Helper()
	want := map[string]bool{"allow": true, "deny": false}
	decision, ok := want[c.Decision]
	if !ok {
		t.Fatalf("decision: %q is neither allow nor deny", c.Decision)
	}
	if got.Decision != decision {
		t.Errorf("decided %v for %v", got.Decision, got.Context.Reasons)
	}
	if c.Reasons != nil && !slices.Equal(got.Context.Reasons, c.Reasons) {
		t.Errorf("reasons %v, want %v", got.Context.Reasons, c.Reasons)
	}
	if got.Context.DecisionID == "" || got.Context.Revision == "" {
		t.Errorf("no id or revision: %+v", got.Context)
	}
}

func TestServicesAreRead(t *testing.T) {
	t.Parallel()
	got, err := parseServices("orders=http://a:9000|http://b:9000, users=http://c")
	if err != nil || len(got) != 2 || !slices.Equal(got["orders"], []string{"http://a:9000", "http://b:9000"}) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"orders", "=http://a", "orders=", "orders=nowhere", "orders=http://a,orders=http://b", "orders=http://a|"} {
		if got, err := parseServices(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func TestUnknownCommandsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"test"}, {"serve", "extra"}, {"serve", "-services", "x"}} {
		if err := run(t.Context(), args, func(string) string { return "" }, io.Discard); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
}
