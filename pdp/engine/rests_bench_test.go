package engine_test

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/directory/feed"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// BenchmarkTheDirectoryIsReadByKeys decides for 2,000 of 50,000 subjects by what data.directory says of them, while somebody changes
// behind so many decisions. By revision is how it was: what is remembered is keyed by the directory's revision, and topdown alone can
// read it. By value is how it is. hits/op is the share of decisions that were remembered.
func BenchmarkTheDirectoryIsReadByKeys(b *testing.B) {
	const reads = "decision := {\"allow\": true} if {\n\tinput.action.name == \"GET\"\n\t\"r07\" in data.directory.subjects[input.subject.id].roles\n%s}\n"
	for _, every := range []int{0, 10_000, 1000, 100, 10} {
		forms := []string{"revision", "value"}
		if every == 0 {
			forms = append(forms, "nothing remembered, topdown", "nothing remembered, native")
		}
		for _, form := range forms {
			b.Run(fmt.Sprintf("changes 1 in %d/by %s", every, form), func(b *testing.B) {
				d := directory.Fixed(filledView(b, 100_000), directory.Options{})
				opts := engine.Options{Policies: module(fmt.Sprintf(reads, "")), Directory: d, Deadline: 5 * time.Second, Log: slog.New(slog.DiscardHandler)}
				switch form {
				case "revision":
					opts.Policies, opts.NoNative = module(fmt.Sprintf(reads, "\tinput.context.revision != \"\"\n")), true
				case "nothing remembered, topdown":
					opts.NoNative, opts.Memory = true, -1
				case "nothing remembered, native":
					opts.Memory = -1
				}
				e, err := engine.Open(b.Context(), opts)
				if err != nil {
					b.Fatal(err)
				}
				r := ask("order", "17")
				r.Context["revision"] = d.View().Word()
				random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same each time
				for i := range 2000 {
					r.Subject.ID = user(i)
					if _, err := e.Evaluate(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
				before, _ := e.Remembered()
				b.ReportAllocs()
				n := 0
				for b.Loop() {
					if n++; every > 0 && n%every == 0 {
						b.StopTimer()
						i := random.IntN(50_000)
						v, err := d.View().With([]feed.Line{{Subject: &feed.Subject{ID: user(i), Bindings: heldBy(i, n)}}})
						if err != nil {
							b.Fatal(err)
						}
						d.Replace(v)
						b.StartTimer()
					}
					r.Subject.ID, r.Context["revision"] = user(random.IntN(2000)), d.View().Word()
					if _, err := e.Evaluate(b.Context(), r); err != nil {
						b.Fatal(err)
					}
				}
				hits, _ := e.Remembered()
				b.ReportMetric(float64(hits-before)/float64(n), "hits/op")
			})
		}
	}
}
