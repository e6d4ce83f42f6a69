package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Scan reads what is in a spool's folder beside the process that has it, from the oldest on, until yield answers an error. It
// changes nothing. Records that every reader has taken are gone; a damaged stretch is passed over, and counted.
func Scan(dir string, yield func(Record) error) (damaged int, err error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		return 0, err
	}
	slices.Sort(names) // the numbers have leading zeros
	for _, name := range names {
		b, err := os.ReadFile(name) //nolint:gosec // the folder that the user named
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		if err != nil {
			return damaged, fmt.Errorf("spool: %w", err)
		}
		for len(b) > 0 {
			record, n, err := first(b)
			if err != nil {
				n = resume(b)
				if n < len(b) || !errors.Is(err, errTorn) { // a torn end is one that is being written
					damaged++
				}
				b = b[n:]
				continue
			}
			if err := yield(record); err != nil {
				return damaged, err
			}
			b = b[n:]
		}
	}
	return damaged, nil
}
