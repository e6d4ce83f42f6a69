package directory_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// Who reads a snapshot looks again and again whether decisions are asked for, to rest while they are.
func TestReadingASnapshotGivesWay(t *testing.T) {
	t.Parallel()
	const subjects = 20_000
	name := filepath.Join(t.TempDir(), "directory.ndjson")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	enc := json.NewEncoder(f)
	lines := []feed.Line{{Begin: &feed.Begin{Epoch: "e", Revision: 1}}}
	for i := range subjects {
		lines = append(lines, feed.Line{Subject: &feed.Subject{ID: fmt.Sprint(i), Bindings: []feed.Binding{{Role: fmt.Sprintf("r%d", i%50)}}}})
	}
	for _, l := range append(lines, feed.Line{End: &feed.End{Lines: subjects}}) {
		if err := enc.Encode(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := directory.New(directory.Options{URL: "file://" + name})
	if err != nil {
		t.Fatal(err)
	}
	var looks atomic.Uint64
	d.GiveWay(func() uint64 { return looks.Add(1) }) // another decision each time
	r := runs(t, d)
	r.until(t, "the snapshot is there", func(error) bool { v := r.View(); return v != nil && v.Subjects() == subjects })
	if n := looks.Load(); n < 5 {
		t.Errorf("it looked %d times", n)
	}
}
