package shadow_test

import (
	"fmt"
	"log/slog"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
	"github.com/gatehouse-auth/gatehouse/pdp/shadow"
)

// What a comparison costs the request that is compared: nobody takes the queue, so that no evaluation is in the figures.
func BenchmarkARequestThatIsCompared(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	active, err := engine.Open(b.Context(), engine.Options{Policies: fstest.MapFS{"authz.rego": {Data: []byte(rules)}}, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	defer active.Close()
	r := request("ann", "ann", "sales")
	for _, share := range []float64{0, 0.1, 1} {
		b.Run(fmt.Sprint(share), func(b *testing.B) {
			e := server.Engine(active)
			if share > 0 {
				s, err := shadow.New(shadow.Options{Share: share, Active: active, Log: log})
				if err != nil {
					b.Fatal(err)
				}
				s.Pretend(active)
				e = s.Wrap(active)
			}
			b.ReportAllocs()
			for b.Loop() {
				if res, err := e.Evaluate(b.Context(), r); err != nil || !res.Decision {
					b.Fatal(err)
				}
			}
		})
	}
}
