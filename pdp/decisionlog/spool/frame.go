package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"time"
)

// A frame is one record on disk, all numbers little-endian:
//
//	4 bytes  mark      FF 47 48 01, which no JSON text can hold: FF is never in UTF-8
//	4 bytes  length    of the record, 1 to MaxRecord
//	8 bytes  time      nanoseconds since 1970 at which it was recorded
//	4 bytes  checksum  CRC-32C of length, time and record
//	n bytes  record
//
// The mark lets a reader find the next frame behind a damaged one.
const header = 20

// MaxRecord bounds a record, in bytes.
const MaxRecord = 64 << 10

func mark() []byte { return []byte{0xff, 'G', 'H', 1} }

// AppendFrame appends a frame with no record yet; the record is appended to what it answers, and then Seal is called.
func AppendFrame(dst []byte) []byte { return append(dst, make([]byte, header)...) }

// Seal completes the frame that AppendFrame began at start. It fails if the record is empty or longer than MaxRecord.
func Seal(frames []byte, start int, at time.Time) error {
	f := frames[start:]
	n := len(f) - header
	if n < 1 || n > MaxRecord {
		return errors.New("a record has 1 to 65536 bytes")
	}
	copy(f, mark())
	binary.LittleEndian.PutUint32(f[4:], uint32(n))
	binary.LittleEndian.PutUint64(f[8:], uint64(at.UnixNano()))
	binary.LittleEndian.PutUint32(f[16:], checksum(f))
	return nil
}

func checksum(f []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli) // made once by the standard library
	return crc32.Update(crc32.Checksum(f[4:16], table), table, f[header:])
}

// Record is one record that was read.
type Record struct {
	Time time.Time
	Text []byte
}

var (
	errTorn    = errors.New("record is cut short")
	errDamaged = errors.New("record is damaged")
)

// first reads the frame at the beginning of b and answers its size. A frame that goes beyond the end of b is torn.
func first(b []byte) (Record, int, error) {
	m := mark()
	if !bytes.HasPrefix(b, m[:min(len(b), len(m))]) {
		if len(bytes.Trim(b, "\x00")) == 0 { // what a file system leaves where it grew a file and then lost power
			return Record{}, 0, errTorn
		}
		return Record{}, 0, errDamaged
	}
	if len(b) < header {
		return Record{}, 0, errTorn
	}
	n := int(binary.LittleEndian.Uint32(b[4:]))
	switch {
	case n < 1 || n > MaxRecord:
		return Record{}, 0, errDamaged
	case len(b) < header+n:
		return Record{}, 0, errTorn
	}
	f := b[:header+n]
	if checksum(f) != binary.LittleEndian.Uint32(f[16:]) {
		return Record{}, 0, errDamaged
	}
	return Record{time.Unix(0, int64(binary.LittleEndian.Uint64(f[8:]))), f[header:]}, len(f), nil
}

// resume answers how many bytes of b to skip to the next whole frame, and len(b) if there is none.
func resume(b []byte) int {
	for at := 1; at < len(b); at++ {
		i := bytes.Index(b[at:], mark())
		if i < 0 {
			break
		}
		at += i
		if _, _, err := first(b[at:]); err == nil {
			return at
		}
	}
	return len(b)
}

// check walks through the frames of a whole segment. It answers where a torn end begins (len(b) if none does) and how many
// stretches within are damaged.
func check(b []byte) (end, damaged int) {
	for at := 0; at < len(b); {
		_, n, err := first(b[at:])
		if err == nil {
			at += n
			continue
		}
		skip := resume(b[at:])
		if at+skip == len(b) && errors.Is(err, errTorn) {
			return at, damaged
		}
		damaged++
		at += skip
	}
	return len(b), damaged
}

// Count answers how many frames there are in what was not appended.
func Count(frames []byte) int {
	count := 0
	for len(frames) > 0 {
		_, n, err := first(frames)
		if err != nil {
			break
		}
		frames = frames[n:]
		count++
	}
	return count
}
