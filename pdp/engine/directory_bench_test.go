package engine_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

var bindings = []int{1_000, 100_000, 1_000_000}

// user is one of the directories of benchmarks, in which every user has two roles.
func user(i int) string { return fmt.Sprintf("u%07d", i) }

func heldBy(i, turn int) []feed.Binding {
	return []feed.Binding{{Role: fmt.Sprintf("r%02d", (i+turn)%50)}, {Role: fmt.Sprintf("r%02d", (i*7+3)%50)}}
}

// filledView is a view of so many bindings, read as a feed would send it.
func filledView(tb testing.TB, bindings int) *directory.View {
	tb.Helper()
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(writeDirectory(w, 1, bindings)) }()
	v, err := directory.Read(bufio.NewReaderSize(r, 1<<16), directory.Limits{})
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func writeDirectory(w io.Writer, revision uint64, bindings int) error {
	out := bufio.NewWriterSize(w, 1<<16)
	enc := json.NewEncoder(out)
	err := enc.Encode(feed.Line{Begin: &feed.Begin{Epoch: "e", Revision: revision}})
	for i := 0; i < bindings/2 && err == nil; i++ {
		err = enc.Encode(feed.Line{Subject: &feed.Subject{ID: user(i), Bindings: heldBy(i, int(revision))}}) //nolint:gosec // small
	}
	if err == nil {
		err = enc.Encode(feed.Line{End: &feed.End{Lines: bindings / 2}})
	}
	if err == nil {
		err = out.Flush()
	}
	return err
}

func heapMB() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// BenchmarkBindings decides for random users, each decision made and none remembered, with role bindings in the directory, in
// data.directory, or in a data.json. p50 and heap are what must not grow.
func BenchmarkBindings(b *testing.B) {
	const order = "\n\tinput.action.name == \"GET\"\n\tinput.resource.type == \"order\"\n"
	for name, body := range map[string]string{
		"directory":      "decision := {\"allow\": true} if {" + order + "\t\"r07\" in input.subject.roles\n}\n",
		"data.directory": "decision := {\"allow\": true} if {" + order + "\t\"r07\" in data.directory.subjects[input.subject.id].roles\n}\n",
		"data.json":      "decision := {\"allow\": true} if {" + order + "\t\"r07\" in data.rbac.user_roles[input.subject.id]\n}\n",
	} {
		for _, n := range bindings {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				opts := engine.Options{Policies: module(body), Memory: -1, Deadline: 5 * time.Second, Log: slog.New(slog.DiscardHandler)}
				if name == "data.json" {
					files := module(body).(fstest.MapFS)
					files["rbac/data.json"] = &fstest.MapFile{Data: manyRoles(n / 2)}
					opts.Policies = files
				} else {
					opts.Directory = directory.Fixed(filledView(b, n), directory.Options{})
				}
				e, err := engine.Open(b.Context(), opts)
				if err != nil {
					b.Fatal(err)
				}
				opts.Policies = nil
				heap := heapMB()
				r := ask("order", "17")
				took := make([]time.Duration, 0, b.N)
				b.ReportAllocs()
				for b.Loop() {
					r.Subject.ID = user(rand.IntN(n / 2)) //nolint:gosec // no secret
					began := time.Now()
					if _, err := e.Evaluate(b.Context(), r); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
				b.ReportMetric(heap, "heap-MB")
			})
		}
	}
}

// BenchmarkDirectoryFind is what the directory alone costs.
func BenchmarkDirectoryFind(b *testing.B) {
	for _, n := range bindings {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			v := filledView(b, n)
			ids := make([]string, 4096)
			for i := range ids {
				ids[i] = user(rand.IntN(n / 2)) //nolint:gosec // no secret
			}
			now := monday()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				e, ok := v.Find(ids[i%len(ids)])
				if !ok || len(e.Facts("", now).Roles) == 0 {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkDecisionsWhileTheDirectoryChanges decides 1,000 times a second, by a clock, with a million bindings, while nothing
// changes, while 500 subjects a second do, and while all of it is read anew again and again. p99.9 is what must not grow by more
// than 5 ms. Run it with -benchtime 20000x.
func BenchmarkDecisionsWhileTheDirectoryChanges(b *testing.B) {
	const n = 1_000_000
	for _, what := range []string{"nothing", "changes", "snapshots"} {
		b.Run(what, func(b *testing.B) {
			d := directory.Fixed(filledView(b, n), directory.Options{})
			e, err := engine.Open(b.Context(), engine.Options{
				Policies: module(`decision := {"allow": true} if "r07" in input.subject.roles`), Directory: d, Memory: -1, Deadline: 5 * time.Second, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(b.Context())
			var all sync.WaitGroup
			turns := 0
			all.Go(func() { turns = change(ctx, b, d, what, n) })
			took, failed := paced(b, e, n)
			stop()
			all.Wait()
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100])/1e3, "p99-µs")
			b.ReportMetric(float64(took[len(took)*999/1000])/1e3, "p99.9-µs")
			b.ReportMetric(float64(failed), "failed")
			b.ReportMetric(float64(turns), "turns")
		})
	}
}

// paced decides by a clock, and counts from when a decision was due.
func paced(b *testing.B, e *engine.Engine, n int) (took []time.Duration, failed int) {
	b.Helper()
	due := time.Now()
	for range b.N {
		due = due.Add(time.Millisecond)
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		r := authzen.Request{Subject: authzen.Subject{Type: "user", ID: user(rand.IntN(n / 2))}, Action: authzen.Action{Name: "GET"}, Resource: authzen.Resource{Type: "order", ID: "17"}} //nolint:gosec // no secret
		if _, err := e.Evaluate(b.Context(), r); err != nil {
			failed++
		}
		took = append(took, time.Since(due))
	}
	return took, failed
}

func change(ctx context.Context, b *testing.B, d *directory.Directory, what string, n int) (turns int) {
	b.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return turns
		case <-tick.C:
		}
		switch what {
		case "changes":
			var lines []feed.Line
			for range 10 {
				i := rand.IntN(n / 2) //nolint:gosec // no secret
				lines = append(lines, feed.Line{Subject: &feed.Subject{ID: user(i), Bindings: heldBy(i, turns)}})
			}
			v, err := d.View().With(lines)
			if err != nil {
				b.Error(err)
			}
			d.Replace(v)
		case "snapshots":
			d.Replace(filledView(b, n))
		}
		turns++
	}
	return turns
}
