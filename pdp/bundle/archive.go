package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// Limits bound an archive. A zero is its default.
type Limits struct {
	Compressed   int64 // bytes as it arrives; default 32 MiB
	Uncompressed int64 // bytes of all that it unfolds to; default 64 MiB
	File         int64 // bytes of one file; default 32 MiB
	Files        int   // files and folders; default 10,000
}

// Defaults of Limits.
const (
	DefaultCompressed   = 32 << 20
	DefaultUncompressed = 64 << 20
	DefaultFile         = 32 << 20
	DefaultFiles        = 10_000
)

// maxName bounds a path, in bytes.
const maxName = 512

func (l Limits) withDefaults() Limits {
	if l.Compressed == 0 {
		l.Compressed = DefaultCompressed
	}
	if l.Uncompressed == 0 {
		l.Uncompressed = DefaultUncompressed
	}
	if l.File == 0 {
		l.File = DefaultFile
	}
	if l.Files == 0 {
		l.Files = DefaultFiles
	}
	return l
}

// unpack reads a tar archive in one gzip stream, whole or not at all.
func unpack(ctx context.Context, archive []byte, l Limits) (map[string][]byte, error) {
	l = l.withDefaults()
	if int64(len(archive)) > l.Compressed {
		return nil, fmt.Errorf("larger than %d bytes", l.Compressed)
	}
	in := bytes.NewReader(archive)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, errors.New("not a .tar.gz archive")
	}
	z.Multistream(false)
	unfolded := &limited{ctx: ctx, r: z, left: l.Uncompressed, limit: l.Uncompressed}
	files, err := untar(tar.NewReader(unfolded), l)
	if err != nil {
		return nil, err
	}
	if err := onlyZeros(unfolded); err != nil {
		return nil, err
	}
	if in.Len() > 0 {
		return nil, errors.New("something follows the archive")
	}
	return files, nil
}

func untar(t *tar.Reader, l Limits) (map[string][]byte, error) {
	files := map[string][]byte{}
	for entries := 1; ; entries++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, broken(err)
		}
		if entries > l.Files {
			return nil, fmt.Errorf("more than %d files", l.Files)
		}
		name, err := clean(h)
		if err != nil {
			return nil, err
		}
		switch {
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return nil, fmt.Errorf("%q is a link, a device or something else that is no file", name)
		case h.Size > l.File:
			return nil, fmt.Errorf("%q is larger than %d bytes", name, l.File)
		}
		if err := known(name); err != nil {
			return nil, err
		}
		if _, twice := files[name]; twice {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		// Read before it is believed how large it is.
		if files[name], err = io.ReadAll(t); err != nil {
			return nil, broken(err)
		}
	}
}

// clean answers the path of an entry in the bundle. OPA's tools begin it with one "/", tar with "./"; neither leads out.
func clean(h *tar.Header) (string, error) {
	name := h.Name
	if h.Typeflag == tar.TypeDir {
		name = strings.TrimSuffix(name, "/")
		if name == "" || name == "." {
			return ".", nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "./"); ok {
		name = rest
	} else {
		name = strings.TrimPrefix(name, "/")
	}
	if len(name) > maxName || !utf8.ValidString(name) || !fs.ValidPath(name) || name == "." || strings.ContainsFunc(name, func(c rune) bool { return control(c) || c == '\\' }) {
		return "", fmt.Errorf("the path %q is not one of a bundle", clip(h.Name))
	}
	return name, nil
}

// known refuses what nothing reads: a file that is signed but ignored would only mislead.
func known(name string) error {
	base := path.Base(name)
	switch {
	case name == manifestFile, name == signaturesFile, base == "data.json", base == "data.yaml", base == "data.yml":
		return nil
	case name == "schema.json", name == "budget.yaml", strings.HasPrefix(name, "cases/") && path.Ext(name) == ".yaml": // what publishing checks rules by
		return nil
	case strings.HasSuffix(base, ".rego") && !strings.HasPrefix(base, "."):
		return nil
	case base == "patch.json":
		return fmt.Errorf("%q makes it a delta bundle; those cannot be signed", name)
	}
	return fmt.Errorf("%q is neither Rego nor data.json, data.yaml, %s or %s", name, manifestFile, signaturesFile)
}

// broken says what an error of tar or gzip means.
func broken(err error) error {
	var over *overflow
	switch {
	case errors.As(err, &over):
		return over
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the archive is cut off")
	case errors.Is(err, gzip.ErrChecksum):
		return errors.New("the archive's checksum is wrong")
	}
	return errors.New("not a .tar.gz archive, or a damaged one")
}

// onlyZeros reads the padding after the archive, so that the checksum behind it is checked too.
func onlyZeros(r io.Reader) error {
	var block [4096]byte
	for {
		n, err := r.Read(block[:])
		if len(bytes.Trim(block[:n], "\x00")) > 0 {
			return errors.New("something follows the archive's end")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return broken(err)
		}
	}
}

// limited fails, rather than ends, when more comes than it may. It gives way to decisions.
type limited struct {
	ctx         context.Context //nolint:containedctx // it lives as long as one call
	r           io.Reader
	left, limit int64
}

type overflow struct{ limit int64 }

func (o *overflow) Error() string { return fmt.Sprintf("unfolds to more than %d bytes", o.limit) }

func (l *limited) Read(p []byte) (int, error) {
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	pace.Breathe(l.ctx)
	if l.left -= int64(n); l.left < 0 {
		return 0, &overflow{l.limit}
	}
	return n, err
}

// Write makes an archive of files, the same for the same files.
func Write(files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	t := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if _, err := clean(&tar.Header{Name: name}); err != nil {
			return nil, err
		}
		if err := known(name); err != nil {
			return nil, err
		}
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(files[name])), Mode: 0o644, Format: tar.FormatPAX}
		if err := t.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := t.Write(files[name]); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
