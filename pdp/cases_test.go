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

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/policies"
)

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
		files[name] = &fstest.MapFile{Data: bytes.Replace(b, []byte("deadline: 20ms"), []byte("deadline: 2s"), 1)}
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
	all, err := author.ReadCases(policies.FS)
	if err != nil || len(all) < 28 {
		t.Fatalf("%d cases, %v", len(all), err)
	}
	for _, c := range all {
		if strings.HasSuffix(c.File, ".matrix.yaml") {
			continue // the same way for each; policies_test.go decides them all
		}
		t.Run(c.Title, func(t *testing.T) {
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
			direct, err := e.Evaluate(t.Context(), c.Request())
			if err != nil {
				t.Fatal(err)
			}
			check(t, c, direct)

			pdp := httptest.NewServer(server.New(server.Options{Engine: e, DecisionLog: decisionlog.New(quiet), Log: quiet}))
			defer pdp.Close()
			client, err := authzen.NewClient(pdp.URL, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			remote, err := client.Evaluate(t.Context(), c.Request())
			if err != nil {
				t.Fatal(err)
			}
			check(t, c, remote)
		})
	}
}

func check(t *testing.T, c author.Case, got authzen.Response) {
	t.Helper()
	if got.Decision != (c.Decision == "allow") {
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
