package command_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
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

// outOfTime is what is said of mistakes that a busy machine noticed by their taking too long.
var outOfTime = regexp.MustCompile(` \(\d+ by running out of time\)`)

var took = regexp.MustCompile(` in ([0-9]+m)?[0-9.]+m?s\b`)

// way is how what commands write is compared with what a block says.
type way struct {
	also     []string       // flags that have a command measure for a shorter time
	varies   *regexp.Regexp // what differs each time
	anyOrder bool           // each line that is shown is written somewhere
}

// holds runs the command lines of a block and compares what they write with what the block says; a line "…" stands for any lines,
// and what is behind "$ cat" is put into that file.
func (b block) holds(t *testing.T) {
	t.Helper()
	b.holdsBy(t, way{varies: took})
}

func (b block) holdsBy(t *testing.T, w way) {
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
		if _, known := command.Run(t.Context(), append(strings.Fields(line), w.also...), command.Streams{Out: &out, Err: &errs}); !known {
			t.Fatalf("%s: there is no such command", line)
		}
		wrote := outOfTime.ReplaceAllString(strings.TrimSpace(out.String()+errs.String()), "")
		have, want := w.varies.ReplaceAllString(wrote, " _"), w.varies.ReplaceAllString(strings.TrimSpace(want), " _")
		if !w.shows(have, want) {
			t.Errorf("gatehouse-pdp %s answers\n%s\n\nand not, as docs/policies.md says,\n%s", line, have, want)
		}
	}
}

func (w way) shows(have, want string) bool {
	if !w.anyOrder {
		pattern := regexp.MustCompile(`(?m)^\s*…$`).ReplaceAllString(regexp.QuoteMeta(want), `(?s:.*?)`)
		return regexp.MustCompile(`^` + pattern + `$`).MatchString(have)
	}
	lines := strings.Split(have, "\n")
	for line := range strings.SplitSeq(want, "\n") {
		if line != "…" && !slices.Contains(lines, line) {
			return false
		}
	}
	return true
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

// What else the guide shows of the policies as they are shipped, without a decision point.
func TestTheGuideShowsWhatCommandsAnswer(t *testing.T) {
	gains, explain, lint := guide(t, "Who gains, who loses?"), guide(t, "Why was this denied?"), guide(t, "What should not be in a policy")
	coverage := guide(t, "What nothing protects")
	if len(gains) != 5 || len(explain) != 2 || len(lint) != 1 || len(coverage) != 1 {
		t.Fatalf("%d, %d, %d and %d blocks", len(gains), len(explain), len(lint), len(coverage))
	}
	shipped(t)
	gains[1].holds(t)
	gains[2].holds(t)
	gains[3].holds(t) // people of a directory
	explain[0].holds(t)
	lint[0].holds(t)
	coverage[0].holds(t)
}

// What it shows of a log is so of the 120 decisions of requestsOfADay.
func TestTheGuideShowsWhatALogTells(t *testing.T) {
	gains, replay := guide(t, "Who gains, who loses?"), guide(t, "What would it have decided?")
	if len(gains) != 5 || len(replay) != 1 {
		t.Fatalf("%d and %d blocks", len(gains), len(replay))
	}
	shipped(t)
	widen(t)
	if err := os.WriteFile("decisions.jsonl", requestsOfADay(t), 0o600); err != nil {
		t.Fatal(err)
	}
	gains[0].holds(t)
	replay[0].holdsBy(t, way{varies: regexp.MustCompile(` \d{4}-\d\d-\d\dT[0-9:.]+Z\b`)})
}

// What it shows of prices is so but for the figures that are measured, and the order that comes of them.
func TestTheGuideShowsWhatDecisionsCost(t *testing.T) {
	rules, may := guide(t, "What a rule costs"), guide(t, "What it may cost")
	if len(rules) != 1 || len(may) != 5 {
		t.Fatalf("%d and %d blocks", len(rules), len(may))
	}
	shipped(t)
	widen(t)
	if err := os.WriteFile("decisions.jsonl", requestsOfADay(t), 0o600); err != nil {
		t.Fatal(err)
	}
	soon := []string{"--time", "1ms"}
	figures := regexp.MustCompile(` +\d+\.\d+( +\d+\.\d+)* *| +\d+ µs at\b| {2,}`)
	rules[0].holdsBy(t, way{also: soon, varies: figures, anyOrder: true})
	if err := os.WriteFile(filepath.Join("policies", "budget.yaml"), []byte(may[0].text), 0o600); err != nil {
		t.Fatal(err)
	}
	may[1].holdsBy(t, way{also: soon, varies: figures, anyOrder: true})
	if err := os.Remove(filepath.Join("policies", "budget.yaml")); err != nil {
		t.Fatal(err)
	}
	may[4].holdsBy(t, way{also: soon, varies: regexp.MustCompile(` +\d+ +\d+\.\d+ +\d+\.\d+ +\d+\.\d+ +\d+ +\d+| +`)}) // but how many requests there are
}

// widen makes the policy of which the guide shows who gains by it: clerks read orders of all departments.
func widen(t *testing.T) {
	t.Helper()
	if err := os.CopyFS("wider", os.DirFS("policies")); err != nil {
		t.Fatal(err)
	}
	edit(t, filepath.Join("wider", "gatehouse", "roles.yaml"), func(s string) string {
		return strings.Replace(s, "clerk: [department]\n", "clerk: []\n", 1)
	})
}

// requestsOfADay are 120 decisions of the last hour as a decision point records them, by the policies as they are.
func requestsOfADay(t *testing.T) []byte {
	t.Helper()
	e, err := engine.Open(t.Context(), engine.Options{
		Dir: "policies", Services: map[string][]string{"orders": {"http://127.0.0.1:1"}}, Deadline: time.Minute, Tests: time.Minute, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	people := []struct{ id, role, department string }{{"alice", "customer", ""}, {"sam", "clerk", "support"}, {"clara", "clerk", "sales"}, {"root", "admin", ""}}
	owners, departments, methods := []string{"alice", "bob", "carol"}, []string{"sales", "support"}, []string{"GET", "GET", "GET", "GET", "DELETE"}
	hour := time.Now().Add(-time.Hour)
	var all []byte
	for i := range 120 {
		p, number := people[i%len(people)], 1+i%7
		r := authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: p.id, Properties: map[string]any{
				"roles": []string{p.role}, "tenant": "acme", "attributes": map[string]any{"department": p.department},
			}},
			Action:   authzen.Action{Name: methods[i%len(methods)]},
			Resource: authzen.Resource{Type: "order", ID: fmt.Sprint(number), Properties: map[string]any{"route": "orders"}},
			Context:  map[string]any{"ip": "10.1.2.3"},
		}
		known := map[string]any{"owner": owners[number%3], "department": departments[number%2], "tenant": "acme"}
		at := hour.Add(time.Duration(i) * 30 * time.Second)
		allow, about, err := e.Try(t.Context(), r, known, at)
		if err != nil {
			t.Fatal(err)
		}
		about.Outcome = authzen.OutcomeOf(allow, about.Reasons)
		event := decisionlog.Event{
			Time: at, DecisionID: fmt.Sprintf("01a212fd-%04x-7000-8000-%012x", i, i), Outcome: string(about.Outcome), Revision: e.Revision(),
			Input: r, LookedUp: known, Result: authzen.Response{Decision: allow, Context: &about},
		}
		all = append(append(all, decisionlog.Encode(event, masks(t), 1)...), '\n')
	}
	return all
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
