package revision_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/revision"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// policy allows one user.
func policy(user string) string {
	return "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n\ndecision := {\"allow\": true} if input.subject.id == \"" + user + "\"\n"
}

type running struct {
	*engine.Engine
	store  *revision.Store
	folder string
	kept   string
}

func save(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "authz.rego"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// start is a decision point with a policy folder and kept revisions; again with the same folders it is the one after a restart.
func start(t *testing.T, folder, kept string) *running {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	store, err := revision.Open(kept, os.DirFS(folder), time.Now, log)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.Open(t.Context(), engine.Options{Policies: store, Log: log, Deadline: 5 * time.Second, OnLoad: func(l engine.Load) {
		if l.Err == nil {
			store.Loaded(l.Revision)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return &running{e, store, folder, kept}
}

func (r *running) decidesFor(t *testing.T, user string) {
	t.Helper()
	for _, who := range []string{"ann", "bob", "eve"} {
		res, err := r.Evaluate(t.Context(), authzen.Request{Subject: authzen.Subject{Type: "user", ID: who}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "1"}})
		if err != nil || res.Decision != (who == user) {
			t.Errorf("%s: %t, %v; %s alone may", who, res.Decision, err, user)
		}
	}
}

func candidate(t *testing.T, text string) engine.Part {
	t.Helper()
	dir := t.TempDir()
	save(t, dir, text)
	part, err := engine.ReadFolder(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return part
}

func TestWhatIsPromotedDecidesUntilTheFolderIsAnother(t *testing.T) {
	t.Parallel()
	folder, kept := t.TempDir(), filepath.Join(t.TempDir(), "kept")
	save(t, folder, policy("ann"))
	r := start(t, folder, kept)
	r.decidesFor(t, "ann")
	if err := r.store.Promote(t.Context(), r.Engine, candidate(t, policy("bob")), "uid 7"); err != nil {
		t.Fatal(err)
	}
	r.decidesFor(t, "bob")
	history, promoted := r.store.History()
	if !promoted || len(history) != 2 || history[0].By != revision.Delivery || history[1].By != "uid 7" || history[1].Revision != r.Revision() {
		t.Errorf("%t, %+v", promoted, history)
	}
	r = start(t, folder, kept)
	r.decidesFor(t, "bob") // also after a restart
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(folder, "authz.rego"), later, later); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.decidesFor(t, "bob") // the folder holds what it held
	save(t, folder, policy("eve"))
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.decidesFor(t, "eve")
	if _, promoted := r.store.History(); promoted {
		t.Error("it is still promoted")
	}
	start(t, folder, kept).decidesFor(t, "eve")
}

func TestRollbackGoesTheWayBack(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	save(t, folder, policy("ann"))
	r := start(t, folder, t.TempDir())
	for _, user := range []string{"bob", "eve"} {
		if err := r.store.Promote(t.Context(), r.Engine, candidate(t, policy(user)), "uid 7"); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"bob", "ann"} {
		if to, err := r.store.Back(t.Context(), r.Engine, "uid 7"); err != nil || to != r.Revision() {
			t.Fatalf("%s, %v", to, err)
		}
		r.decidesFor(t, user)
	}
	if _, err := r.store.Back(t.Context(), r.Engine, "uid 7"); err == nil || !strings.Contains(err.Error(), "nothing is known") {
		t.Errorf("went back from the first: %v", err)
	}
	// A delivery can be taken back as well.
	save(t, folder, policy("eve"))
	if err := r.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.decidesFor(t, "eve")
	if _, err := r.store.Back(t.Context(), r.Engine, "uid 7"); err != nil {
		t.Fatal(err)
	}
	r.decidesFor(t, "ann")
}

// S56: what does not take all steps of loading is never in force, and leaves no trace.
func TestACandidateThatDoesNotLoadIsNotPromoted(t *testing.T) {
	t.Parallel()
	folder, kept := t.TempDir(), t.TempDir()
	save(t, folder, policy("ann"))
	r := start(t, folder, kept)
	for text, why := range map[string]string{
		"package gatehouse.authz\n\ndecision := {":                           "parse",
		"package gatehouse.authz\n\ndefault decision := {\"allow\": true}\n": "deny by default",
		policy("ann"): "decides already",
	} {
		if err := r.store.Promote(t.Context(), r.Engine, candidate(t, text), "uid 7"); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("promoted: %v, want %s", err, why)
		}
		r.decidesFor(t, "ann")
		if err := r.Ready(); err != nil {
			t.Errorf("not ready: %v", err)
		}
	}
	if history, promoted := r.store.History(); promoted || len(history) != 1 {
		t.Errorf("%t, %+v", promoted, history)
	}
	start(t, folder, kept).decidesFor(t, "ann")
}

func TestOldRevisionsAreForgotten(t *testing.T) {
	t.Parallel()
	folder, kept := t.TempDir(), t.TempDir()
	save(t, folder, policy("ann"))
	r := start(t, folder, kept)
	for i := range 15 {
		save(t, folder, policy("ann")+strings.Repeat("#\n", i+1))
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	names, err := os.ReadDir(kept)
	if history, _ := r.store.History(); err != nil || len(names) != 12 || len(history) != 11 {
		t.Errorf("%d files, %d in the history, %v", len(names), len(history), err)
	}
}

func TestStateThatCannotBeReadIsNotGuessed(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{", `{"promoted": "0000000000000000"}`} {
		kept := t.TempDir()
		if err := os.WriteFile(filepath.Join(kept, "state.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := revision.Open(kept, os.DirFS(t.TempDir()), time.Now, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "state.json") {
			t.Errorf("%s: %v", text, err)
		}
	}
}
