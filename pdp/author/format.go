package author

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// Unformatted is a file of Rego that is not as opa fmt writes it.
type Unformatted struct {
	File string `json:"file"`
	Line int    `json:"line"` // the first that differs
	want []byte
}

// Format answers the Rego files below dir, tests among them, that are not formatted.
func Format(dir string) ([]Unformatted, error) {
	all := []Unformatted{}
	var errs []error
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".rego") || strings.HasPrefix(d.Name(), ".") {
			return err
		}
		have, err := os.ReadFile(name) //nolint:gosec // below the folder that the user named
		if err != nil {
			return err
		}
		want, err := format.SourceWithOpts(name, have, format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			errs = append(errs, placed("", err))
			return nil
		}
		if !bytes.Equal(have, want) {
			all = append(all, Unformatted{name, firstDifference(have, want), want})
		}
		return nil
	})
	return all, errors.Join(append(errs, err)...)
}

func firstDifference(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return 1 + bytes.Count(a[:n], []byte{'\n'})
}

// Write writes the file as it should be.
func (u Unformatted) Write() error {
	info, err := os.Stat(u.File)
	if err != nil {
		return err
	}
	if err := os.WriteFile(u.File, u.want, info.Mode().Perm()); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return nil
}
