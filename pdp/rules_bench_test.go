package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/turns"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// speechless does not say by which rules denials come to be.
type speechless struct{ server.Engine }

func (s speechless) Evaluate(ctx context.Context, r authzen.Request) (authzen.Response, error) {
	res, err := s.Engine.Evaluate(ctx, r)
	res.Context.Rules = nil
	return res, err
}

// BenchmarkWhatRuleIDsAdd is a denial from the request's body to the response, as in BenchmarkHandler, whose answer and record have
// the ids of its rules, and one without, turn by turn in one run; "added-%" is the median of one turn over the other beside it. What the engine does for them is in its own benchmark.
func BenchmarkWhatRuleIDsAdd(b *testing.B) {
	body, err := json.Marshal(usualQuestion("invoice"))
	if err != nil {
		b.Fatal(err)
	}
	const text = `package gatehouse.authz

default decision := {"allow": false, "reasons": ["no_rule"]}

decision := {"allow": false, "reasons": sort(misses)} if count(misses) > 0

misses contains "resource_unknown" if not input.resource.type in {"order", "user"}
`
	quiet := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		name     string
		memory   int
		recorded bool
	}{{"remembered", 0, false}, {"remembered, recorded", 0, true}, {"native", -1, false}, {"native, recorded", -1, true}} {
		b.Run(c.name, func(b *testing.B) {
			dir, _ := folder(b, text)
			e, err := engine.Open(b.Context(), engine.Options{Dir: dir, Memory: c.memory, Deadline: time.Minute, Log: quiet})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(e.Close)
			decisions := &recording.Log{}
			if c.recorded {
				journal, err := decisionlog.Open(decisionlog.Options{
					Dir: b.TempDir(), WhenFull: decisionlog.Block, Wait: time.Second, Sync: -1, Log: quiet, Sinks: map[string]decisionlog.Sink{"nowhere": nowhere{}},
				})
				if err != nil {
					b.Fatal(err)
				}
				decisions = recording.In(journal)
				running(b, journal)
			}
			var handlers [2]http.Handler
			for i, asked := range []server.Engine{e, speechless{e}} {
				handlers[i] = server.New(server.Options{Engine: decisions.Engine(asked), DecisionLog: decisionlog.New(quiet), Log: quiet, Meter: metrics.New(e.Stats, time.Now)})
			}
			reader := bytes.NewReader(body)
			turns.Compare(b, "cpu-ns", func() time.Duration { return cpu(b) }, 1000, func(way int) {
				reader.Reset(body)
				r := &http.Request{
					Method: http.MethodPost, URL: evaluationURL, Header: jsonHeader, Body: io.NopCloser(reader), ContentLength: int64(len(body)), RemoteAddr: "@",
				}
				w := &void{header: http.Header{}}
				if handlers[way].ServeHTTP(w, r); w.status != 0 && w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			})
		})
	}
}
