package directory

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// keepEvery is the least time between two writes of what is kept.
const keepEvery = time.Minute

// keeper keeps the last view for the next start: its lines as a feed sends them, and a note that says of which revision they are
// and when that was last known to be the newest.
type keeper struct {
	name    string // of the lines; the note is beside them. "" keeps none
	note    note
	written time.Time // when it was written last
	took    time.Duration
	failed  string

	busy chan struct{} // held by who uses the above while Run goes on
	all  sync.WaitGroup
}

type note struct {
	Epoch     string    `json:"epoch"`
	Revision  uint64    `json:"revision"`
	Confirmed time.Time `json:"confirmed"`
}

// keptFile names the file by the source, so that what came from elsewhere is not used.
func (o Options) keptFile() string {
	if o.Dir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(o.URL))
	return filepath.Join(o.Dir, "directory-"+hex.EncodeToString(sum[:8])+".ndjson")
}

// keepAside keeps what is known now, if it is time to, beside the one who renews it.
func (d *Directory) keepAside(ctx context.Context) {
	k := &d.kept
	if k.name == "" || d.View() == nil {
		return
	}
	select {
	case k.busy <- struct{}{}:
	default:
		return
	}
	at := d.opts.Now()
	if age := at.Sub(k.written); !k.written.IsZero() && age >= 0 && age < max(keepEvery, 20*k.took) {
		<-k.busy
		return
	}
	k.all.Go(func() {
		defer func() { <-k.busy }()
		d.keep(ctx)
		k.written, k.took = at, d.opts.Now().Sub(at)
	})
}

// keep writes what is to be kept. That it could not is no reason not to decide by it.
func (d *Directory) keep(ctx context.Context) {
	k := &d.kept
	h := d.current.Load()
	if k.name == "" || h == nil || k.note.Epoch == h.view.epoch && k.note.Revision == h.view.revision && k.note.Confirmed.Equal(h.confirmed) {
		return
	}
	err := k.save(h.view, h.confirmed, d.way)
	if err == nil {
		k.failed = ""
	} else if k.failed != err.Error() {
		k.failed = err.Error()
		d.opts.Log.ErrorContext(ctx, "directory not kept for the next start", "error", err)
	}
}

func (k *keeper) save(v *View, confirmed time.Time, to *way) error {
	n := note{v.epoch, v.revision, confirmed}
	if k.note.Epoch != v.epoch || k.note.Revision != v.revision {
		if err := os.MkdirAll(filepath.Dir(k.name), 0o700); err != nil {
			return err
		}
		err := replace(k.name, func(w io.Writer) error { return v.write(w, feed.Begin{At: confirmed}, to) })
		if err != nil {
			return err
		}
	}
	err := replace(k.name+".json", func(w io.Writer) error { return json.NewEncoder(w).Encode(n) })
	if err == nil {
		k.note = n
	}
	return err
}

// replace writes a file at once or not at all, on disk before it answers.
func replace(name string, write func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // only room is lost
		}
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	if err = write(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// restore uses what is kept, unless it is too old.
func (d *Directory) restore(ctx context.Context) {
	if d.kept.name == "" {
		return
	}
	v, n, err := d.kept.load(d.opts)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.mu.Lock()
		d.failures["kept"]++
		d.mu.Unlock()
		d.opts.Log.ErrorContext(ctx, "kept directory not used", "error", err)
	default:
		d.kept.note = n
		d.put(v, n.Confirmed)
		d.mu.Lock()
		d.loads["kept"]++
		d.mu.Unlock()
		d.opts.Log.InfoContext(ctx, "kept directory used", "directory_revision", v.Word(), "confirmed", n.Confirmed)
	}
}

func (k *keeper) load(o Options) (*View, note, error) {
	var n note
	text, err := os.ReadFile(k.name + ".json")
	if err != nil {
		return nil, n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return nil, n, errors.New("its note is damaged")
	}
	switch age := o.Now().Sub(n.Confirmed); {
	case age > o.MaxAge:
		return nil, n, fmt.Errorf("it was confirmed %v ago, longer than the max age of %v", age.Round(time.Second), o.MaxAge)
	case age < -time.Minute:
		return nil, n, errors.New("it was confirmed in the future; the clock is not to be believed")
	}
	f, err := os.Open(k.name)
	if err != nil {
		return nil, n, plainPath(err)
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, n, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 {
		return nil, n, errors.New("others may write it")
	}
	v, err := readSnapshot(bufio.NewReaderSize(f, 1<<16), 0, o.Limits)
	if err != nil {
		return nil, n, err
	}
	if v.epoch != n.Epoch || v.revision != n.Revision {
		return nil, n, errors.New("its note is of another revision")
	}
	return v, n, nil
}
