package caller

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// maxFile bounds each file, in bytes.
const maxFile = 1 << 20

// watched is what some files hold together. It is read again when one of them changes; what cannot be read never replaces what
// could.
type watched[T any] struct {
	what    string
	files   []string
	read    func(contents [][]byte) (T, error)
	log     *slog.Logger
	every   time.Duration
	current atomic.Pointer[T]
	tried   [][]byte // what was read last, well-formed or not
}

func watch[T any](what string, files []string, log *slog.Logger, read func([][]byte) (T, error)) (*watched[T], error) {
	w := &watched[T]{what: what, files: files, read: read, log: log, every: time.Second}
	contents, err := w.contents()
	if err == nil {
		err = w.take(contents)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return w, nil
}

func (w *watched[T]) get() T { return *w.current.Load() }

// contents reads all files. Mounts of secrets swap links, of which times and sizes tell nothing, so it always reads.
func (w *watched[T]) contents() ([][]byte, error) {
	all := make([][]byte, 0, len(w.files))
	for _, name := range w.files {
		f, err := os.Open(name) //nolint:gosec // the operator names it
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
		_ = f.Close() // it was only read
		switch {
		case err != nil:
			return nil, err
		case len(b) > maxFile:
			return nil, fmt.Errorf("%s: larger than %d bytes", name, maxFile)
		}
		all = append(all, b)
	}
	return all, nil
}

func (w *watched[T]) take(contents [][]byte) error {
	w.tried = contents
	v, err := w.read(contents)
	if err != nil {
		return err
	}
	w.current.Store(&v)
	return nil
}

// run looks for changes until ctx ends.
func (w *watched[T]) run(ctx context.Context) error {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	lost := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		contents, err := w.contents()
		switch {
		case err != nil && lost, err == nil && same(contents, w.tried):
			lost = err != nil
			continue
		case err != nil:
			lost = true
		default:
			lost = false
			err = w.take(contents)
		}
		if err != nil {
			w.log.ErrorContext(ctx, "not read again; what was read before stays in force", "what", w.what, "error", err)
			continue
		}
		w.log.InfoContext(ctx, "read again", "what", w.what)
	}
}

func same(a, b [][]byte) bool {
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}
