package command_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
)

// block is what stands between ``` in a guide, without its indentation.
type block struct{ language, text string }

// guide is the blocks of docs/policies.md below a heading.
func guide(t *testing.T, heading string) []block {
	t.Helper()
	text, err := os.ReadFile("../../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/policies.md has no heading %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	var all []block
	var lines []string
	open, indent, language := false, "", ""
	for line := range strings.Lines(below) {
		bare := strings.TrimSpace(line)
		switch fence := strings.HasPrefix(bare, "```"); {
		case fence && open:
			all, open = append(all, block{language, strings.Join(lines, "")}), false
		case fence:
			indent, language, open, lines = line[:strings.Index(line, "`")], strings.TrimPrefix(bare, "```"), true, nil
		case open:
			lines = append(lines, strings.TrimPrefix(line, indent))
		}
	}
	return all
}

var took = regexp.MustCompile(` in [0-9.]+m?s\b`)

// holds runs the command lines of a block and compares what they write with what the block says; a line "…" stands for any lines,
// and what is behind "$ cat" is put into that file.
func (b block) holds(t *testing.T) {
	t.Helper()
	for part := range strings.SplitSeq("\n"+b.text, "\n$ ") {
		line, want, _ := strings.Cut(part, "\n")
		if file, ok := strings.CutPrefix(line, "cat "); ok {
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(want+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		line, ok := strings.CutPrefix(line, "gatehouse-pdp ")
		if !ok {
			continue // before the first
		}
		var out, errs strings.Builder
		if _, known := command.Run(t.Context(), strings.Fields(line), command.Streams{Out: &out, Err: &errs}); !known {
			t.Fatalf("%s: there is no such command", line)
		}
		have := took.ReplaceAllString(strings.TrimSpace(out.String()+errs.String()), " in …")
		want = took.ReplaceAllString(strings.TrimSpace(want), " in …")
		pattern := regexp.MustCompile(`(?m)^\s*…$`).ReplaceAllString(regexp.QuoteMeta(want), `(?s:.*?)`)
		if !regexp.MustCompile(`^` + pattern + `$`).MatchString(have) {
			t.Errorf("gatehouse-pdp %s answers\n%s\n\nand not, as docs/policies.md says,\n%s", line, have, want)
		}
	}
}

// shipped puts a copy of the policies into a folder of its own, and the test beside it.
func shipped(t *testing.T) {
	t.Helper()
	from, err := filepath.Abs(policies)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, name := range []string{"policies", "main"} {
		if err := os.CopyFS(name, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
}

func edit(t *testing.T, file string, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Whoever follows the guide with the policies as they are shipped sees what it shows: no test of theirs is in the way of the
// first rule. Not in parallel, for it changes the folder.
func TestTheGuideLeadsToTheFirstRule(t *testing.T) {
	b := guide(t, "Let customers change their own orders")
	if len(b) != 7 {
		t.Fatalf("%d blocks", len(b))
	}
	shipped(t)
	edit(t, "policies/cases/orders.yaml", func(s string) string { return s + "\n" + b[0].text })
	b[1].holds(t)
	edit(t, "policies/gatehouse/roles.yaml", func(s string) string {
		object, update := regexp.MustCompile(`(?m)^  object: .*$`), regexp.MustCompile(`(?ms)^    update:.*`)
		s = object.ReplaceAllString(s, object.FindString(b[2].text))
		orders, others, _ := strings.Cut(s, "\n  # With the modules") // the new grant is one of orders
		return orders + update.FindString(b[2].text) + "\n  #" + others
	})
	b[3].holds(t)
	if err := os.WriteFile(filepath.Join("policies", "cases", "update.matrix.yaml"), []byte(b[4].text), 0o600); err != nil {
		t.Fatal(err)
	}
	b[5].holds(t)
	b[6].holds(t)
}

// What else the guide shows of the policies as they are shipped, without a log, a directory or a decision point.
func TestTheGuideShowsWhatCommandsAnswer(t *testing.T) {
	gains, explain, lint := guide(t, "Who gains, who loses?"), guide(t, "Why was this denied?"), guide(t, "What should not be in a policy")
	coverage := guide(t, "What nothing protects")
	if len(gains) != 5 || len(explain) != 2 || len(lint) != 1 || len(coverage) != 1 {
		t.Fatalf("%d, %d, %d and %d blocks", len(gains), len(explain), len(lint), len(coverage))
	}
	shipped(t)
	gains[1].holds(t)
	gains[2].holds(t)
	explain[0].holds(t)
	lint[0].holds(t)
	coverage[0].holds(t)
}

// A policy begins with the routes of this repository's kong.yml as the guide says.
func TestTheGuideBeginsWithRoutes(t *testing.T) {
	b := guide(t, "Begin with what there is")
	routes, err := os.ReadFile("../../../kong.yml")
	if err != nil || len(b) != 1 {
		t.Fatalf("%d blocks, %v", len(b), err)
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("kong.yml", routes, 0o600); err != nil {
		t.Fatal(err)
	}
	b[0].holds(t)
	for _, check := range []string{"fmt --check", "lint", "test --min-coverage 100"} { // those of CI; the mutation score, of 95, takes too long here
		if code, out, errs := on(t, "", strings.Fields(check)...); code != command.OK {
			t.Errorf("%s: %d, %s%s", check, code, out, errs)
		}
	}
}
