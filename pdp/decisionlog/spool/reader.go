package spool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// place is where a reader is: in front of the byte offset of a segment.
type place struct {
	segment uint64
	offset  int64
}

// Reader reads a spool from where it last committed. A record may be read again after a crash, and is never left out.
type Reader struct {
	spool *Spool
	name  string
	place place // committed; guarded by spool.mu

	ahead  place  // behind what Next has answered
	buffer []byte // read, not answered yet
	oldest time.Time
}

func (s *Spool) addReader(name string) error {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
	}
	if name == "" || len(name) > 64 || strings.Trim(strings.Map(func(c rune) rune {
		if plain(c) {
			return -1
		}
		return c
	}, name), "") != "" {
		return errors.New("a reader's name has letters, digits, - and _ alone")
	}
	if s.readers[name] != nil {
		return fmt.Errorf("reader %s is named twice", name)
	}
	r := &Reader{spool: s, name: name}
	if text, err := os.ReadFile(r.file()); err == nil {
		if _, err := fmt.Sscanf(string(text), "%x %d\n", &r.place.segment, &r.place.offset); err != nil || r.place.offset < 0 || r.place.segment>>62 != 0 {
			s.opts.Log.WarnContext(context.Background(), "decision log: a reader's place is not known any more; it begins anew and repeats records", "reader", name)
			r.place = place{}
		}
	}
	if len(s.segments) > 0 && r.place.segment < s.segments[0].number {
		r.place = place{segment: s.segments[0].number}
	}
	s.next = max(s.next, r.place.segment+1)
	r.ahead = r.place
	s.readers[name] = r
	return nil
}

func (r *Reader) file() string { return filepath.Join(r.spool.opts.Dir, r.name+".place") }

// Reader answers the reader of that name, which Options had.
func (s *Spool) Reader(name string) *Reader { return s.readers[name] }

// Next answers the records behind those that it answered last: at least one, at most most, and no more bytes than limit unless
// the first alone has more. It waits until there is one, or answers the context's error.
func (r *Reader) Next(ctx context.Context, most, limit int) ([]Record, error) {
	for {
		grown := r.spool.watch()
		if records := r.take(most, limit); len(records) > 0 {
			return records, nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *Spool) watch() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.grown == nil {
		s.grown = make(chan struct{})
	}
	return s.grown
}

// take reads what is there.
func (r *Reader) take(most, limit int) []Record {
	var records []Record
	bytes := 0
	for len(records) < most {
		if len(r.buffer) == 0 && !r.fill(len(records) == 0) {
			break
		}
		record, size, err := first(r.buffer)
		if err != nil {
			r.skip(err)
			continue
		}
		if len(records) > 0 && bytes+size > limit {
			break
		}
		records, bytes = append(records, record), bytes+size
		r.buffer, r.ahead.offset = r.buffer[size:], r.ahead.offset+int64(size)
	}
	if len(records) > 0 && r.oldest.IsZero() {
		r.spool.mu.Lock()
		r.oldest = records[0].Time
		r.spool.mu.Unlock()
	}
	return records
}

// fill reads on. It goes to the next segment only if asked to, so that what Next answers can be committed as one place.
func (r *Reader) fill(onwards bool) bool {
	for {
		number, size, sealed, ok := r.target()
		if !ok {
			return false
		}
		if number != r.ahead.segment {
			r.ahead = place{segment: number}
		}
		if r.ahead.offset >= size {
			if !sealed || !onwards || !r.onwards() {
				return false
			}
			continue
		}
		b, err := readFrom(r.spool.path(number, ".seg"), r.ahead.offset, size)
		if err != nil {
			r.spool.opts.Log.ErrorContext(context.Background(), "decision log: a segment could not be read and is passed over", "segment", number, "error", err)
			r.damaged(number)
			r.ahead.offset = size
			if !sealed {
				return false
			}
			continue
		}
		r.buffer = b
		return true
	}
}

// target answers the segment to read: ahead's, or the first behind it if that is gone.
func (r *Reader) target() (number uint64, size int64, sealed, ok bool) {
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.number >= r.ahead.segment {
			return seg.number, seg.size, s.isSealed(seg), true
		}
	}
	return 0, 0, false, false
}

// onwards goes to the beginning of the next segment, if there is one.
func (r *Reader) onwards() bool {
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, seg := range s.segments {
		if seg.number > r.ahead.segment {
			r.ahead = place{segment: seg.number}
			return true
		}
	}
	return false
}

func readFrom(path string, offset, end int64) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // made of the folder and a number
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, end-offset)
	n, err := f.ReadAt(b, offset)
	if errors.Is(err, io.EOF) && n > 0 {
		err = nil
	}
	return b[:n], err
}

// skip passes over what is no record.
func (r *Reader) skip(why error) {
	n := resume(r.buffer)
	if n == len(r.buffer) && errors.Is(why, errTorn) {
		r.spool.mu.Lock()
		r.spool.stats.Torn++
		r.spool.mu.Unlock()
	} else {
		r.damaged(r.ahead.segment)
	}
	r.spool.opts.Log.ErrorContext(context.Background(), "decision log: bytes that are no record are passed over",
		"reader", r.name, "segment", r.ahead.segment, "offset", r.ahead.offset, "bytes", n, "error", why)
	r.buffer, r.ahead.offset = r.buffer[n:], r.ahead.offset+int64(n)
}

func (r *Reader) damaged(number uint64) {
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Damaged++
	if seg := s.find(number); seg != nil {
		seg.damaged = true
	}
}

// Commit says that everything which Next has answered is taken.
func (r *Reader) Commit() error {
	text := fmt.Sprintf("%x %d\n", r.ahead.segment, r.ahead.offset)
	err := os.WriteFile(r.file()+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(r.file()+".new", r.file())
	}
	s := r.spool
	s.mu.Lock()
	defer s.mu.Unlock()
	r.place, r.oldest = r.ahead, time.Time{}
	s.clean()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Lag is how old the oldest record is that was read and is not committed, and 0 where there is none.
func (r *Reader) Lag(now time.Time) time.Duration {
	r.spool.mu.Lock()
	defer r.spool.mu.Unlock()
	if r.oldest.IsZero() {
		return 0
	}
	return max(now.Sub(r.oldest), 0)
}
