package decisionlog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/await"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// stuck is a sink that takes nothing until it is let go.
func stuck() (sink *memory, letGo func()) {
	gate := make(chan struct{})
	return &memory{before: func(ctx context.Context, _ [][]byte) error {
		select {
		case <-gate:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}, sync.OnceFunc(func() { close(gate) })
}

// large is a denial whose record has some 50 KB, so that a spool is soon full.
func large(id string) *decisionlog.Event {
	e := denial(id)
	e.Input = map[string]any{"x": strings.Repeat("x", 50_000)}
	return &e
}

// fill records until the spool is full, and answers what was acknowledged.
func fill(t *testing.T, j *decisionlog.Journal) (ids []string) {
	t.Helper()
	for i := 0; ; i++ {
		id := fmt.Sprint("d-", i)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := j.Record(ctx, large(id))
		cancel()
		if err != nil {
			return ids
		}
		ids = append(ids, id)
	}
}

// A decision waits for room in the spool, as long as whoever asks for it does; and nothing that was acknowledged is lost.
func TestWithBlockADecisionWaitsForRoom(t *testing.T) {
	t.Parallel()
	sink, letGo := stuck()
	j := journal(t, decisionlog.Options{WhenFull: decisionlog.Block, MaxBytes: spool.MinBytes}, sink)
	stop := start(t, j)
	ids := fill(t, j)
	if len(ids) < 10 || j.Stats().Spool.Bytes > spool.MinBytes {
		t.Fatalf("%d records fill it, %+v", len(ids), j.Stats())
	}
	waiting, gone := context.WithCancel(t.Context())
	answered := make(chan error)
	go func() { answered <- j.Record(waiting, large("gone")) }()
	gone()
	if err := <-answered; !errors.Is(err, decisionlog.ErrUnrecorded) {
		t.Errorf("answered %v", err)
	}
	go func() { answered <- j.Record(context.Background(), large("patient")) }()
	letGo()
	select {
	case err := <-answered:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("there is room, and it still waits")
	}
	stop()
	got := sink.ids(t)
	for _, id := range append(ids, "patient") {
		if !slices.Contains(got, id) {
			t.Errorf("%s is lost", id)
		}
	}
}

// S56: a decision that cannot be recorded is none.
func TestWithFailADecisionIsDenied(t *testing.T) {
	t.Parallel()
	sink, letGo := stuck()
	log := &testenv.Output{}
	j := journal(t, decisionlog.Options{WhenFull: decisionlog.Fail, MaxBytes: spool.MinBytes, Log: slog.New(slog.NewJSONHandler(log, nil))}, sink)
	stop := start(t, j)
	ids := fill(t, j)
	if err := j.Ready(); err == nil || !strings.Contains(err.Error(), "degraded") {
		t.Errorf("ready: %v", err)
	}
	err := j.Record(context.Background(), large("late")) // never waits
	if !errors.Is(err, decisionlog.ErrUnrecorded) || !errors.Is(err, spool.ErrFull) || !strings.Contains(log.String(), "records cannot be spooled") {
		t.Errorf("%v, %s", err, log)
	}
	letGo()
	await.That(t, "there is room again", func() bool { return j.Record(context.Background(), large("after")) == nil })
	if err := j.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	stop()
	got := sink.ids(t)
	if !slices.Equal(got[:len(ids)], ids) || got[len(got)-1] != "after" {
		t.Errorf("%v of %v", got, ids)
	}
	if s := j.Stats(); s.Refused == 0 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// A log that hangs delays no decision; what it loses it counts and tells.
func TestWithDropNoDecisionWaitsAndTheLossIsCounted(t *testing.T) {
	t.Parallel()
	sink, letGo := stuck()
	log := &testenv.Output{}
	j := journal(t, decisionlog.Options{WhenFull: decisionlog.Drop, MaxBytes: spool.MinBytes, Log: slog.New(slog.NewJSONHandler(log, nil))}, sink)
	stop := start(t, j)
	const all = 200 // of 50 KB each
	for i := range all {
		if err := j.Record(context.Background(), large(fmt.Sprint("d-", i))); err != nil {
			t.Fatal(err)
		}
	}
	await.That(t, "the loss is told", func() bool { return strings.Contains(log.String(), "records dropped") })
	letGo()
	stop()
	got, lost := len(sink.ids(t)), int(j.Stats().Dropped)
	if lost == 0 || got+lost != all {
		t.Errorf("%d shipped and %d lost of %d", got, lost, all)
	}
}

// However patient an enforcement point is, a decision that finds no room is refused after Wait.
func TestWithBlockADecisionWaitsNoLongerThanItMay(t *testing.T) {
	t.Parallel()
	sink, letGo := stuck()
	j := journal(t, decisionlog.Options{WhenFull: decisionlog.Block, Wait: 100 * time.Millisecond, MaxBytes: spool.MinBytes}, sink)
	stop := start(t, j)
	var err error
	for deadline := time.Now().Add(patience); err == nil && time.Now().Before(deadline); {
		err = j.Record(context.Background(), large("patient")) // which never ends by itself
	}
	if !errors.Is(err, decisionlog.ErrUnrecorded) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("answered %v", err)
	}
	letGo()
	await.That(t, "there is room again", func() bool { return j.Record(context.Background(), large("after")) == nil })
	stop()
}

// A record that is to be on the disk before its decision is answered is written by who also flushes it, and by nobody who comes by.
func TestNobodyAcknowledgesARecordThatIsNotFlushed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		sync time.Duration
		done bool
	}{{0, false}, {time.Hour, true}, {-1, true}} {
		j, err := decisionlog.Open(decisionlog.Options{Dir: t.TempDir(), WhenFull: decisionlog.Fail, Sync: c.sync, Sinks: map[string]decisionlog.Sink{"memory": &memory{}}})
		if err != nil {
			t.Fatal(err)
		}
		if done := j.Passing(); done != c.done {
			t.Errorf("flushed every %v: acknowledged is %v", c.sync, done)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Error(err)
		}
	}
}

