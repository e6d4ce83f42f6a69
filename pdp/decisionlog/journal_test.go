package decisionlog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// patience is how long anything may take on a busy machine.
const patience = 30 * time.Second

// memory is a sink that keeps what it takes, and does before what a test wants.
type memory struct {
	before func(ctx context.Context, records [][]byte) error

	mu     sync.Mutex
	taken  []string
	tries  []time.Time
	closed bool
}

func (m *memory) Write(ctx context.Context, records [][]byte) error {
	m.mu.Lock()
	m.tries = append(m.tries, time.Now())
	before := m.before
	m.mu.Unlock()
	if before != nil {
		if err := before(ctx, records); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range records {
		m.taken = append(m.taken, string(r))
	}
	return nil
}

func (m *memory) Close() error { m.closed = true; return nil }

// ids are the decision ids of what was taken, in order.
func (m *memory) ids(t testing.TB) (ids []string) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.taken {
		ids = append(ids, idOf(t, r))
	}
	return ids
}

func idOf(t testing.TB, record string) string {
	t.Helper()
	var r struct {
		ID string `json:"decision_id"`
	}
	if err := json.Unmarshal([]byte(record), &r); err != nil || r.ID == "" {
		t.Fatalf("%q: %v", record, err)
	}
	return r.ID
}

// journal opens a journal with one sink, "a", and fitting defaults.
func journal(t testing.TB, opts decisionlog.Options, sink decisionlog.Sink) *decisionlog.Journal {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = t.TempDir()
	}
	if opts.WhenFull == "" {
		opts.WhenFull = decisionlog.Block
	}
	if opts.Linger == 0 {
		opts.Linger = time.Millisecond
	}
	if opts.Sinks == nil {
		opts.Sinks = map[string]decisionlog.Sink{"a": sink}
	}
	j, err := decisionlog.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// start runs a journal and answers how to stop it.
func start(t testing.TB, j *decisionlog.Journal) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the journal does not end")
		}
	})
	t.Cleanup(stop)
	return stop
}

func record(t testing.TB, j *decisionlog.Journal, id string) {
	t.Helper()
	e := denial(id)
	if err := j.Record(t.Context(), &e); err != nil {
		t.Fatal(err)
	}
}

func numbers(from, to int) (ids []string) {
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("d-%06d", i))
	}
	return ids
}

// S67: whatever was recorded is at every sink when the journal has ended, in order and once.
func TestAllSinksHaveEverythingAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, when := range []decisionlog.WhenFull{decisionlog.Block, decisionlog.Fail, decisionlog.Drop} {
		one, two := &memory{}, &memory{}
		j := journal(t, decisionlog.Options{WhenFull: when, Sinks: map[string]decisionlog.Sink{"one": one, "two": two}}, nil)
		stop := start(t, j)
		const writers, each = 16, 100
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range each {
					e := denial(fmt.Sprintf("%d-%03d", w, i))
					if err := j.Record(context.Background(), &e); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		stop()
		for _, sink := range []*memory{one, two} {
			seen := map[string]string{}
			for _, id := range sink.ids(t) {
				writer, number, _ := strings.Cut(id, "-")
				if number <= seen[writer] && seen[writer] != "" {
					t.Fatalf("%s: %s comes after %s", when, id, seen[writer])
				}
				seen[writer] = number
			}
			if n := len(sink.ids(t)); n != writers*each || !sink.closed {
				t.Errorf("%s: %d of %d, closed: %t", when, n, writers*each, sink.closed)
			}
		}
		e := denial("late")
		if err := j.Record(context.Background(), &e); (err == nil) != (when == decisionlog.Drop) {
			t.Errorf("%s: recorded after the end: %v", when, err)
		}
	}
}

