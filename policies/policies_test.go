package policies_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// load reads the folder as `opa test policies/` does, cases included.
func load(t *testing.T) (map[string]*ast.Module, storage.Store) {
	t.Helper()
	modules, store, err := tester.Load([]string{"."}, nil)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return modules, store
}

// As opa check --strict, but with the builtins that the decision point leaves (S62).
func TestPoliciesPassStrictChecks(t *testing.T) {
	t.Parallel()
	modules, _ := load(t)
	c := ast.NewCompiler().WithCapabilities(engine.Capabilities()).WithStrict(true)
	if c.Compile(modules); c.Failed() {
		t.Fatal(c.Errors)
	}
}

func TestPoliciesAreFormatted(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*/*.rego")
	if err != nil || len(files) < 2 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, name := range files {
		have, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(name, have)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s: run opa fmt -w policies/", name)
		}
	}
}

// S62: the policies' own tests, deny by default among them.
func TestPoliciesPassTheirTests(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	modules, store := load(t)
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Abort(ctx, txn)
	results, err := tester.NewRunner().SetStore(store).SetModules(modules).RunTests(ctx, txn)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for r := range results {
		ran++
		if !r.Pass() {
			t.Errorf("%s", strings.TrimSpace(r.String()))
		}
	}
	if ran < 20 {
		t.Errorf("%d tests ran; some were not found", ran)
	}
}

// S53, S59, S62: each rule is evaluated by a test, a case or a cell of a matrix, and hardly a mistake in one would go unnoticed.
func TestPoliciesAreTestedThoroughly(t *testing.T) {
	t.Parallel()
	p, err := author.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	report, err := p.Test(t.Context(), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Failed() {
		t.Errorf("%s:%d: %s: %s", r.File, r.Line, r.Name, r.Why)
	}
	for _, r := range report.Coverage.Rules {
		if len(r.Missing) > 0 {
			t.Errorf("%s: %s: no test evaluates lines %v", r.File, r.ID, r.Missing)
		}
	}
	m, err := p.Mutate(t.Context(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range m.Survived {
		t.Logf("%s:%d: %s: %s, and no test notices: %s  →  %s", s.File, s.Line, s.Rule, s.Kind, s.Before, s.After)
	}
	if m.Score < 95 || m.TimedOut > 0 || m.Noticed < 150 {
		t.Errorf("mutation score %.1f %%: %d noticed, %d by running out of time", m.Score, m.Noticed, m.TimedOut)
	}
}