// Whoever leads, follows, finds no room or comes when the log ends is told how its record went, and what was acknowledged is shipped.
func TestEveryRecordIsTakenOrRefusedWhenTheLogEnds(t *testing.T) {
	t.Parallel()
	for _, when := range []decisionlog.WhenFull{decisionlog.Block, decisionlog.Fail, decisionlog.Drop} {
		for _, flush := range []time.Duration{0, time.Millisecond, -1} {
			sink := &memory{}
			j := journal(t, decisionlog.Options{WhenFull: when, Sync: flush, Buffer: 4 << 10, Grace: patience}, sink)
			stop := start(t, j)
			var all sync.WaitGroup
			var mu sync.Mutex
			var taken []string
			some := make(chan struct{}, 1<<12)
			for w := range 8 {
				all.Go(func() {
					for i := 0; ; i++ {
						e := denial(fmt.Sprintf("%d-%05d", w, i))
						lost := j.Stats().Dropped
						err := j.Record(context.Background(), &e) // which never ends by itself
						if err != nil && !errors.Is(err, decisionlog.ErrUnrecorded) {
							t.Error(err)
						}
						if err != nil && when == decisionlog.Block || when == decisionlog.Drop && j.Stats().Dropped > lost && i > 200 || i > 2000 {
							return
						}
						if err == nil {
							mu.Lock()
							taken = append(taken, e.DecisionID)
							mu.Unlock()
							select {
							case some <- struct{}{}:
							default:
							}
						}
					}
				})
			}
			for range 500 {
				<-some
			}
			stop()
			ended := make(chan struct{})
			go func() { all.Wait(); close(ended) }()
			select {
			case <-ended:
			case <-time.After(patience):
				t.Fatalf("%s, flushed every %v: somebody still waits", when, flush)
			}
			got := map[string]int{}
			for _, id := range sink.ids(t) {
				got[id]++
			}
			for id, n := range got {
				if n != 1 {
					t.Errorf("%s, flushed every %v: %s is there %d times", when, flush, id, n)
				}
			}
			if when == decisionlog.Drop {
				continue
			}
			for _, id := range taken {
				if got[id] == 0 {
					t.Errorf("%s, flushed every %v: %s was acknowledged, and is nowhere", when, flush, id)
				}
			}
		}
	}
}
