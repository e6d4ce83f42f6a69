package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noon() time.Time { return time.Date(2026, 3, 3, 12, 0, 0, 0, time.UTC) }

func frame(t testing.TB, text string) []byte {
	t.Helper()
	f := append(spool.AppendFrame(nil), text...)
	if err := spool.Seal(f, 0, noon()); err != nil {
		t.Fatal(err)
	}
	return f
}

func open(t *testing.T, opts spool.Options) *spool.Spool {
	t.Helper()
	if opts.Readers == nil {
		opts.Readers = []string{"a"}
	}
	s, err := spool.Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // a second time where the test closes it
	return s
}

func add(t *testing.T, s *spool.Spool, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := s.Append(frame(t, text)); err != nil {
			t.Fatal(err)
		}
	}
}

// rest is all that a reader has not read yet.
func rest(r *spool.Reader) (texts []string) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		records, err := r.Next(ended, 7, 1<<20)
		if err != nil {
			return texts
		}
		for _, record := range records {
			texts = append(texts, string(record.Text))
		}
	}
}

func numbered(from, to int) (texts []string) {
	for i := from; i < to; i++ {
		texts = append(texts, fmt.Sprintf("%06d %s", i, strings.Repeat("x", 1000)))
	}
	return texts
}

func want(t *testing.T, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("%d records, want %d; they differ at %d", len(got), len(want), at)
	}
}

func segments(t *testing.T, dir, suffix string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRecordsComeBackInOrderAlsoAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	all := numbered(0, 600) // some five segments of 128 KiB
	s := open(t, spool.Options{Dir: dir, MaxBytes: spool.MinBytes})
	add(t, s, all...)
	if n := len(segments(t, dir, ".seg")); n < 4 {
		t.Fatalf("%d segments", n)
	}
	r := s.Reader("a")
	var got []string
	for len(got) < 250 {
		records, err := r.Next(t.Context(), 10, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range records {
			if !record.Time.Equal(noon()) {
				t.Fatalf("time %v", record.Time)
			}
			got = append(got, string(record.Text))
		}
	}
	want(t, got, all[:len(got)])
	if err := r.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(t.Context(), 10, 1<<20); err != nil { // read, and never committed
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, spool.Options{Dir: dir, MaxBytes: spool.MinBytes})
	add(t, again, "later")
	want(t, rest(again.Reader("a")), append(slices.Clone(all[len(got):]), "later"))
	if err := again.Reader("a").Commit(); err != nil {
		t.Fatal(err)
	}
	if n := len(segments(t, dir, ".seg")); n != 1 {
		t.Errorf("%d segments are left of what has been read", n)
	}
}

// Beside a writer that goes on through many segments, the spool is flushed and read.
func TestASpoolIsFlushedBesideItsWriter(t *testing.T) {
	t.Parallel()
	for _, lazy := range []bool{false, true} {
		s := open(t, spool.Options{Dir: t.TempDir(), MaxBytes: spool.MinBytes, Lazy: lazy})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 50 {
				if err := s.Sync(); err != nil {
					t.Error(err)
				}
			}
		}()
		all := numbers(t, s, 2000)
		<-done
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		want(t, all, numbered(0, 2000))
	}
}

// numbers writes n records, more than the spool has room for, while it reads them.
func numbers(t *testing.T, s *spool.Spool, n int) (read []string) {
	t.Helper()
	for _, text := range numbered(0, n) {
		for {
			_, err := s.Append(frame(t, text))
			if err == nil {
				break
			}
			if !errors.Is(err, spool.ErrFull) {
				t.Fatal(err)
			}
			read = append(read, rest(s.Reader("a"))...)
			if err := s.Reader("a").Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return append(read, rest(s.Reader("a"))...)
}

func TestABatchIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Options{Dir: t.TempDir()})
	add(t, s, numbered(0, 10)...)
	for _, c := range []struct{ limit, want int }{{2500, 2}, {1, 1}, {1 << 20, 7}} {
		records, err := s.Reader("a").Next(t.Context(), 100, c.limit)
		if err != nil || len(records) != c.want {
			t.Errorf("limit %d: %d records, %v", c.limit, len(records), err)
		}
	}
}

