package main

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

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
			before, used := commands(b, c), w.cpu(b, c)
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
			for name, spent := range w.cpu(b, c) {
				b.ReportMetric(float64((spent-used[name]).Microseconds())/float64(b.N), name+"-cpu-µs/op")
			}
		})
	}
}

// cpu is the processor time that each process has used so far: this one's, the plugin's, and that of Redis.
func (w *bench) cpu(b *testing.B, c *redis.Client) map[string]time.Duration {
	b.Helper()
	var own syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &own); err != nil {
		b.Fatal(err)
	}
	info, err := c.InfoMap(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	server := time.Duration(0)
	for _, name := range []string{"used_cpu_user", "used_cpu_sys"} {
		seconds, err := strconv.ParseFloat(info["CPU"][name], 64)
		if err != nil {
			b.Fatal(err)
		}
		server += time.Duration(seconds * float64(time.Second))
	}
	return map[string]time.Duration{
		"rest": time.Duration(own.Utime.Nano() + own.Stime.Nano()), "plugin": w.pluginCPU(b), "redis": server,
	}
}

// tick is a clock tick of /proc, the same on all Linux machines that Go runs on.
const tick = 10 * time.Millisecond

// pluginCPU reads what the kernel says of the process that serves the socket (proc(5)).
func (w *bench) pluginCPU(b *testing.B) time.Duration {
	b.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range all {
		line, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(line), "gatehouse-plugin\x00") || !strings.Contains(string(line), w.socket) {
			continue // of another process, or one that has ended
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(name), "stat"))
		if err != nil {
			b.Fatal(err)
		}
		_, after, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(after)
		var ticks int64
		for _, field := range fields[11:13] { // utime, stime
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			ticks += n
		}
		return time.Duration(ticks) * tick
	}
	b.Fatal("the plugin's process is not to be found")
	return 0
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
