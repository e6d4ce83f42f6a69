package engine

import (
	"context"
	"path"
	"sync"
)

// decoded keeps what data files hold, so that who publishes another rule does not decode all data anew, beside those who wait for
// decisions. Nothing changes what it answers: snapshots share it.
type decoded struct {
	large int // members beyond which an object is a relation

	mu    sync.Mutex
	files map[string]decodedFile
}

type decodedFile struct {
	text  []byte
	value any
}

// decode reads JSON or YAML. Of each file it keeps what it was last. What is not to be kept has no relations.
func (d *decoded) decode(ctx context.Context, name string, text []byte) (any, error) {
	if d == nil {
		return readData(ctx, text, never, true)
	}
	d.mu.Lock()
	last, ok := d.files[name]
	d.mu.Unlock()
	if ok && equal(ctx, last.text, text) {
		return last.value, nil
	}
	v, err := readData(ctx, text, d.large, path.Dir(name) == ".")
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		d.files = map[string]decodedFile{}
	}
	d.files[name] = decodedFile{text, v}
	return v, nil
}

// large is how many members an object of data may have that OPA keeps.
func (e *Engine) large() int {
	if e.opts.Large == 0 {
		return DefaultLarge
	}
	return e.opts.Large
}

// keep forgets files that are no more.
func (d *decoded) keep(files map[string][]byte) {
	if d == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for name := range d.files {
		if _, ok := files[name]; !ok {
			delete(d.files, name)
		}
	}
}