// A crash may leave any part of the last record.
func TestATornRecordIsCutOffAndTold(t *testing.T) {
	t.Parallel()
	last := frame(t, "the last record")
	for cut := range len(last) {
		dir, log := t.TempDir(), &bytes.Buffer{}
		s := open(t, spool.Options{Dir: dir})
		add(t, s, "one", "two")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name := segments(t, dir, ".seg")[0]
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(last[:cut]); err != nil {
			t.Fatal(err)
		}
		f.Close()
		again := open(t, spool.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(log, nil))})
		add(t, again, "three")
		want(t, rest(again.Reader("a")), []string{"one", "two", "three"})
		torn := again.Stats().Torn == 1 && strings.Contains(log.String(), "cut short")
		if torn != (cut > 0) || again.Stats().Damaged != 0 {
			t.Errorf("%d bytes: %+v\n%s", cut, again.Stats(), log)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestZeroesBehindTheLastRecordAreCutOff(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir})
	add(t, s, "one")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	name := segments(t, dir, ".seg")[0]
	if err := os.Truncate(name, 9000); err != nil {
		t.Fatal(err)
	}
	again := open(t, spool.Options{Dir: dir})
	want(t, rest(again.Reader("a")), []string{"one"})
	if again.Stats().Torn != 1 || again.Stats().Damaged != 0 {
		t.Errorf("%+v", again.Stats())
	}
}

// Whatever single byte is wrong, the records around it are read, the file is set aside, and what follows is read.
func TestADamagedSegmentIsSetAsideAndStopsNothing(t *testing.T) {
	t.Parallel()
	one := frame(t, "two")
	for at := range one {
		dir := t.TempDir()
		s := open(t, spool.Options{Dir: dir})
		add(t, s, "one", "two", "three")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		name := segments(t, dir, ".seg")[0]
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[len(frame(t, "one"))+at] ^= 0x81
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, spool.Options{Dir: dir})
		add(t, again, "four")
		want(t, rest(again.Reader("a")), []string{"one", "three", "four"})
		if err := again.Reader("a").Commit(); err != nil {
			t.Fatal(err)
		}
		if stats := again.Stats(); stats.Damaged != 1 || stats.SetAside != 1 || len(segments(t, dir, ".damaged")) != 1 {
			t.Errorf("byte %d: %+v", at, stats)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFullSpoolTakesNoMoreUntilEveryReaderGetsOn(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Options{Dir: t.TempDir(), MaxBytes: spool.MinBytes, Readers: []string{"a", "slow"}})
	all := numbered(0, 2000)
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = s.Append(frame(t, all[n]))
	}
	n-- // the last was not taken
	if !errors.Is(err, spool.ErrFull) || s.Stats().Bytes > spool.MinBytes || s.Stats().Bytes < spool.MinBytes*9/10 {
		t.Fatalf("%v, %+v", err, s.Stats())
	}
	room := s.Room()
	want(t, rest(s.Reader("a")), all[:n])
	if err := s.Reader("a").Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(frame(t, "more")); !errors.Is(err, spool.ErrFull) {
		t.Fatalf("the slow reader is passed over: %v", err)
	}
	want(t, rest(s.Reader("slow")), all[:n])
	if err := s.Reader("slow").Commit(); err != nil {
		t.Fatal(err)
	}
	<-room
	add(t, s, "more")
	want(t, rest(s.Reader("slow")), []string{"more"})
}

func TestAPartOfABatchThatFitsIsTaken(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Options{Dir: t.TempDir(), MaxBytes: spool.MinBytes})
	var batch []byte
	for _, text := range numbered(0, 2000) {
		batch = append(batch, frame(t, text)...)
	}
	n, err := s.Append(batch)
	size := len(frame(t, numbered(0, 1)[0]))
	if !errors.Is(err, spool.ErrFull) || n == 0 || n%size != 0 {
		t.Fatalf("%d bytes, %v", n, err)
	}
	want(t, rest(s.Reader("a")), numbered(0, n/size))
}

func TestAFolderIsForOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir})
	if _, err := spool.Open(spool.Options{Dir: dir, Readers: []string{"a"}}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, spool.Options{Dir: dir})
}

