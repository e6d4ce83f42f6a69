// Package spool keeps records on disk between the moment when they happen and the moment when somebody has taken them: a
// bounded queue in a folder, with one writer and several readers that each have a place of their own.
//
// Records are framed with length and checksum in segment files that only grow. What Append has answered survives the end of the
// process, and after Sync that of the machine. A record that was cut short by a crash is cut off and told when the folder is
// opened. A damaged stretch is skipped: the records around it are read, and the file is set aside and never read again, so that
// no damage stops what follows. A segment is removed once every reader has passed it.
package spool

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Bounds of Options.MaxBytes, and of one segment.
const (
	DefaultBytes = 1 << 30
	MinBytes     = 1 << 20
	maxSegment   = 4 << 20
	keepDamaged  = 4 // files that were set aside
)

// ErrFull is in the chain of Append's error when there is no room until a reader gets on.
var ErrFull = errors.New("spool is full")

// Options say where a spool is and how large it may get.
type Options struct {
	Dir      string   // made if it is not there; for one process alone
	MaxBytes int64    // of all segments together; default 1 GiB, at least 1 MiB
	Readers  []string // names; letters, digits, - and _
	Lazy     bool     // flush full segments beside further writes, not before them; for who does not call Sync after each Append
	Log      *slog.Logger
}

// Stats is how a spool is at one moment.
type Stats struct {
	Bytes    int64  // on disk, not read by all
	Limit    int64  // of Bytes
	Torn     uint64 // records that were cut short by a crash or a failed write
	Damaged  uint64 // damaged stretches that were skipped
	SetAside uint64 // segments that were set aside for damage
}

// segment is one file.
type segment struct {
	number  uint64
	size    int64 // what is written in full
	damaged bool
}

// Spool is an open folder. Append is for one goroutine, and Sync may be called beside it; readers are for one goroutine each.
type Spool struct {
	opts    Options
	segSize int64
	lock    *os.File
	active  *os.File // the last of segments; nil until the next Append makes one. Only Append changes it, under mu
	lazy    sync.WaitGroup

	mu       sync.Mutex
	segments []*segment // ascending
	next     uint64
	sealed   bool // whether nothing more is appended to the last segment
	stats    Stats
	readers  map[string]*Reader
	grown    chan struct{} // closed when there is more to read; nil while nobody waits for that
	room     chan struct{} // closed when a segment is removed
}

// Open takes over the folder. It fails if another process has it.
func Open(opts Options) (*Spool, error) {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultBytes
	}
	if opts.MaxBytes < MinBytes {
		return nil, fmt.Errorf("spool: at least %d bytes are needed", MinBytes)
	}
	if len(opts.Readers) == 0 {
		return nil, errors.New("spool: nobody reads it")
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	s := &Spool{
		opts: opts, segSize: min(opts.MaxBytes/8, maxSegment), sealed: true, next: 1, readers: map[string]*Reader{},
		room: make(chan struct{}), stats: Stats{Limit: opts.MaxBytes},
	}
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(opts.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("spool: %s is in use by another process", opts.Dir)
	}
	if err := s.recover(); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("spool: %w", err)
	}
	return s, nil
}

// recover finds the segments and the readers' places, and cuts a torn end off. Nothing is ever appended to a segment of an
// earlier process, so that a place beyond its end, which a loss of power can leave, means its end.
func (s *Spool) recover() error {
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		number, ok := numberOf(e.Name(), ".seg")
		if !ok {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		s.segments = append(s.segments, &segment{number: number, size: info.Size()})
	}
	slices.SortFunc(s.segments, func(a, b *segment) int { return int(a.number) - int(b.number) })
	if n := len(s.segments); n > 0 {
		if err := s.cutTorn(s.segments[n-1]); err != nil {
			return err
		}
		s.next = s.segments[n-1].number + 1
	}
	for _, seg := range s.segments {
		s.stats.Bytes += seg.size
	}
	for _, name := range s.opts.Readers {
		if err := s.addReader(name); err != nil {
			return err
		}
	}
	s.clean()
	return nil
}

func (s *Spool) cutTorn(last *segment) error {
	b, err := os.ReadFile(s.path(last.number, ".seg"))
	if err != nil {
		return err
	}
	end, _ := check(b) // its reader will find and tell what is damaged
	if end == len(b) {
		return nil
	}
	if err := os.Truncate(s.path(last.number, ".seg"), int64(end)); err != nil {
		return err
	}
	last.size = int64(end)
	s.stats.Torn++
	s.opts.Log.WarnContext(context.Background(), "decision log: the last record was cut short by a crash; it is cut off",
		"segment", last.number, "bytes", len(b)-end)
	return nil
}

// numberOf reads the number in a file's name.
func numberOf(name, suffix string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	n, err := strconv.ParseUint(digits, 16, 63)
	return n, ok && err == nil && len(digits) == 16
}

func (s *Spool) path(number uint64, suffix string) string {
	return filepath.Join(s.opts.Dir, fmt.Sprintf("%016x%s", number, suffix))
}

// Append writes whole frames and answers how many bytes of them it took, which are at a frame's end also when there is an
// error. The error is ErrFull, or the disk's.
func (s *Spool) Append(frames []byte) (int, error) {
	taken := 0
	for taken < len(frames) {
		n, err := s.fit(frames[taken:])
		if err != nil {
			return taken, err
		}
		part := frames[taken : taken+n]
		if _, err := s.active.Write(part); err != nil {
			return taken, errors.Join(fmt.Errorf("spool: %w", err), s.undo())
		}
		s.mu.Lock()
		s.segments[len(s.segments)-1].size += int64(n)
		s.stats.Bytes += int64(n)
		if s.grown != nil {
			close(s.grown)
			s.grown = nil
		}
		s.mu.Unlock()
		taken += n
	}
	return taken, nil
}

