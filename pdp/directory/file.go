package directory

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// file is a directory in a file, which is read again when it has changed: by its size and times, which also works on mounts where
// change events do not, and once two looks in a row agree, so that half a file is not tried.
type file struct {
	name   string
	limits Limits
	poll   time.Duration

	tried os.FileInfo // of what was read last
	last  os.FileInfo // of the look before
	err   error       // of what was read last
}

func (f *file) close() {}

func (f *file) pause(time.Duration, bool) time.Duration { return f.poll }

func (f *file) retry(int, error) time.Duration { return f.poll }

// next implements source.
func (f *file) next(_ context.Context, v *View) (*View, error) {
	info, err := os.Stat(f.name)
	if err != nil {
		f.tried, f.last = nil, nil
		return nil, &awayError{plainPath(err), 0}
	}
	settled := same(info, f.last) || v == nil
	f.last = info
	switch {
	case same(info, f.tried):
		return v, f.err
	case !settled:
		return v, nil
	}
	next, err := f.read(v)
	var path *os.PathError
	if errors.As(err, &path) {
		return nil, &awayError{plainPath(err), 0}
	}
	if f.tried, f.err = info, err; err == nil && v != nil && next.word == v.word {
		return v, nil // touched, but as it was
	}
	return next, err
}

func same(a, b os.FileInfo) bool {
	return b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

func (f *file) read(v *View) (*View, error) {
	in, err := os.Open(f.name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // it was only read
	hint := 0
	if v != nil {
		hint = v.subjects
	}
	return f.parse(bufio.NewReaderSize(in, 1<<16), hint)
}

func (f *file) parse(in io.Reader, hint int) (*View, error) {
	if strings.HasSuffix(f.name, ".ndjson") {
		return readSnapshot(in, hint, f.limits)
	}
	return readData(in, hint, f.limits)
}

// plainPath is an error without the path, which the operator knows.
func plainPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// ReadFile reads a snapshot of the feed (.ndjson) or an OPA data.json, as from Options.URL file:///name. What is wrong in one is
// "line 3: what", the line being that of the member.
func ReadFile(name string, limits Limits) (*View, error) {
	v, err := (&file{name: name, limits: limits.withDefaults()}).read(nil)
	var placed *placedError
	if errors.As(err, &placed) {
		if line, ok := lineAt(name, placed.at); ok {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
	}
	return v, plainPath(err)
}

// lineAt is the line of a byte of a file.
func lineAt(name string, at int64) (line int, ok bool) {
	in, err := os.Open(name) //nolint:gosec // the caller says which
	if err != nil {
		return 0, false
	}
	defer func() { _ = in.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(in, at))
	return 1 + bytes.Count(text, []byte("\n")), err == nil
}
