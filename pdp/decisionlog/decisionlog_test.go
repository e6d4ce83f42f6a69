package decisionlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// sink keeps what is written. While gate is not nil a write waits for it, and says on entered that it does.
type sink struct {
	gate, entered chan struct{}

	mu   sync.Mutex
	text bytes.Buffer
}

func (s *sink) Write(p []byte) (int, error) {
	if s.gate != nil {
		select {
		case s.entered <- struct{}{}:
		default:
		}
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// lines are the records, by message.
func (s *sink) lines(t *testing.T) map[string][]map[string]any {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]map[string]any{}
	for line := range strings.Lines(s.text.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		message, _ := m["msg"].(string)
		all[message] = append(all[message], m)
	}
	return all
}

// running starts a log and answers how to stop it.
func running(t *testing.T, s *sink) (log *decisionlog.Log, stop func()) {
	t.Helper()
	log = decisionlog.New(telemetry.Logger(s, slog.LevelInfo))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- log.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return log, stop
}

// S67: whatever was recorded before the end is written at the end, once.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	t.Parallel()
	s := &sink{}
	log, stop := running(t, s)
	const writers, each = 16, 200
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				log.Record(decisionlog.Entry{DecisionID: fmt.Sprintf("%d-%d", w, i)})
			}
		})
	}
	all.Wait()
	stop()
	seen := map[any]int{}
	for _, line := range s.lines(t)["denied"] {
		seen[line["decision_id"]]++
	}
	if len(seen) != writers*each || log.Lost() != 0 {
		t.Errorf("%d of %d written, %d lost", len(seen), writers*each, log.Lost())
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%v is written %d times", id, n)
		}
	}
}

// A log that hangs delays no decision; what it loses it counts and tells.
func TestAHungLogDelaysNoDecisionAndTellsItsLosses(t *testing.T) {
	t.Parallel()
	s := &sink{gate: make(chan struct{}), entered: make(chan struct{}, 1)}
	log, stop := running(t, s)
	log.Record(decisionlog.Entry{DecisionID: "first"})
	<-s.entered // now the writer hangs
	const more = 10_000
	done := make(chan struct{})
	go func() {
		for range more {
			log.Record(decisionlog.Entry{DecisionID: "another"})
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		close(s.gate)
		t.Fatal("recording waits for the log")
	}
	lost := log.Lost()
	if lost == 0 {
		t.Error("nothing is lost, and nothing waits: where is it?")
	}
	close(s.gate)
	stop()
	lines := s.lines(t)
	if told := lines["decisions not logged"]; len(told) != 1 || told[0]["level"] != "ERROR" || told[0]["count"] != float64(lost) {
		t.Errorf("told %v of %d lost", told, lost)
	}
	if got := int64(len(lines["denied"])); got+lost != more+1 {
		t.Errorf("%d written and %d lost of %d", got, lost, more+1)
	}
}

// S68: no value forges a line, and none makes one endless.
func TestAValueCannotForgeALine(t *testing.T) {
	t.Parallel()
	s := &sink{}
	log, stop := running(t, s)
	forged := "x\r\n{\"msg\":\"denied\",\"decision_id\":\"forged\"}\n\u2028" + strings.Repeat("é", 10_000)
	log.Record(decisionlog.Entry{
		DecisionID: "real", SubjectType: forged, SubjectID: forged, Action: forged, ResourceType: forged, ResourceID: forged, Address: forged,
	})
	stop()
	lines := s.lines(t)["denied"]
	if len(lines) != 1 || lines[0]["decision_id"] != "real" {
		t.Fatalf("written %v", lines)
	}
	for name, v := range lines[0] {
		if text, ok := v.(string); ok && len(text) > 300 {
			t.Errorf("%s has %d bytes", name, len(text))
		}
	}
}

func TestAFailureStandsOutFromADenial(t *testing.T) {
	t.Parallel()
	s := &sink{}
	log, stop := running(t, s)
	log.Record(decisionlog.Entry{DecisionID: "d", Time: time.Date(2026, 3, 3, 11, 0, 0, 0, time.FixedZone("", 3600)), Err: errors.New("evaluation cancelled")})
	stop()
	lines := s.lines(t)["not decided"]
	if len(lines) != 1 || lines[0]["level"] != "ERROR" || lines[0]["error"] != "evaluation cancelled" || lines[0]["decided_at"] != "2026-03-03T10:00:00Z" {
		t.Errorf("written %v", lines)
	}
}