// fit answers how many bytes of whole frames go into the active segment, after making one if need be.
func (s *Spool) fit(frames []byte) (int, error) {
	s.mu.Lock()
	room := s.opts.MaxBytes - s.stats.Bytes
	left := int64(0)
	if s.active != nil {
		left = s.segSize - s.segments[len(s.segments)-1].size
	}
	s.mu.Unlock()
	_, size, err := first(frames)
	if err != nil {
		return 0, fmt.Errorf("spool: not a frame: %w", err)
	}
	if int64(size) > room {
		return 0, ErrFull
	}
	if int64(size) > left {
		if err := s.begin(); err != nil {
			return 0, fmt.Errorf("spool: %w", err)
		}
		left = s.segSize
	}
	n := size
	for n < len(frames) {
		_, size, _ := first(frames[n:])
		if size == 0 || int64(n+size) > min(left, room) {
			break
		}
		n += size
	}
	return n, nil
}

// begin seals the active segment and makes the next.
func (s *Spool) begin() error {
	if full := s.active; full != nil {
		s.mu.Lock()
		s.active, s.sealed = nil, true
		s.clean()
		s.mu.Unlock()
		if err := s.later(func() error { return errors.Join(full.Sync(), full.Close()) }); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(s.path(s.next, ".seg"), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.active, s.sealed = f, false
	s.segments = append(s.segments, &segment{number: s.next})
	s.next++
	s.mu.Unlock()
	return s.later(s.syncFolder)
}

// later flushes something: at once, or beside further writes if the spool is lazy.
func (s *Spool) later(flush func() error) error {
	if !s.opts.Lazy {
		return flush()
	}
	s.lazy.Go(func() {
		if err := flush(); err != nil {
			s.opts.Log.ErrorContext(context.Background(), "decision log: a segment could not be flushed", "error", err)
		}
	})
	return nil
}

func (s *Spool) syncFolder() error {
	d, err := os.Open(s.opts.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// undo takes back what a failed write has left. If even that fails the segment is given up; its torn end is skipped.
func (s *Spool) undo() error {
	s.mu.Lock()
	size := s.segments[len(s.segments)-1].size
	s.mu.Unlock()
	err := s.active.Truncate(size)
	if err == nil {
		return nil
	}
	s.active.Close()
	s.mu.Lock()
	s.active, s.sealed = nil, true
	s.stats.Torn++
	s.mu.Unlock()
	return err
}

// Sync returns when all that was appended would survive a loss of power; where the spool is lazy, all but full segments that are
// being flushed.
func (s *Spool) Sync() error {
	s.mu.Lock()
	f := s.active
	s.mu.Unlock()
	if f == nil {
		return nil
	}
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) { // it was full, and flushed before it was closed
		return err
	}
	return nil
}

// Room is closed when there may be room again.
func (s *Spool) Room() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.room
}

// Stats tells how the spool is.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close flushes and lets the folder go.
func (s *Spool) Close() error {
	s.lazy.Wait()
	var err error
	if s.active != nil {
		err = errors.Join(s.active.Sync(), s.active.Close())
		s.active = nil
	}
	return errors.Join(err, s.lock.Close())
}

// clean removes the segments that all readers have passed. s.mu is held, or the spool not shared yet.
func (s *Spool) clean() {
	least := s.next
	for _, r := range s.readers {
		at := r.place.segment
		if seg := s.find(at); seg != nil && s.isSealed(seg) && r.place.offset >= seg.size {
			at++
		}
		least = min(least, at)
	}
	removed := false
	for len(s.segments) > 0 && s.segments[0].number < least && s.isSealed(s.segments[0]) {
		seg := s.segments[0]
		s.segments = s.segments[1:]
		s.stats.Bytes -= seg.size
		s.remove(seg)
		removed = true
	}
	if removed {
		close(s.room)
		s.room = make(chan struct{})
	}
}

func (s *Spool) remove(seg *segment) {
	var err error
	if seg.damaged {
		s.stats.SetAside++
		err = os.Rename(s.path(seg.number, ".seg"), s.path(seg.number, ".damaged"))
		s.dropOldDamaged()
	} else {
		err = os.Remove(s.path(seg.number, ".seg"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.opts.Log.ErrorContext(context.Background(), "decision log: a segment that was read could not be removed", "error", err)
	}
}

// dropOldDamaged keeps the newest few of the files that were set aside.
func (s *Spool) dropOldDamaged() {
	names, err := filepath.Glob(filepath.Join(s.opts.Dir, "*.damaged"))
	if err != nil || len(names) <= keepDamaged {
		return
	}
	slices.Sort(names)
	for _, name := range names[:len(names)-keepDamaged] {
		_ = os.Remove(name) // the next one that is set aside tries again
	}
}

func (s *Spool) find(number uint64) *segment {
	i, ok := slices.BinarySearchFunc(s.segments, number, func(seg *segment, n uint64) int { return int(seg.number) - int(n) })
	if !ok {
		return nil
	}
	return s.segments[i]
}

func (s *Spool) isSealed(seg *segment) bool {
	return s.sealed || seg != s.segments[len(s.segments)-1]
}
