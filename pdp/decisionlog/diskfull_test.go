package decisionlog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	sinks "github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// crowded is the variable that makes this test binary the process whose disk is full; it names the spool's folder.
const crowded = "GATEHOUSE_DECISION_LOG_CROWDED"

// limitFiles lets no file of this process grow beyond size: a write then stops in the middle, as on a full disk.
func limitFiles(t *testing.T, size uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
	l.Cur = min(size, l.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
		t.Fatal(err)
	}
}

// TestTheCrowded is not a test: it is a process of its own, since the limit is for all of a process.
func TestTheCrowded(t *testing.T) {
	dir := os.Getenv(crowded)
	if dir == "" {
		t.Skip("it is for TestAFullDiskLosesNothingThatWasAcknowledged")
	}
	signal.Ignore(syscall.SIGXFSZ)
	aFileKeepsWholeLines(t)
	hung, letGo := stuck()
	j := journal(t, decisionlog.Options{Dir: dir, WhenFull: decisionlog.Fail}, hung)
	stop := start(t, j)
	limitFiles(t, 5_000) // in the middle of a record
	var acknowledged []string
	failures := 0
	for i := range 40 {
		if i == 20 {
			if failures == 0 {
				t.Error("nothing fails")
			}
			limitFiles(t, 1<<40)
		}
		e := denial(fmt.Sprint("d-", i))
		switch err := j.Record(context.Background(), &e); {
		case err == nil:
			acknowledged = append(acknowledged, e.DecisionID)
		case !errors.Is(err, decisionlog.ErrUnrecorded) || errors.Is(err, spool.ErrFull) || i >= 20:
			t.Errorf("%d: %v", i, err)
		default:
			failures++
		}
	}
	letGo()
	stop()
	if got := hung.ids(t); strings.Join(got, " ") != strings.Join(acknowledged, " ") || len(got) < 23 {
		t.Errorf("shipped %v\nof %v", got, acknowledged)
	}
	if s := j.Stats().Spool; s.Damaged+s.Torn != 0 {
		t.Errorf("%+v", s)
	}
}

func aFileKeepsWholeLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := sinks.OpenFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(from, to int) error { return f.Write(t.Context(), sinktest.Records(from, to)) }
	if err := write(0, 1); err != nil {
		t.Fatal(err)
	}
	limitFiles(t, 500) // in the middle of a record
	if err := write(1, 4); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("written beyond the end: %v", err)
	}
	limitFiles(t, 1<<40)
	if err := errors.Join(write(1, 4), f.Close()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if want := append(bytes.Join(sinktest.Records(0, 4), []byte{'\n'}), '\n'); err != nil || !bytes.Equal(text, want) {
		t.Errorf("%v, %s", err, text)
	}
}

// A disk that fills up in the middle of a record leaves no part of it, and once there is room again all goes on.
func TestAFullDiskLosesNothingThatWasAcknowledged(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^TestTheCrowded$", "-test.v")
	cmd.Env = append(os.Environ(), crowded+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}
