package main

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/gatehouse-auth/gatehouse/dev/gateway"
	"github.com/gatehouse-auth/gatehouse/internal/testenv"
)

// BenchmarkThroughput is 16 connections that each send one request after another: ns/op is the time between two answers of
// them all. The clients, the gateway, the decision point and the upstream share one process, the plugin has its own.
//
//   - plain and orders are the two of BenchmarkRequest: the decision point is asked about each order, and the edge remembers nothing;
//   - list is the same route for a decision that the edge may remember, on the collection;
//   - spent-address and spent-subject are floods by a caller whose limit is spent, known by its address or by its token.
func BenchmarkThroughput(b *testing.B) {
	const connections = 16
	w := newBench(b)
	binary := stripped(b)
	w.start(b, gateway.PluginServer{
		Socket: w.socket, StartCommand: binary + " -log-level error -status '' -socket " + w.socket, QueryCommand: binary + " -dump -socket " + w.socket,
	})
	opts, err := redis.ParseURL(testenv.Redis(b))
	if err != nil {
		b.Fatal(err)
	}
	c := redis.NewClient(opts)
	b.Cleanup(func() { _ = c.Close() })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	b.Cleanup(client.CloseIdleConnections)
	for _, path := range []string{"/plain", "/orders", "/list", "/spent-address", "/spent-subject"} {
		want := http.StatusOK
		if strings.HasPrefix(path, "/spent") {
			want = http.StatusTooManyRequests
		}
		b.Run(path[1:], func(b *testing.B) {
			for range 100 { // connections and caches are warm, the limit is spent
				if _, err := w.send(b, client, path); err != nil {
					b.Fatal(err)
				}
			}
			before := commands(b, c)
			b.SetParallelism(connections / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if status, err := w.send(b, client, path); err != nil || status != want {
						b.Errorf("%s: status %d, %v", path, status, err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
			b.ReportMetric(float64(commands(b, c)-before)/float64(b.N), "redis-cmds/op")
		})
	}
}

// commands is how many commands Redis has run.
func commands(b *testing.B, c *redis.Client) int64 {
	b.Helper()
	info, err := c.InfoMap(b.Context(), "stats").Result()
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(info["Stats"]["total_commands_processed"], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
