package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/author/command"
	"github.com/gatehouse-auth/gatehouse/pdp/bundle"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// operator runs a command of gatehouse-pdp.
func operator(t *testing.T, args ...string) (code int, out string) {
	t.Helper()
	var b strings.Builder
	code, known := command.Run(context.Background(), args, command.Streams{In: strings.NewReader(""), Out: &b, Err: &b})
	if !known {
		t.Fatalf("%q is not known", args)
	}
	return code, b.String()
}

// S69: what changes policies is reached through a socket that its owner alone can open, and every act is logged.
func TestACandidateIsComparedPromotedAndTakenBack(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	policy := "package gatehouse.authz\n\ndefault decision := {\"allow\": false, \"reasons\": [\"no_rule\"]}\n\n" +
		"decision := {\"allow\": true, \"reasons\": [\"known\"]} if input.resource.id == \"%s\"\n"
	for _, folder := range []string{"policies", "candidate"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
		id := map[string]string{"policies": "1", "candidate": "2"}[folder]
		save(t, filepath.Join(dir, folder, "authz.rego"), fmt.Sprintf(policy, id))
	}
	socket := filepath.Join(dir, "c.sock")
	p := start(t, "-policies", filepath.Join(dir, "policies"), "-shadow-dir", filepath.Join(dir, "candidate"), "-shadow-share", "1",
		"-revisions", filepath.Join(dir, "kept"), "-control", socket)
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	may := func(id string) bool {
		res, err := p.ask(t, "order", id)
		if err != nil {
			t.Fatal(err)
		}
		return res.Decision
	}
	await.That(t, "the two disagree both ways", func() bool {
		may("1")
		may("2")
		code, _ := operator(t, "shadow", "status", "--control", socket, "--fail-on-widening")
		_, out := operator(t, "shadow", "status", "--control", socket)
		return code == command.Findings && strings.Contains(out, "gains") && strings.Contains(out, "loses")
	})
	_, out := operator(t, "shadow", "status", "--control", socket)
	var id string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[1] == "gains" {
			id = f[0]
		}
	}
	if code, out := operator(t, "shadow", "test", id, "--control", socket, "--want", "candidate"); code != command.OK || !strings.Contains(out, "decision: allow") {
		t.Errorf("%d, %s", code, out)
	}
	if _, metrics := p.read(t); !strings.Contains(metrics, `gatehouse_pdp_shadow_compared_requests{result="gains"}`) {
		t.Error("there are no metrics")
	}
	if code, out := operator(t, "promote", "0000000000000000", "--control", socket); code != command.Failure || !strings.Contains(out, "and not 0000000000000000") {
		t.Errorf("what was not seen is promoted: %d, %s", code, out)
	}
	if code, out := operator(t, "promote", "--control", socket); code != command.OK || may("1") || !may("2") {
		t.Errorf("%d, %s", code, out)
	}
	if code, out := operator(t, "rollback", "--control", socket); code != command.OK || !may("1") || may("2") {
		t.Errorf("%d, %s", code, out)
	}
	if code, out := operator(t, "rollback", "--control", socket); code != command.Failure || !strings.Contains(out, "nothing is known") {
		t.Errorf("%d, %s", code, out)
	}
	log := p.stop(t)
	for _, want := range []string{"policies promoted", "policies rolled back", "policies not rolled back"} {
		line := p.find(want)
		if by, _ := line["by"].(string); line == nil || !strings.Contains(by, fmt.Sprintf("uid %d", os.Getuid())) {
			t.Errorf("no line %q with who: %v in %s", want, line, log)
		}
	}
	for _, args := range [][]string{{"shadow", "status"}, {"shadow"}, {"shadow", "status", "--control", socket}, {"promote", "a", "b"}, {"rollback", "a"}} {
		if code, out := operator(t, args...); code != command.Failure || out == "" {
			t.Errorf("%q: %d, %s", args, code, out)
		}
	}
}

// read asks the private listener for the metrics.
func (p *program) read(t *testing.T) (int, string) {
	t.Helper()
	public := p.url
	defer func() { p.url = public }()
	p.url = p.status
	return p.get(t, "/metrics")
}

// What a candidate costs, and the directory that both read, gives way to who decides, and not to the candidate alone.
func TestACandidateGivesWayToWhatDecides(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	save(t, filepath.Join(dir, "authz.rego"), "package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n")
	e, err := engine.Open(t.Context(), engine.Options{Dir: dir, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	o := &operation{}
	if err := o.start(ctx, config{shadow: dir, shadowShare: 1}, bundle.Config{}, e, nil, nil, log); err != nil {
		t.Fatal(err)
	}
	all.Go(func() { _ = o.shadow.Run(ctx) })
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(time.Minute); o.shadow.Candidate() == nil; <-tick.C {
		if time.Now().After(deadline) {
			t.Fatal("there is no candidate")
		}
	}
	if o.shadow.Candidate().Gauge() != e.Gauge() {
		t.Error("it goes by a gauge of its own")
	}
}
