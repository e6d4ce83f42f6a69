package engine_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

const passing = "package gatehouse.authz_test\n\ntest_true if 1 == 1\n"

// A publication whose tests did not end in time is tried again, less and less often, and nobody has to touch a file.
func TestWhatFailedForWantOfTimeIsTriedAgain(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(owner)}}
	at := &clock{now: time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)}
	var log testenv.Output
	var tried []string // the steps that failed
	e := open(t, engine.Options{Policies: files, Now: at.Now, Log: slog.New(slog.NewTextHandler(&log, nil)), OnLoad: func(l engine.Load) { tried = append(tried, l.Step) }})
	first := e.Revision()
	files["gatehouse/authz_test.rego"] = &fstest.MapFile{Data: []byte(passing)}
	e.GiveTests(time.Nanosecond)
	err := e.Reload(t.Context())
	refusedAt(t, err, engine.StepTests, "the tests do not end within 1ns")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("refused by %v", err)
	}
	tried = nil
	for _, pause := range []time.Duration{15 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute, 10 * time.Minute} {
		when := "It is tried again at " + at.Now().Add(pause).Format(time.RFC3339)
		if ready := e.Ready(); ready == nil || !strings.Contains(ready.Error(), "revision "+first+" goes on deciding") || !strings.Contains(ready.Error(), when) {
			t.Errorf("ready: %v, want %s", ready, when)
		}
		at.advance(pause - time.Nanosecond)
		if e.Retry(t.Context()); len(tried) != 0 {
			t.Errorf("tried before %v were over", pause)
		}
		at.advance(time.Nanosecond)
		if e.Retry(t.Context()); len(tried) != 1 || tried[0] != engine.StepTests {
			t.Errorf("after %v: tried %q", pause, tried)
		}
		tried = nil
	}
	if n := strings.Count(log.String(), "policies not loaded"); n != 1 {
		t.Errorf("the log tells of it %d times", n)
	}
	e.GiveTests(time.Minute)
	at.advance(10 * time.Minute)
	if e.Retry(t.Context()); e.Revision() == first || e.Ready() != nil || !may(t, e, "alice") {
		t.Errorf("revision %s, ready %v", e.Revision(), e.Ready())
	}
	tried = nil
	at.advance(time.Hour)
	if e.Retry(t.Context()); len(tried) != 0 {
		t.Errorf("tried again what decides: %q", tried)
	}
}

// What is wrong stays wrong, and what is new begins anew.
func TestWhatFailedForAnotherReasonIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(owner)}}
	at := &clock{now: time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)}
	tried := 0
	e := open(t, engine.Options{Policies: files, Now: at.Now, OnLoad: func(engine.Load) { tried++ }})
	offer := func(test string, limit time.Duration) {
		t.Helper()
		files["gatehouse/authz_test.rego"] = &fstest.MapFile{Data: []byte(test)}
		e.GiveTests(limit)
		if err := e.Reload(t.Context()); err == nil {
			t.Fatal("it was taken up")
		}
		tried = 0
	}
	offer("package gatehouse.authz_test\n\ntest_false if 1 == 2\n", time.Minute)
	at.advance(time.Hour)
	if e.Retry(t.Context()); tried != 0 || strings.Contains(e.Ready().Error(), "tried again") {
		t.Errorf("a test that fails was tried %d times; %v", tried, e.Ready())
	}
	offer(passing, time.Nanosecond)
	for range 3 {
		at.advance(time.Hour)
		e.Retry(t.Context())
	}
	offer(passing+"\ntest_more if 2 == 2\n", time.Nanosecond)
	at.advance(15 * time.Second)
	if e.Retry(t.Context()); tried != 1 {
		t.Errorf("what is new was tried %d times after its first pause", tried)
	}
	offer("package gatehouse.authz_test\n\ntest_false if 1 == 2\n", time.Minute)
	at.advance(time.Hour)
	if e.Retry(t.Context()); tried != 0 {
		t.Errorf("a test that fails was tried %d times, after one that was late", tried)
	}
}

func TestALateTestIsNamed(t *testing.T) {
	t.Parallel()
	looping := passing + "\ntest_loop if count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == 7]) == 2\n"
	files := fstest.MapFS{"gatehouse/authz.rego": {Data: []byte(owner)}}
	e := open(t, engine.Options{Policies: files})
	files["gatehouse/authz_test.rego"] = &fstest.MapFile{Data: []byte(looping)}
	e.GiveTests(50 * time.Millisecond)
	refusedAt(t, e.Reload(t.Context()), engine.StepTests, "the tests do not end within 50ms, gatehouse/authz_test.rego: test_loop among them")
}

// A bundle that its source does not send again is no other case; nor are decisions that were written down.
func TestABundleThatFailedForWantOfTimeIsTriedAgain(t *testing.T) {
	t.Parallel()
	at := &clock{now: time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)}
	e := open(t, engine.Options{Feeds: []engine.Feed{{Name: "main"}}, Now: at.Now, Tests: time.Nanosecond})
	part := engine.Part{Source: "main", Files: map[string][]byte{"gatehouse/authz.rego": []byte(owner), "cases/c.yaml": []byte(ownerCase)}}
	refusedAt(t, e.Put(t.Context(), part), engine.StepGolden, "the owner reads: after 1ns")
	away := errors.New("nobody there")
	e.Away(t.Context(), "main", away)
	e.GiveTests(time.Minute)
	e.Retry(t.Context())
	if e.Revision() != "" {
		t.Error("there was no pause")
	}
	at.advance(15 * time.Second)
	if e.Retry(t.Context()); e.Revision() == "" || !may(t, e, "alice") {
		t.Errorf("ready: %v", e.Ready())
	}
	if ready := e.Ready(); ready == nil || !strings.Contains(ready.Error(), away.Error()) {
		t.Errorf("its source is away still: %v", ready)
	}
	e.GiveTests(time.Nanosecond)
	part.Files = map[string][]byte{"gatehouse/authz.rego": []byte(owner + "\n"), "cases/c.yaml": []byte(ownerCase)}
	refusedAt(t, e.Put(t.Context(), part), engine.StepGolden, "after 1ns")
	e.Refuse(t.Context(), "main", &engine.Refused{Step: engine.StepSignature, Err: errors.New("wrong")})
	e.GiveTests(time.Minute)
	before := e.Revision()
	at.advance(time.Hour)
	if e.Retry(t.Context()); e.Revision() != before || !strings.Contains(e.Ready().Error(), "signature: wrong") {
		t.Errorf("what was offered before the last was put in force: %v", e.Ready())
	}
}

// An engine that runs does so by itself.
func TestARunningEngineTriesAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("authz.rego", owner)
	at := &clock{now: time.Date(2026, 3, 3, 10, 0, 0, 0, time.UTC)}
	e := open(t, engine.Options{Dir: dir, Now: at.Now, Poll: 2 * time.Millisecond})
	first := e.Revision()
	e.GiveTests(time.Nanosecond)
	write("authz_test.rego", passing)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "the late tests are told", func() bool { return e.Ready() != nil })
	e.GiveTests(time.Minute)
	at.advance(time.Minute)
	eventually(t, "they are tried again", func() bool { return e.Revision() != first && e.Ready() == nil })
}
