package limit_test

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/alicebob/miniredis/v2"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/plugin/limit"
)

// BenchmarkTake is what a request costs: allowed, in one, two and four limits; refused by a spent one (a flood); and while
// Redis is away. redis-cmds/op is what Redis has to do for it.
func BenchmarkTake(b *testing.B) {
	run := func(name string, l *limit.Limiter, c *counting, id bool, keys ...limit.Key) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			before := c.commands.Load()
			for i := 0; b.Loop(); i++ {
				request := ""
				if id {
					request = strconv.Itoa(i)
				}
				if _, err := l.Take(b.Context(), request, keys); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(c.commands.Load()-before)/float64(b.N), "redis-cmds/op")
		})
	}
	const endless = 1 << 40
	l, c := counted(b, testenv.Redis(b))
	for _, n := range []int{1, 2, 4} {
		run(fmt.Sprintf("allowed/%d", n), l, c, false, []limit.Key{key(endless), key(endless), key(endless), key(endless)}[:n]...)
	}
	fixed := key(endless)
	fixed.Fixed = true
	run("allowed/1/fixed", l, c, false, fixed)
	run("allowed/2/id", l, c, true, key(endless), key(endless))
	b.Run("allowed/2/at once", func(b *testing.B) { // by 16
		keys := []limit.Key{key(endless), key(endless)}
		b.SetParallelism(max(16/runtime.GOMAXPROCS(0), 1))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := l.Take(b.Context(), "", keys); err != nil {
					b.Error(err)
				}
			}
		})
	})
	spent := key(1)
	for range 2 {
		if _, err := l.Take(b.Context(), "", []limit.Key{spent}); err != nil {
			b.Fatal(err)
		}
	}
	run("spent", l, c, false, key(endless), spent)
	run("spent/id", l, c, true, key(endless), spent)

	m := miniredis.RunT(b)
	away, c := counted(b, "redis://"+m.Addr())
	m.Close()
	for !away.Stats().Away {
		if _, err := away.Take(b.Context(), "", []limit.Key{key(endless)}); err != nil {
			b.Fatal(err)
		}
	}
	run("away", away, c, false, key(endless), key(endless))
}

// BenchmarkFlood sends requests from as many sides as there are processors: allowed ones, then a flood of one spent key.
func BenchmarkFlood(b *testing.B) {
	l, c := counted(b, testenv.Redis(b))
	for name, rate := range map[string]int64{"allowed": 1 << 40, "spent": 1} {
		keys := []limit.Key{key(rate), key(1 << 40)}
		for range 2 {
			if _, err := l.Take(b.Context(), "", keys); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(name, func(b *testing.B) {
			before := c.commands.Load()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := l.Take(b.Context(), "", keys); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(c.commands.Load()-before)/float64(b.N), "redis-cmds/op")
		})
	}
}
