package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

const maxFiles = 64 << 20 // bytes of all policy files together

// chunk is how many bytes are read, compared or hashed at a time, before decisions go first.
const chunk = 128 << 10

// wanted reports whether a file belongs to the policies. Hidden names are left out: editors' and Kubernetes' own.
func wanted(name string) bool {
	if strings.HasPrefix(path.Base(name), ".") {
		return false
	}
	switch path.Ext(name) {
	case ".rego", ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// walk calls visit for each policy file.
func walk(files fs.FS, visit func(name string, d fs.DirEntry) error) error {
	return fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.IsDir() || !wanted(name):
			return nil
		}
		return visit(name, d)
	})
}

// read reads all policy files. A file that holds what it did before is the same slice as then.
func read(ctx context.Context, files fs.FS, before map[string][]byte) (map[string][]byte, error) {
	all, left := map[string][]byte{}, int64(maxFiles)
	buf := make([]byte, chunk)
	err := walk(files, func(name string, _ fs.DirEntry) error {
		f, err := files.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		b, err := contents(ctx, f, before[name], left, buf)
		if err != nil {
			return err
		}
		if left -= int64(len(b)); left < 0 {
			return fmt.Errorf("the policy files are larger than %d bytes together", maxFiles)
		}
		all[name] = b
		return nil
	})
	return all, err
}

// contents reads a file, up to one byte more than most. It answers before, if that is what the file holds.
func contents(ctx context.Context, f fs.File, before []byte, most int64, buf []byte) ([]byte, error) {
	in, same := io.LimitReader(f, most+1), 0
	var out []byte // nil while all is as before
	for {
		n, err := in.Read(buf)
		switch {
		case out == nil && bytes.HasPrefix(before[same:], buf[:n]):
			same += n
		case out == nil:
			out = make([]byte, 0, room(f, int64(same+n), most))
			out = append(out, before[:same]...)
			fallthrough
		default:
			out = append(out, buf[:n]...)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		pace.Breathe(ctx)
	}
	switch {
	case out != nil:
		return out, nil
	case same == len(before) && before != nil:
		return before, nil
	}
	return append([]byte{}, before[:same]...), nil
}

// room is for what a file seems to hold; a file that grows meanwhile is read all the same.
func room(f fs.File, least, most int64) int64 {
	info, err := f.Stat()
	if err != nil {
		return least
	}
	return max(least, min(info.Size(), most+1))
}

// equal compares texts.
func equal(ctx context.Context, a, b []byte) bool {
	if len(a) != len(b) || len(a) == 0 {
		return len(a) == len(b)
	}
	if &a[0] == &b[0] {
		return true
	}
	for at := 0; at < len(a); at += chunk {
		end := min(at+chunk, len(a))
		if !bytes.Equal(a[at:end], b[at:end]) {
			return false
		}
		pace.Breathe(ctx)
	}
	return true
}

// digestOf names files by what they hold.
func digestOf(ctx context.Context, files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%d:%s%d:", len(name), name, len(files[name]))
		for part := range slices.Chunk(files[name], chunk) {
			h.Write(part)
			pace.Breathe(ctx)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}
