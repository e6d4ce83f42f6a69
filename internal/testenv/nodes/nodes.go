// Package nodes starts redis-servers for one test: a cluster, a master with a replica and a Sentinel, or one that can be killed.
package nodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// Node is a running redis-server.
type Node struct {
	Address string // host:port
	cmd     *exec.Cmd
	line    []string
	over    chan struct{}
	*redis.Client
}

// Kill ends the node at once.
func (n *Node) Kill() {
	if n.cmd.Process == nil {
		return // it never ran
	}
	_ = n.cmd.Process.Kill() // it may be over already
	<-n.over
}

// Restart starts a node that was killed, at the same address.
func (n *Node) Restart(t testing.TB) {
	t.Helper()
	var said bytes.Buffer
	n.cmd, n.over = exec.Command(n.line[0], n.line[1:]...), make(chan struct{})
	n.cmd.Stdout, n.cmd.Stderr = &said, &said
	must(t, n.cmd.Start())
	go func() {
		_ = n.cmd.Wait() // killed in the end
		close(n.over)
	}()
	until(t, "redis-server answers", func() bool {
		select {
		case <-n.over:
			t.Fatalf("redis-server ended: %s", said.Bytes())
		default:
		}
		return n.Ping(context.WithoutCancel(t.Context())).Err() == nil
	})
}

// Single starts one redis-server. After Kill and Restart it knows what it had answered for, or, unless it keeps, nothing.
func Single(t testing.TB, keeps bool) *Node {
	t.Helper()
	if keeps {
		return start(t, "--appendonly", "yes", "--appendfsync", "always")
	}
	return start(t)
}

const deadline = 30 * time.Second

// Cluster starts three masters that share all slots, and answers the address for redisx.Open. It skips the test where
// redis-server is older than 7.
func Cluster(t testing.TB) (string, []*Node) {
	t.Helper()
	var nodes []*Node
	for range 3 {
		nodes = append(nodes, start(t, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(sparePort(t)), "--cluster-node-timeout", "2000"))
	}
	ctx := t.Context()
	for i, n := range nodes {
		must(t, n.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", i*5462, min(i*5462+5461, 16383)).Err())
		must(t, n.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
		if i > 0 {
			host, port, _ := net.SplitHostPort(nodes[0].Address)
			bus := nodes[0].ConfigGet(ctx, "cluster-port").Val()["cluster-port"]
			must(t, n.Do(ctx, "CLUSTER", "MEET", host, port, bus).Err())
		}
	}
	var addresses []string
	for _, n := range nodes {
		until(t, "the cluster is whole", func() bool {
			info := n.ClusterInfo(ctx).Val()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
		addresses = append(addresses, n.Address)
	}
	return "redis+cluster://" + strings.Join(addresses, ","), nodes
}

// Sentinel starts a master, a replica and a Sentinel, and answers the address for redisx.Open and the master.
func Sentinel(t testing.TB) (string, *Node) {
	t.Helper()
	master := start(t)
	host, port, _ := net.SplitHostPort(master.Address)
	replica := start(t, "--replicaof", host+" "+port, "--repl-diskless-sync-delay", "0")
	until(t, "the replica follows", func() bool {
		return strings.Contains(replica.Info(t.Context(), "replication").Val(), "master_link_status:up")
	})
	file := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor gatehouse %s %s 1\nsentinel down-after-milliseconds gatehouse 500\nsentinel failover-timeout gatehouse 5000\n", host, port)
	must(t, os.WriteFile(file, []byte(text), 0o600))
	sentinel := start(t, file, "--sentinel")
	until(t, "the Sentinel knows the replica", func() bool {
		found, _ := sentinel.Do(t.Context(), "SENTINEL", "REPLICAS", "gatehouse").Slice()
		return len(found) == 1
	})
	return "redis+sentinel://" + sentinel.Address + "/0?master=gatehouse", master
}

// start runs a redis-server until the test ends.
func start(t testing.TB, args ...string) *Node {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("redis-server is needed: run the tests by 'make test', which installs it")
	}
	port := strconv.Itoa(sparePort(t))
	var file []string
	if len(args) > 0 && !strings.HasPrefix(args[0], "--") { // a configuration file comes first
		file, args = args[:1], args[1:]
	}
	line := append(file, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "", "--appendonly", "no", "--loglevel", "warning")
	n := &Node{Address: "127.0.0.1:" + port, line: append(append([]string{path}, line...), args...)}
	n.Client = redis.NewClient(&redis.Options{Addr: n.Address})
	t.Cleanup(func() {
		n.Close()
		n.Kill()
	})
	n.Restart(t)
	return n
}

func until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(deadline); !holds(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("not within %v: %s", deadline, what)
		}
	}
}

func sparePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
}
