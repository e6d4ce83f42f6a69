package engine_test

import (
	"log/slog"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// approving reads the directory; its own data.directory, test and case are of somebody whom no real one need know.
func approving(more string) fstest.MapFS {
	files, _ := module("decision := {\"allow\": true} if \"clerk\" in data.directory.subjects[input.subject.id].roles\n" + more).(fstest.MapFS)
	files["directory/data.json"] = &fstest.MapFile{Data: []byte(`{"subjects": {"example": {"bindings": [{"role": "clerk", "until": "2026-03-03T12:00:00Z"}]}}}`)}
	files["cases/c.yaml"] = &fstest.MapFile{Data: []byte("an example may until noon:\n  who: {id: example}\n  asks: GET /orders/17\n  decision: allow\nand not after it:\n  who: {id: example}\n  asks: GET /orders/17\n  at: 2026-03-03T12:00:00Z\n  decision: deny\n")}
	return files
}

// Cases are about the people that the policies' own data has, whoever there is when they are loaded; decisions are not about those.
func TestCasesAreAboutTheExamplesOfThePolicies(t *testing.T) {
	t.Parallel()
	empty, err := directory.New(directory.Options{URL: "https://directory.test"}) // nothing is known yet
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]*directory.Directory{"others": directory.Fixed(viewOf(t, known), directory.Options{}), "nothing yet": empty} {
		e, err := engine.Open(t.Context(), engine.Options{Policies: approving(""), Directory: d, Now: monday, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		defer e.Close()
		if d == empty {
			continue
		}
		r := ask("order", "17")
		for id, want := range map[string]bool{"example": false, "alice": true} {
			r.Subject = authzen.Subject{Type: "user", ID: id}
			if res, err := e.Evaluate(t.Context(), r); err != nil || res.Decision != want {
				t.Errorf("%s: %v, %v", id, res.Decision, err)
			}
		}
	}
	files := approving("")
	files["cases/c.yaml"] = &fstest.MapFile{Data: []byte("wrong:\n  who: {id: alice}\n  asks: GET /orders/17\n  decision: allow\n")}
	if _, err := engine.Open(t.Context(), engine.Options{Policies: files, Directory: directory.Fixed(viewOf(t, known), directory.Options{}), Now: monday, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "golden: cases/c.yaml:1") {
		t.Errorf("a case about somebody real: %v", err)
	}
}

// What is packed is checked as where there is a directory: by its own examples, and a walk through all subjects is refused.
func TestAPartIsCheckedAsWhereThereIsADirectory(t *testing.T) {
	t.Parallel()
	check := func(files fstest.MapFS) (bool, error) {
		p, err := engine.ReadFolder(files)
		if err != nil {
			t.Fatal(err)
		}
		return engine.Check(t.Context(), p)
	}
	if decides, err := check(approving("")); err != nil || !decides {
		t.Errorf("%v, %v", decides, err)
	}
	const walk = "\ncrowd if some _, subject in data.directory.subjects\n"
	want := "compile: gatehouse/authz.rego:7: data.directory.subjects is read whole, or gone through: the directory may have any number of subjects. Read it by a key that is known, as data.directory.subjects[input.subject.id]"
	if _, err := check(approving(walk)); err == nil || err.Error() != want {
		t.Errorf("a walk: %v", err)
	}
	// Also where another bundle decides.
	if _, err := check(fstest.MapFS{"lib.rego": {Data: []byte("package lib\n\ncrowd := count(data.directory.subjects)\n")}}); err == nil || !strings.Contains(err.Error(), "lib.rego:3: data.directory.subjects is read whole") {
		t.Errorf("a walk of a library: %v", err)
	}
}
