package decisionlog_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// usual is a denial as an enforcement point of Gatehouse causes it.
func usual() *decisionlog.Event {
	e := denial("019a0f3e-7c1b-7000-8000-0242ac120002")
	e.Input = authzen.Request{
		Subject: authzen.Subject{Type: "user", ID: "6f1c3f0e-8f56-4f3a-9f7e-0d4b6a2c9e11", Properties: map[string]any{
			"roles": []any{"customer", "support"}, "groups": []any{"sales"}, "tenant": "acme", "session": "0b6ed7f8-5ad1-4d0c-8c3a-64f2a0b1c7d9",
			"claims": map[string]any{"iss": "https://api.example.org", "client_id": "web", "scope": []any{"orders:read"}, "acr": "aal1", "amr": []any{"pwd"}},
		}},
		Action: authzen.Action{Name: "GET"},
		Resource: authzen.Resource{Type: "order", ID: "17", Properties: map[string]any{
			"route": "orders", "path": "/api/orders/17", "segments": []any{"api", "orders", "17"}, "params": map[string]any{"id": "17"},
		}},
		Context: map[string]any{"ip": "192.0.2.17", "user_agent": "Mozilla/5.0 (X11; Linux x86_64)", "request_id": trace, "acr": "aal1"},
	}
	return &e
}

// BenchmarkRecord is a denial's way into the log. With drop it is what the decision itself pays for.
func BenchmarkRecord(b *testing.B) {
	for _, when := range []decisionlog.WhenFull{decisionlog.Drop, decisionlog.Block} {
		b.Run(string(when), func(b *testing.B) {
			j := journal(b, decisionlog.Options{WhenFull: when, Sync: -1, Masks: masks(b, decisionlog.Mask{Pointer: "/input/context/ip"})}, nowhere{})
			stop := start(b, j)
			e := usual()
			b.ReportAllocs()
			for b.Loop() {
				if err := j.Record(context.Background(), e); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			stop()
			b.ReportMetric(float64(j.Stats().Dropped)/float64(b.N), "dropped/op")
		})
	}
}

// nowhere is a sink that takes everything.
type nowhere struct{}

func (nowhere) Write(context.Context, [][]byte) error { return nil }
func (nowhere) Close() error                          { return nil }

func ExampleNewMasks() {
	_, err := decisionlog.NewMasks([]decisionlog.Mask{{Pointer: "/input/subject/id"}, {Pointer: "/labels/id"}})
	fmt.Println(err)
	// Output: mask "/labels/id" does not begin with /input, /result, /gatehouse/looked_up or /gatehouse/rules
}