// S67: also what waits in memory at that moment.
func TestWhatWaitsAtTheEndIsWritten(t *testing.T) {
	t.Parallel()
	for range 30 {
		sink := &memory{}
		j := journal(t, decisionlog.Options{WhenFull: decisionlog.Drop}, sink)
		for _, id := range numbers(0, 5) {
			record(t, j, id)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Run(ended); err != nil || !slices.Equal(sink.ids(t), numbers(0, 5)) {
			t.Fatalf("%v, %v", sink.ids(t), err)
		}
	}
}

func TestAllowancesAreSampledAndDenialsAreNot(t *testing.T) {
	t.Parallel()
	sink := &memory{}
	j := journal(t, decisionlog.Options{Rates: decisionlog.Rates{Routes: map[string]float64{"all": 1}}}, sink)
	stop := start(t, j)
	for i, route := range []string{"all", "orders"} {
		e := denial(fmt.Sprint("allowed-", i))
		e.Outcome, e.Route, e.Result = decisionlog.Permit, route, authzen.Response{Decision: true}
		if err := j.Record(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	for i, outcome := range []string{decisionlog.Deny, decisionlog.NotApplicable, decisionlog.Indeterminate} {
		e := denial(fmt.Sprint("denied-", i))
		e.Outcome = outcome
		if err := j.Record(t.Context(), &e); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	if got := sink.ids(t); !slices.Equal(got, []string{"allowed-0", "denied-0", "denied-1", "denied-2"}) {
		t.Errorf("recorded %v", got)
	}
	if got := j.Stats().Records; !maps.Equal(got, map[string]uint64{"permit": 1, "deny": 1, "not_applicable": 1, "indeterminate": 1, "document": 0}) {
		t.Errorf("counted %v", got)
	}
}

func TestASinkThatComesBackGetsEverythingInOrder(t *testing.T) {
	t.Parallel()
	failures, told := 0, error(nil)
	var j *decisionlog.Journal
	sink := &memory{before: func(context.Context, [][]byte) error {
		if failures++; failures <= 3 {
			if failures == 2 {
				told = j.Ready()
			}
			return errors.New("away")
		}
		return nil
	}}
	log := &testenv.Output{}
	j = journal(t, decisionlog.Options{Log: slog.New(slog.NewJSONHandler(log, nil))}, sink)
	stop := start(t, j)
	for _, id := range numbers(0, 50) {
		record(t, j, id)
	}
	await.That(t, "all are shipped", func() bool { return len(sink.ids(t)) == 50 })
	stop()
	if told == nil || !strings.Contains(told.Error(), "takes no records") || j.Ready() != nil {
		t.Errorf("ready: %v, and then %v", told, j.Ready())
	}
	if !slices.Equal(sink.ids(t), numbers(0, 50)) || strings.Count(log.String(), "takes no records") != 1 || strings.Count(log.String(), "takes records again") != 1 {
		t.Errorf("%v\n%s", sink.ids(t), log)
	}
}

func TestRetriesBackOffAndKeepToWhatTheSinkAsks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answers := []error{errors.New("1"), errors.New("2"), errors.New("3"), fmt.Errorf("busy: %w", decisionlog.Later{After: 2 * time.Minute}), nil}
		sink := &memory{}
		sink.before = func(context.Context, [][]byte) error { return answers[len(sink.tries)-1] }
		j := journal(t, decisionlog.Options{WhenFull: decisionlog.Drop}, sink)
		stop := start(t, j)
		record(t, j, "d-1")
		time.Sleep(10 * time.Minute)
		stop()
		least := []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 2 * time.Minute}
		most := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 2 * time.Minute}
		if len(sink.tries) != 5 {
			t.Fatalf("%d tries", len(sink.tries))
		}
		for i := range least {
			if pause := sink.tries[i+1].Sub(sink.tries[i]); pause < least[i] || pause > most[i]+time.Millisecond {
				t.Errorf("pause %d is %v", i, pause)
			}
		}
	})
}

func TestARecordThatIsRejectedStopsNoOther(t *testing.T) {
	t.Parallel()
	sink := &memory{before: func(_ context.Context, records [][]byte) error {
		for _, r := range records {
			if bytes.Contains(r, []byte(`"d-000013"`)) || bytes.Contains(r, []byte(`"d-000040"`)) {
				return fmt.Errorf("status 400: %w", decisionlog.ErrRejected)
			}
		}
		return nil
	}}
	dir := t.TempDir()
	j := journal(t, decisionlog.Options{Dir: dir, Linger: 50 * time.Millisecond}, sink)
	for _, id := range numbers(0, 50) { // before it runs, so that they are one batch
		go func() { e := denial(id); _ = j.Record(context.Background(), &e) }()
	}
	stop := start(t, j)
	await.That(t, "all others are shipped", func() bool { return len(sink.ids(t)) == 48 })
	stop()
	kept, err := os.ReadFile(filepath.Join(dir, "a.rejected"))
	if err != nil || strings.Count(string(kept), "\n") != 2 || !strings.Contains(string(kept), "d-000013") || !strings.Contains(string(kept), "d-000040") {
		t.Errorf("kept %s, %v", kept, err)
	}
	if s := j.Stats().Sinks["a"]; s.Rejected != 2 || s.Shipped != 48 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsNotShippedAtTheEndIsShippedAfterTheNextStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hung, _ := stuck()
	j := journal(t, decisionlog.Options{Dir: dir, Grace: time.Millisecond}, hung)
	stop := start(t, j)
	for _, id := range numbers(0, 20) {
		record(t, j, id)
	}
	stop()
	if n := len(hung.ids(t)); n != 0 {
		t.Fatalf("%d shipped", n)
	}
	sink := &memory{}
	again := journal(t, decisionlog.Options{Dir: dir}, sink)
	stop = start(t, again)
	stop()
	if !slices.Equal(sink.ids(t), numbers(0, 20)) {
		t.Errorf("shipped %v", sink.ids(t))
	}
}

