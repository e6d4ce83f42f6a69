package decisionlog_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// victim is the variable that makes this test binary the process that is killed; it names the spool's folder.
const victim = "GATEHOUSE_DECISION_LOG_VICTIM"

// TestTheVictim is not a test: it records from many goroutines, and writes down on its standard output what was acknowledged.
func TestTheVictim(t *testing.T) {
	dir := os.Getenv(victim)
	if dir == "" {
		t.Skip("it is for TestWhatWasAcknowledgedOutlivesAKill")
	}
	hung, _ := stuck() // nothing leaves the spool
	j := journal(t, decisionlog.Options{Dir: dir, WhenFull: decisionlog.Block}, hung)
	start(t, j)
	var mu sync.Mutex
	for w := range 8 {
		go func() {
			for i := 0; ; i++ {
				e := denial(fmt.Sprintf("%d-%06d", w, i))
				if err := j.Record(context.Background(), &e); err != nil {
					return
				}
				mu.Lock()
				fmt.Println("acknowledged", e.DecisionID)
				mu.Unlock()
			}
		}()
	}
	select {} // until it is killed
}

// S67: kill −9 at any moment loses no record whose decision was answered, and leaves a spool that the next start reads.
func TestWhatWasAcknowledgedOutlivesAKill(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	acknowledged := map[string]bool{}
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestTheVictim$")
		cmd.Env = append(os.Environ(), victim+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines, n := bufio.NewScanner(out), 0
		for lines.Scan() {
			var id string
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %s", &id); err == nil && len(id) == len("0-000000") {
				acknowledged[fmt.Sprint(round, "-", id)] = true
				n++
			}
			if n == 300+100*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || n < 300 {
			t.Fatalf("round %d: %d acknowledged, ended with %v", round, n, err)
		}
		keep(t, dir, round)
	}
	t.Logf("%d were acknowledged", len(acknowledged))
	found := map[string]bool{}
	for round := range 5 {
		s, err := spool.Open(spool.Options{Dir: filepath.Join(dir, fmt.Sprint("round-", round)), Readers: []string{"a"}})
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for {
			records, err := s.Reader("a").Next(ended, 1000, 1<<20)
			if err != nil {
				break
			}
			for _, r := range records {
				id := fmt.Sprint(round, "-", idOf(t, string(r.Text)))
				if found[id] {
					t.Errorf("%s is there twice", id)
				}
				found[id] = true
			}
		}
		if stats := s.Stats(); stats.Damaged != 0 {
			t.Errorf("round %d: %+v", round, stats)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	for id := range acknowledged {
		if !found[id] {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
}

// keep moves what a round has left out of the next one's way.
func keep(t *testing.T, dir string, round int) {
	t.Helper()
	aside := filepath.Join(dir, fmt.Sprint("round-", round))
	if err := os.Mkdir(aside, 0o700); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segment, %v", err)
	}
	for _, name := range names {
		if err := os.Rename(name, filepath.Join(aside, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
}
