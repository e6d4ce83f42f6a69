package directory_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
)

// BenchmarkRead reads a snapshot of 100,000 subjects with two roles each.
func BenchmarkRead(b *testing.B) {
	lines := make([]feed.Line, 100_000)
	for i := range lines {
		lines[i].Subject = &feed.Subject{ID: fmt.Sprintf("u%07d", i), Revision: 1, Bindings: []feed.Binding{{Role: fmt.Sprintf("r%02d", i%50)}, {Role: fmt.Sprintf("r%02d", (i*7+3)%50)}}}
	}
	text := answer(feed.Begin{Epoch: "e", Revision: 1}, lines...).Bytes()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		v, err := directory.Read(bytes.NewReader(text), directory.Limits{})
		if err != nil || v.Subjects() != len(lines) {
			b.Fatal(err)
		}
	}
}
