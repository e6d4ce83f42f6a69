package directory

import (
	"io"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Apply reads an answer of changes, with layers that count as small up to a size.
func (v *View) Apply(in io.Reader, limits Limits, small int) (*View, error) {
	limits = limits.withDefaults()
	limits.small = small
	return v.readChanges(in, limits)
}

// After replaces the clock that Run waits by.
func (d *Directory) After(after func(time.Duration) <-chan time.Time) { d.after = after }

// Write writes a view as it is kept.
func (v *View) Write(w io.Writer) error { return v.write(w, feed.Begin{}, nil) }

// Tell calls told after each time that the source was asked.
func (d *Directory) Tell(told func(error)) { d.told = told }
