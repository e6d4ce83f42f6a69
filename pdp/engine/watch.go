package engine

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"time"
)

// Reload reads the policy files and puts them in force, or keeps those that are and answers why.
func (e *Engine) Reload(ctx context.Context) error {
	e.loading.Lock()
	defer e.loading.Unlock()
	if e.files == nil {
		return nil
	}
	print, err := fingerprint(e.files)
	if err != nil {
		e.settle(ctx, Folder, err)
		return err
	}
	return e.load(ctx, print)
}

// Run looks for changed files until ctx ends, and tries again what failed for want of time. It polls (the sizes and times of a few files) because that also works on mounts
// where change events do not, and reloads once two looks in a row agree, so that a file half written is not tried.
func (e *Engine) Run(ctx context.Context) error {
	defer e.Close()
	tick := time.NewTicker(e.opts.Poll)
	defer tick.Stop()
	last := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if e.files != nil {
				last = e.look(ctx, last)
			}
			e.retry(ctx)
		}
	}
}

// look reloads when the files differ from those tried last and have not changed since the look before. It answers their
// fingerprint.
func (e *Engine) look(ctx context.Context, last string) string {
	e.loading.Lock()
	defer e.loading.Unlock()
	print, err := fingerprint(e.files)
	switch {
	case err != nil:
		e.seen = "" // look again even if they come back as they were
		e.settle(ctx, Folder, err)
	case print != e.seen && print == last:
		_ = e.load(ctx, print) // told by Ready and the log
	}
	return print
}

func (e *Engine) load(ctx context.Context, print string) error {
	e.seen = print
	ctx = e.GivingWay(ctx)
	files, err := read(ctx, e.files, e.filesOf(Folder))
	if err != nil {
		e.seen = ""
		e.settle(ctx, Folder, err)
		return err
	}
	return e.offer(ctx, Part{Source: Folder, Roots: e.opts.Roots, Files: files})
}

// filesOf are those that a source offered last.
func (e *Engine) filesOf(source string) map[string][]byte {
	e.telling.Lock()
	defer e.telling.Unlock()
	return e.offered[source].Files
}

// fingerprint changes when a policy file does: names, sizes and times.
func fingerprint(files fs.FS) (string, error) {
	var b strings.Builder
	err := walk(files, func(name string, _ fs.DirEntry) error {
		info, err := fs.Stat(files, name) // follows links, as reading does
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %d %d\n", name, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return b.String(), err
}

// oneLine is the beginning of an error's text without line breaks.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + " …"
	}
	return text
}
