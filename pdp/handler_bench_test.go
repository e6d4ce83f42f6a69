package main

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/metrics"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// void is a response that nobody reads.
type void struct {
	header http.Header
	status int
}

func (v *void) Header() http.Header         { return v.header }
func (v *void) WriteHeader(status int)      { v.status = status }
func (v *void) Write(b []byte) (int, error) { return len(b), nil }

var (
	evaluationURL = &url.URL{Path: authzen.Path}
	jsonHeader    = http.Header{"Content-Type": {"application/json"}, "User-Agent": {"bench"}}
)

// BenchmarkHandler is one evaluation from the request's body to the response, as serve puts the parts together, without the
// sockets: remembered or made natively, and with every decision recorded or no record.
func BenchmarkHandler(b *testing.B) {
	body, err := json.Marshal(usualQuestion("order"))
	if err != nil {
		b.Fatal(err)
	}
	quiet := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		name     string
		memory   int
		recorded bool
	}{{"remembered", 0, false}, {"remembered, recorded", 0, true}, {"native", -1, false}, {"native, recorded", -1, true}} {
		b.Run(c.name, func(b *testing.B) {
			dir, _ := folder(b, rules("order"))
			e, err := engine.Open(b.Context(), engine.Options{Dir: dir, Memory: c.memory, Deadline: time.Minute, Log: quiet})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(e.Close)
			decisions := &recording.Log{}
			if c.recorded {
				journal, err := decisionlog.Open(decisionlog.Options{
					Dir: b.TempDir(), WhenFull: decisionlog.Block, Wait: time.Second, Sync: -1, Rates: decisionlog.Rates{Default: 1},
					Log: quiet, Sinks: map[string]decisionlog.Sink{"nowhere": nowhere{}},
				})
				if err != nil {
					b.Fatal(err)
				}
				decisions = recording.In(journal)
				running(b, journal)
			}
			h := server.New(server.Options{
				Engine: decisions.Engine(e), DecisionLog: decisionlog.New(quiet), Log: quiet, Meter: metrics.New(e.Stats, time.Now),
			})
			reader := bytes.NewReader(body)
			b.ReportAllocs()
			for b.Loop() {
				reader.Reset(body)
				r := &http.Request{
					Method: http.MethodPost, URL: evaluationURL, Header: jsonHeader, Body: io.NopCloser(reader), ContentLength: int64(len(body)), RemoteAddr: "@",
				}
				w := &void{header: http.Header{}}
				if h.ServeHTTP(w, r); w.status != 0 && w.status != http.StatusOK {
					b.Fatal(w.status)
				}
			}
		})
	}
}