func TestAPlaceThatIsLostRepeatsRecords(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"empty": "", "text": "hello", "negative": "1 -5\n", "far": "7fffffffffffffff 1\n"} {
		dir := t.TempDir()
		s := open(t, spool.Options{Dir: dir})
		add(t, s, "one", "two")
		rest(s.Reader("a"))
		if err := errors.Join(s.Reader("a").Commit(), s.Close()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "a.place"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, spool.Options{Dir: dir})
		add(t, again, "three")
		if got := rest(again.Reader("a")); !slices.Equal(got, []string{"one", "two", "three"}) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A loss of power may leave a place that is further on than what is on the disk. What comes later is still read.
func TestAPlaceBeyondTheEndLeavesNothingLaterOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, spool.Options{Dir: dir})
	add(t, s, "one")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a.place"), []byte("5 4000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, spool.Options{Dir: dir})
	add(t, again, "two")
	if got := rest(again.Reader("a")); !slices.Contains(got, "two") {
		t.Errorf("read %v", got)
	}
}

func TestAFailedWriteIsGivenUpAndTheNextOneWorks(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Options{Dir: t.TempDir()})
	add(t, s, "one")
	s.BreakActive()
	if n, err := s.Append(frame(t, "lost")); err == nil || n != 0 {
		t.Fatalf("%d, %v", n, err)
	}
	add(t, s, "two")
	want(t, rest(s.Reader("a")), []string{"one", "two"})
}

func TestAReaderWaitsForWhatComes(t *testing.T) {
	t.Parallel()
	s := open(t, spool.Options{Dir: t.TempDir()})
	got := make(chan string)
	go func() {
		records, err := s.Reader("a").Next(context.Background(), 1, 1)
		if err != nil {
			got <- err.Error()
			return
		}
		got <- string(records[0].Text)
	}()
	add(t, s, "one")
	if text := <-got; text != "one" {
		t.Errorf("read %q", text)
	}
	if lag := s.Reader("a").Lag(noon().Add(time.Minute)); lag != time.Minute {
		t.Errorf("lag %v", lag)
	}
	if err := s.Reader("a").Commit(); err != nil || s.Reader("a").Lag(noon().Add(time.Minute)) != 0 {
		t.Errorf("%v, lag after all is taken", err)
	}
}

func TestWhatCannotBeOpenedSaysWhy(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string]spool.Options{
		"too small": {Dir: t.TempDir(), MaxBytes: 1, Readers: []string{"a"}}, "nobody": {Dir: t.TempDir()}, "a file": {Dir: file, Readers: []string{"a"}},
		"a path": {Dir: t.TempDir(), Readers: []string{"../a"}}, "twice": {Dir: t.TempDir(), Readers: []string{"a", "a"}},
	} {
		if _, err := spool.Open(opts); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	for _, size := range []int{0, spool.MaxRecord + 1} {
		if err := spool.Seal(append(spool.AppendFrame(nil), make([]byte, size)...), 0, noon()); err == nil {
			t.Errorf("a record of %d bytes", size)
		}
	}
}

// What is read of a segment is what was written to it, whatever else its bytes are; no bytes make the reader fail or hang.
func FuzzASegment(f *testing.F) {
	one, two := frame(f, `{"decision_id":"1"}`), frame(f, `{"decision_id":"2"}`)
	f.Add(append(slices.Clone(one), two...), 0, byte(0))
	f.Add(append(slices.Clone(one), two[:9]...), 3, byte(0xff))
	f.Add([]byte("\xffGH\x01\xffGH\x01"), 1, byte(1))
	f.Add(make([]byte, 100), 50, byte(7))
	f.Fuzz(func(t *testing.T, b []byte, at int, flip byte) {
		if len(b) > 0 {
			b[max(at, 0)%len(b)] ^= flip
		}
		end, damaged := spool.Check(b)
		records := spool.ReadAll(b)
		if end < 0 || end > len(b) || damaged < 0 {
			t.Fatalf("end %d, damaged %d of %d bytes", end, damaged, len(b))
		}
		var whole []byte
		for _, r := range records {
			f := append(spool.AppendFrame(nil), r.Text...)
			if err := spool.Seal(f, 0, r.Time); err != nil {
				t.Fatalf("read what cannot have been written: %v", err)
			}
			if !bytes.Contains(b, f) {
				t.Fatalf("read what is not there: %q", r.Text)
			}
			whole = append(whole, f...)
		}
		if damaged == 0 && end == len(b) && !bytes.Equal(whole, b) {
			t.Fatal("it is whole, and not all of it is read")
		}
		// Two whole records behind anything are always found.
		behind := spool.ReadAll(append(append(slices.Clone(b), one...), two...))
		if n := len(behind); n < 1 || string(behind[n-1].Text) != `{"decision_id":"2"}` {
			t.Fatalf("what follows is not read: %d records", n)
		}
	})
}
