package decisionlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// Sink takes records. sinktest.Run is its contract.
type Sink interface {
	// Write delivers records, each one JSON object without line breaks, in order: all of them, or it answers an error, after which
	// they are delivered again, so that a record may arrive twice (its decision_id is the same) and is never left out. An error
	// never holds any of a record's text, nor a credential.
	Write(ctx context.Context, records [][]byte) error
	Close() error
}

// ErrRejected is in the chain of a sink's error when the records that it was given will never be taken. The shipper then finds
// out which by offering fewer at a time, sets those aside and goes on.
var ErrRejected = errors.New("rejected for good")

// Later is in the chain of a sink's error when it said when to try again.
type Later struct{ After time.Duration }

func (l Later) Error() string { return fmt.Sprintf("try again in %v", l.After) }

// Bounds of what a shipper does.
const (
	mostRecords = 1000    // in one Write
	mostBytes   = 1 << 20 // in one Write
	firstWait   = 100 * time.Millisecond
	longestWait = 30 * time.Second
	longestAsk  = 5 * time.Minute // that a sink may ask us to wait
	mostAside   = 16 << 20        // bytes of records that were set aside, by sink
)

// shipper brings records from the spool to one sink.
type shipper struct {
	name   string
	sink   Sink
	reader *spool.Reader
	dir    string
	opts   *Options
	last   chan struct{} // closed when nothing more will be spooled
	once   sync.Once

	shipped, failed, rejected atomic.Uint64
	failing                   atomic.Bool
}

func newShipper(j *Journal, name string, sink Sink) *shipper {
	return &shipper{name: name, sink: sink, reader: j.spool.Reader(name), dir: j.opts.Dir, opts: &j.opts, last: make(chan struct{})}
}

// finish says that nothing more will be spooled: what is there is shipped, and run ends.
func (s *shipper) finish() { s.once.Do(func() { close(s.last) }) }

// run ships until finish was called and nothing is left, or ctx ends.
func (s *shipper) run(ctx context.Context) {
	more, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	defer func() { cancel(); <-done }()
	go func() {
		defer close(done)
		select {
		case <-s.last:
			cancel()
		case <-more.Done():
		}
	}()
	for ctx.Err() == nil {
		batch, err := s.next(more)
		if err != nil || !s.deliver(ctx, batch) {
			return
		}
		if err := s.reader.Commit(); err != nil { // it is delivered; after a restart once more
			s.opts.Log.ErrorContext(ctx, "decision log: a place could not be kept", "sink", s.name, "error", err)
		}
	}
}

// next waits for records, and then a moment for more of them.
func (s *shipper) next(more context.Context) ([][]byte, error) {
	records, err := s.reader.Next(more, mostRecords, mostBytes)
	if err != nil {
		return nil, err
	}
	batch, size := texts(nil, records)
	if len(batch) == mostRecords || size > mostBytes/2 {
		return batch, nil
	}
	linger := time.NewTimer(s.opts.Linger)
	defer linger.Stop()
	select {
	case <-linger.C:
	case <-more.Done():
	}
	now, cancel := context.WithCancel(more)
	cancel()
	if records, err = s.reader.Next(now, mostRecords-len(batch), mostBytes-size); err != nil {
		return batch, nil //nolint:nilerr // there are no more yet
	}
	batch, _ = texts(batch, records)
	return batch, nil
}

func texts(batch [][]byte, records []spool.Record) (all [][]byte, size int) {
	for _, r := range records {
		batch = append(batch, r.Text)
		size += len(r.Text)
	}
	return batch, size
}

// deliver tries until the records are taken or set aside. It answers false if ctx ended before.
func (s *shipper) deliver(ctx context.Context, batch [][]byte) bool {
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		err := s.sink.Write(ctx, batch)
		switch {
		case err == nil:
			s.shipped.Add(uint64(len(batch)))
			s.tell(ctx, nil)
			return true
		case ctx.Err() != nil:
			return false
		case errors.Is(err, ErrRejected) && len(batch) > 1:
			half := len(batch) / 2
			return s.deliver(ctx, batch[:half]) && s.deliver(ctx, batch[half:])
		case errors.Is(err, ErrRejected):
			s.setAside(ctx, batch[0], err)
			return true
		}
		s.failed.Add(1)
		s.tell(ctx, err)
		pause := wait/2 + rand.N(wait/2+1) //nolint:gosec // spreads retries; nothing secret hangs on it
		if later := (Later{}); errors.As(err, &later) {
			pause = max(pause, min(later.After, longestAsk))
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
		if ctx.Err() != nil {
			return false
		}
	}
}

// tell says once that a sink takes nothing, and once that it does again.
func (s *shipper) tell(ctx context.Context, err error) {
	if failing := err != nil; failing != s.failing.Swap(failing) {
		if failing {
			s.opts.Log.ErrorContext(ctx, "decision log: a sink takes no records; they wait in the spool", "sink", s.name, "error", err)
		} else {
			s.opts.Log.InfoContext(ctx, "decision log: a sink takes records again", "sink", s.name)
		}
	}
}

// setAside keeps a record that its sink will never take in a file of the spool's folder, as far as there is room.
func (s *shipper) setAside(ctx context.Context, record []byte, why error) {
	s.rejected.Add(1)
	err := func() error {
		f, err := os.OpenFile(filepath.Join(s.dir, s.name+".rejected"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Size()+int64(len(record)) >= mostAside {
			return errors.New("the file is full")
		}
		_, err = f.Write(append(record[:len(record):len(record)], '\n'))
		return err
	}()
	attrs := []any{slog.String("sink", s.name), slog.Any("error", why)}
	if err != nil {
		attrs = append(attrs, slog.String("not_kept", err.Error()))
	}
	s.opts.Log.ErrorContext(ctx, "decision log: a record is rejected and set aside", attrs...)
}
