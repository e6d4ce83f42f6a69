package engine

import (
	"bytes"
	"sync"

	"github.com/open-policy-agent/opa/v1/util"
)

// decoded keeps what data files hold, so that who publishes another rule does not decode all data anew, beside those who wait for
// decisions. Large files are not kept: a relation takes a tenth of the room that it takes decoded. Nothing changes what it answers:
// snapshots share it.
type decoded struct {
	mu    sync.Mutex
	files map[string]decodedFile
}

type decodedFile struct {
	text  []byte
	value any
}

// decode reads JSON or YAML. Of each file it keeps what it was last.
func (d *decoded) decode(name string, text []byte) (any, error) {
	if d != nil {
		d.mu.Lock()
		last, ok := d.files[name]
		d.mu.Unlock()
		if ok && bytes.Equal(last.text, text) {
			return last.value, nil
		}
	}
	var v any
	if err := util.Unmarshal(text, &v); err != nil || d == nil || len(text) > smallData {
		return v, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.files == nil {
		d.files = map[string]decodedFile{}
	}
	d.files[name] = decodedFile{text, v}
	return v, nil
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