// S67: a masked value is in no sink, no file of the spool, no line of the log and no error.
func TestAMaskedValueIsNowhere(t *testing.T) {
	t.Parallel()
	dir, log := t.TempDir(), &testenv.Output{}
	sink, letGo := stuck()
	j := journal(t, decisionlog.Options{
		Dir: dir, WhenFull: decisionlog.Fail, MaxBytes: spool.MinBytes, Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Masks: masks(t, decisionlog.Mask{Pointer: "/input/subject/properties/claims/email"}, decisionlog.Mask{Pointer: "/input/context/ip", With: "0.0.0.0"},
			decisionlog.Mask{Pointer: "/result/reasons/0"}, decisionlog.Mask{Pointer: "/gatehouse/looked_up/owner"}),
	}, sink)
	stop := start(t, j)
	var failure error
	for i := 0; failure == nil; i++ {
		e := denial(fmt.Sprint("d-", i))
		if i%2 == 1 {
			e.Err = errors.New(canary)
		}
		e.Input = authzen.Request{
			Subject: authzen.Subject{Type: "user", ID: "ann", Properties: map[string]any{"claims": map[string]any{"email": canary, "token": canary}, "x": strings.Repeat("x", 20_000)}},
			Context: map[string]any{"ip": canary, "headers": map[string]any{"cookie": canary, "authorization": "Bearer " + canary}},
		}
		e.Result, e.LookedUp = authzen.Response{Context: &authzen.ResponseContext{Reasons: []string{canary}}}, map[string]any{"owner": canary}
		failure = j.Record(t.Context(), &e)
	}
	files := 0
	look := func() {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			b, err := os.ReadFile(path)
			if bytes.Contains(b, []byte(canary)) {
				t.Errorf("%s holds it", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	look()
	letGo()
	sink.mu.Lock()
	n := 0
	sink.before = func(context.Context, [][]byte) error {
		if n++; n < 3 {
			return decisionlog.ErrRejected
		}
		return nil
	}
	sink.mu.Unlock()
	stop()
	look()
	if files < 5 || len(sink.ids(t)) < 10 {
		t.Errorf("%d files, %d records", files, len(sink.ids(t)))
	}
	all := strings.Join(sink.taken, "\n") + log.String() + failure.Error()
	if strings.Contains(all, canary) {
		t.Errorf("it is told")
	}
	if !strings.Contains(all, "0.0.0.0") || !strings.Contains(all, `"erased":["/input/subject/properties/claims/email"`) {
		t.Errorf("the masks are not told: %.2000s", all)
	}
}

func TestMetricsTellHowTheLogIs(t *testing.T) {
	t.Parallel()
	sink, letGo := stuck()
	now := time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC)
	var mu sync.Mutex
	j := journal(t, decisionlog.Options{Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now }}, sink)
	stop := start(t, j)
	record(t, j, "d-1")
	await.That(t, "it is on its way", func() bool { sink.mu.Lock(); defer sink.mu.Unlock(); return len(sink.tries) > 0 })
	mu.Lock()
	now = now.Add(90 * time.Second)
	mu.Unlock()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(j.Collector())
	expect := func(text string) {
		t.Helper()
		if err := testutil.GatherAndCompare(registry, strings.NewReader(text), "gatehouse_pdp_decision_log_lag_seconds", "gatehouse_pdp_decision_log_shipped_total"); err != nil {
			t.Error(err)
		}
	}
	const form = "# HELP gatehouse_pdp_decision_log_lag_seconds Age of the oldest record on its way to a sink; 0 when none is.\n" +
		"# TYPE gatehouse_pdp_decision_log_lag_seconds gauge\ngatehouse_pdp_decision_log_lag_seconds{sink=\"a\"} %d\n" +
		"# HELP gatehouse_pdp_decision_log_shipped_total Records that a sink has taken.\n" +
		"# TYPE gatehouse_pdp_decision_log_shipped_total counter\ngatehouse_pdp_decision_log_shipped_total{sink=\"a\"} %d\n"
	expect(fmt.Sprintf(form, 90, 0))
	letGo()
	stop()
	expect(fmt.Sprintf(form, 0, 1))
}

func TestWhatAJournalCannotBeMadeOfSaysWhy(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]decisionlog.Options{
		"no choice": {}, "another choice": {WhenFull: "sometimes"}, "no sink": {WhenFull: decisionlog.Drop},
		"a rate":  {WhenFull: decisionlog.Drop, Rates: decisionlog.Rates{Default: 7}, Sinks: map[string]decisionlog.Sink{"a": &memory{}}},
		"no room": {WhenFull: decisionlog.Drop, MaxBytes: 5, Sinks: map[string]decisionlog.Sink{"a": &memory{}}},
	} {
		opts.Dir = t.TempDir()
		if _, err := decisionlog.Open(opts); err == nil || !strings.HasPrefix(err.Error(), "decision log: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
