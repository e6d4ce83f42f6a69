package command_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
)

// In regal's place stands a program that says what regal says; it ends with 3 where it has found something.
func TestLintTellsWhatRegalFinds(t *testing.T) {
	bin := t.TempDir()
	t.Setenv("PATH", bin)
	if code, _, errs := on(t, "", "lint", policies, "--regal"); code != command.Failure || !strings.Contains(errs, "regal is not in PATH") {
		t.Errorf("%d, %s", code, errs)
	}
	regal := func(script string) {
		if err := os.WriteFile(filepath.Join(bin, "regal"), []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // it is to be run
			t.Fatal(err)
		}
	}
	regal(`echo '{"violations": [{"title": "prefer-snake-case", "description": "Prefer snake_case", "category": "style", "level": "error", "location": {"file": "'$5'/a.rego", "row": 3, "col": 1}}], "summary": {}}'; exit 3`)
	if code, out, errs := on(t, "", "lint", policies, "--regal"); code != command.Findings || out != policies+"/a.rego:3: regal/style/prefer-snake-case: Prefer snake_case\n" {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	regal(`echo '{"violations": [], "summary": {}}'`)
	if code, out, errs := on(t, "", "lint", policies, "--regal"); code != command.OK {
		t.Errorf("%d, %s%s", code, out, errs)
	}
	regal(`echo broken >&2; exit 1`)
	if code, _, errs := on(t, "", "lint", policies, "--regal"); code != command.Failure || !strings.Contains(errs, "broken") {
		t.Errorf("%d, %s", code, errs)
	}
}

// A file in the folder directory is data.directory by its place; one that names it once more holds nobody whom a rule would find.
func TestLintFindsADirectoryInADirectory(t *testing.T) {
	t.Parallel()
	dir := small(t)
	if err := os.Mkdir(filepath.Join(dir, "directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "directory", "data.json")
	for text, found := range map[string]bool{`{"directory": {"subjects": {}}}`: true, `{"subjects": {}, "roles": {}}`: false} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, out, errs := on(t, "", "lint", dir)
		if strings.Contains(out, file+`: schema: data.directory has subjects and roles, and no "directory"; files in`) != found || errs != "" {
			t.Errorf("%s: %s%s", text, out, errs)
		}
	}
}
