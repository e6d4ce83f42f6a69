// Package sink is where decision logs go: files, HTTP servers that speak OPA's protocol, NATS, and PostgreSQL.
package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
)

// errClosed answers a Write after Close.
var errClosed = errors.New("sink is closed")

// File appends records to a file, one a line. It notices when the file was moved or removed, as logrotate does, and goes on in a
// new one. A write that fails leaves no part of a record behind.
type File struct {
	path   string
	file   *os.File
	reopen atomic.Bool
	closed bool
}

// OpenFile opens or makes the file, for its owner alone.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	if err := f.open(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) open() error {
	file, err := os.OpenFile(f.path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	if err := endLine(file); err != nil {
		file.Close()
		return fmt.Errorf("file: %w", err)
	}
	if f.file != nil {
		f.file.Close()
	}
	f.file = file
	return nil
}

// endLine ends a line that a crash has cut short, so that the next record has a line of its own.
func endLine(file *os.File) error {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return err
	}
	last := make([]byte, 1)
	if _, err := file.ReadAt(last, info.Size()-1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	_, err = file.WriteString("\n")
	return err
}

// Reopen makes the next Write open the file anew. It is safe at any time.
func (f *File) Reopen() { f.reopen.Store(true) }

// Write implements decisionlog.Sink.
func (f *File) Write(ctx context.Context, records [][]byte) error {
	switch {
	case f.closed:
		return errClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case len(records) == 0:
		return nil
	}
	if f.reopen.Swap(false) || f.moved() {
		if err := f.open(); err != nil {
			return err
		}
	}
	info, err := f.file.Stat()
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	var lines []byte
	for _, r := range records {
		lines = append(append(lines, r...), '\n')
	}
	_, err = f.file.Write(lines)
	if !info.Mode().IsRegular() {
		return err
	}
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("file: %w", err), f.file.Truncate(info.Size()))
	}
	return nil
}

// moved reports whether the path names another file by now.
func (f *File) moved() bool {
	now, err := os.Stat(f.path)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	ours, err := f.file.Stat()
	return err != nil || !os.SameFile(now, ours)
}

// Close implements decisionlog.Sink.
func (f *File) Close() error {
	if f.closed {
		return nil
	}
	f.closed = true
	return f.file.Close()
}
