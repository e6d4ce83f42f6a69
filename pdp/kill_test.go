package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// victim is the variable that makes this test binary the program itself; it has the arguments of serve.
const victim = "GATEHOUSE_PDP_VICTIM"

// TestTheVictim is not a test: it is the program, as a process that can be killed.
func TestTheVictim(t *testing.T) {
	args := os.Getenv(victim)
	if args == "" {
		t.Skip("it is for TestEveryAnsweredDecisionOutlivesAKill")
	}
	if err := run(context.Background(), append([]string{"serve"}, strings.Split(args, "\n")...), func(string) string { return "" }, os.Stderr); err != nil {
		t.Fatal(err)
	}
}

// S67: the program is killed while it answers. Every denial that somebody has an answer of is in the file after the next start, and
// none is there that nobody asked for.
func TestEveryAnsweredDecisionOutlivesAKill(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file, dir := logFile(t, "spool: {dir: $DIR/spool, when_full: block}\nsinks: [{file: $DIR/log}]\n")
	policies, _ := folder(t, rules("order"))
	out := &logs{}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestTheVictim$")
	cmd.Env = append(os.Environ(), victim+"="+strings.Join([]string{"-listen", "127.0.0.1:0", "-status", "none", "-policies", policies, "-decision-log", file}, "\n"))
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await.That(t, "it listens", func() bool { return out.find("deciding") != nil })
	url := fmt.Sprintf("http://%v", out.find("deciding")["address"])

	var mu sync.Mutex
	answered := map[string]bool{}
	var callers sync.WaitGroup
	for range 4 {
		callers.Go(func() {
			client, err := authzen.NewClient(url, patience)
			if err != nil {
				t.Error(err)
				return
			}
			defer client.Close()
			for {
				res, err := client.Evaluate(context.Background(), authzen.Request{
					Subject: authzen.Subject{Type: "user", ID: "ann"}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "invoice", ID: "17"},
				})
				if err != nil {
					return // it is dead
				}
				mu.Lock()
				answered[res.Context.DecisionID] = true
				enough := len(answered) == 400
				mu.Unlock()
				if enough {
					_ = cmd.Process.Kill()
				}
			}
		})
	}
	callers.Wait()
	if err := cmd.Wait(); err == nil || len(answered) < 400 {
		t.Fatalf("%d answered, ended by %v\n%s", len(answered), err, out.String())
	}

	start(t, "-policies", policies, "-decision-log", file).stop(t)
	text, err := os.ReadFile(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	found, cut := map[string]bool{}, 0
	for line := range strings.Lines(string(text)) {
		var r struct {
			ID string `json:"decision_id"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			cut++ // the kill came in the middle of a line; its record is repeated
			continue
		}
		found[r.ID] = true
	}
	if cut > 1 {
		t.Errorf("%d lines are no records", cut)
	}
	for id := range answered {
		if !found[id] {
			t.Errorf("%s was answered and is lost", id)
		}
	}
	if n := len(found) - len(answered); n > 4 { // one on the way per caller
		t.Errorf("%d records too many", n)
	}
}
