package sink_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

const (
	kafkaTopic    = "gatehouse.decisions"
	kafkaPassword = "secret-kafka-password"
)

// doors are the sockets of a cluster, which can be shut.
type doors struct {
	mu   sync.Mutex
	shut bool
	open []net.Conn
}

type door struct {
	net.Listener
	of *doors
}

func (d *doors) listen(network, address string) (net.Listener, error) {
	ln, err := net.Listen(network, address)
	return door{ln, d}, err
}

func (d door) Accept() (net.Conn, error) {
	for {
		c, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		d.of.mu.Lock()
		if !d.of.shut {
			d.of.open = append(d.of.open, c)
			d.of.mu.Unlock()
			return c, nil
		}
		d.of.mu.Unlock()
		c.Close()
	}
}

func (d *doors) set(shut bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = shut
	for _, c := range d.open {
		c.Close()
	}
	d.open = nil
}

// kafka is a cluster that speaks Kafka's protocol over sockets, and asks for a user.
func kafka(t *testing.T, partitions int32, more ...kfake.Opt) (*kfake.Cluster, *doors) {
	t.Helper()
	d := &doors{}
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.SeedTopics(partitions, kafkaTopic), kfake.ListenFn(d.listen), kfake.EnableSASL(),
		kfake.Superuser("SCRAM-SHA-512", "gatehouse", kafkaPassword), kfake.Superuser("PLAIN", "plain", kafkaPassword), kfake.Superuser("SCRAM-SHA-256", "older", kafkaPassword),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, d
}

func kafkaOptions(t *testing.T, c *kfake.Cluster) sink.KafkaOptions {
	t.Helper()
	return sink.KafkaOptions{Brokers: c.ListenAddrs(), Topic: kafkaTopic, User: "gatehouse", PasswordFile: tokenFile(t, kafkaPassword+"\n"), Timeout: 30 * time.Second}
}

func openKafka(t *testing.T, o sink.KafkaOptions) *sink.Kafka {
	t.Helper()
	k, err := sink.OpenKafka(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

// consumed reads all that the topic has, by partition.
func consumed(t *testing.T, c *kfake.Cluster, opts ...kgo.Opt) map[int32][]string {
	t.Helper()
	all := map[int32][]string{}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics(kafkaTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SASL(scram.Auth{User: "gatehouse", Pass: kafkaPassword}.AsSha512Mechanism()),
	}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	want := map[int32]int64{}
	for partition := range int32(8) {
		if p := c.PartitionInfo(kafkaTopic, partition); p != nil {
			want[partition] = p.HighWatermark
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		missing := false
		for partition, n := range want {
			missing = missing || int64(len(all[partition])) < n
		}
		if !missing {
			return all
		}
		fetched := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("the records do not come: %v", fetched.Errors())
		}
		fetched.EachRecord(func(r *kgo.Record) { all[r.Partition] = append(all[r.Partition], string(r.Value)) })
	}
}

func TestKafkaKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		c, d := kafka(t, 1)
		o := kafkaOptions(t, c)
		o.Timeout = 10 * time.Second // so long an outage lasts before it is told
		return sinktest.Place{
			Sink: openKafka(t, o), Secrets: []string{kafkaPassword},
			Delivered: func(t *testing.T) []string { return consumed(t, c)[0] },
			Break: func(*testing.T) func() {
				d.set(true)
				return func() { d.set(false) }
			},
		}
	})
}

// However many partitions there are, the records of one decision point stay in their order.
func TestRecordsOfOneDecisionPointStayInOrder(t *testing.T) {
	t.Parallel()
	c, _ := kafka(t, 4)
	var wait sync.WaitGroup
	for _, point := range []string{"a", "b", "c", "d", "e", "f"} {
		k := openKafka(t, kafkaOptions(t, c))
		wait.Go(func() {
			for batch := range 5 {
				var records [][]byte
				for i := range 40 {
					records = append(records, fmt.Appendf(nil, `{"labels":{"id":%q},"decision_id":"%03d"}`, point, batch*40+i))
				}
				if err := k.Write(t.Context(), records); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	partitions := map[string]int{}
	total := 0
	for _, records := range consumed(t, c) {
		byPoint := map[string][]string{}
		for _, r := range records {
			byPoint[r[:18]] = append(byPoint[r[:18]], r)
			total++
		}
		for point, records := range byPoint {
			partitions[point]++
			if !slices.IsSorted(records) || len(records) != 200 {
				t.Errorf("%s: %d records, not all of them or not in their order", point, len(records))
			}
		}
	}
	if len(partitions) != 6 || total != 1200 {
		t.Errorf("%d records of %v", total, partitions)
	}
}

func TestAKafkaThatIsNotPreparedSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	c, _ := kafka(t, 1)
	o := kafkaOptions(t, c)
	o.Topic = "another"
	if err := openKafka(t, o).Write(t.Context(), sinktest.Records(0, 1)); err == nil || !strings.Contains(err.Error(), "no such topic") {
		t.Errorf("without a topic: %v", err)
	}
	for name, change := range map[string]func(*sink.KafkaOptions){
		"another password": func(o *sink.KafkaOptions) { o.PasswordFile = tokenFile(t, "wrong-"+kafkaPassword) },
		"a mechanism":      func(o *sink.KafkaOptions) { o.Mechanism = "scram-sha-256" },
	} {
		o := kafkaOptions(t, c)
		change(&o)
		if err := openKafka(t, o).Write(t.Context(), sinktest.Records(0, 1)); err == nil || strings.Contains(err.Error(), kafkaPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// This cluster only hangs up on a stranger; Kafka says why, in words that may hold what it was told.
	told, _ := kafka(t, 1)
	told.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
		res, _ := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
		res.ErrorCode, res.ErrorMessage = kerr.SaslAuthenticationFailed.Code, kmsg.StringPtr("not "+kafkaPassword)
		return res, nil, true
	})
	if err := openKafka(t, kafkaOptions(t, told)).Write(t.Context(), sinktest.Records(0, 1)); err == nil || !strings.Contains(err.Error(), "no such user") || strings.Contains(err.Error(), kafkaPassword) {
		t.Errorf("a stranger: %v", err)
	}
	o = kafkaOptions(t, c)
	o.User, o.Mechanism = "plain", "plain"
	if err := openKafka(t, o).Write(t.Context(), sinktest.Records(0, 1)); err != nil {
		t.Errorf("by plain: %v", err)
	}
}

// A record that the topic will never take is said to be one, so that it is set aside and the others go on.
func TestARecordTooLargeForItsTopicIsRejected(t *testing.T) {
	t.Parallel()
	c, _ := kafka(t, 1)
	k := openKafka(t, kafkaOptions(t, c))
	if err := k.Write(t.Context(), [][]byte{[]byte(`{"x":"` + strings.Repeat("x", 2<<20) + `"}`)}); !errors.Is(err, decisionlog.ErrRejected) {
		t.Errorf("answered %v", err)
	}
	if err := k.Write(t.Context(), sinktest.Records(0, 1)); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// S64: a broker is known by its certificate, and we by ours; nothing goes in the clear that is not told to.
func TestKafkaIsReachedByTLS(t *testing.T) {
	t.Parallel()
	ours, other := pki.New(t, "brokers"), pki.New(t, "another")
	server, client := ours.Server(t), ours.Client(t, "pdp")
	pair, err := tls.X509KeyPair([]byte(server.Cert), []byte(server.Key))
	if err != nil {
		t.Fatal(err)
	}
	c, _ := kafka(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pki.Roots(ours), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}))
	o := kafkaOptions(t, c)
	o.TLS = sink.BrokerTLS{CAFile: tokenFile(t, ours.PEM), CertFile: tokenFile(t, client.Cert), KeyFile: tokenFile(t, client.Key)}
	for mechanism, user := range map[string]string{"": "gatehouse", "scram-sha-512": "gatehouse", "scram-sha-256": "older", "plain": "plain"} {
		o := o
		o.Mechanism, o.User = mechanism, user
		if err := openKafka(t, o).Write(t.Context(), sinktest.Records(0, 3)); err != nil {
			t.Errorf("by TLS and %q: %v", mechanism, err)
		}
	}
	o.Timeout = 3 * time.Second
	for name, change := range map[string]func(*sink.KafkaOptions){
		"another authority":        func(o *sink.KafkaOptions) { o.TLS.CAFile = tokenFile(t, other.PEM) },
		"the system's authorities": func(o *sink.KafkaOptions) { o.TLS.CAFile = "" },
		"another name": func(o *sink.KafkaOptions) {
			o.Brokers = []string{strings.Replace(o.Brokers[0], "127.0.0.1", "localhost", 1)}
		},
		"no certificate":   func(o *sink.KafkaOptions) { o.TLS.CertFile, o.TLS.KeyFile = "", "" },
		"another password": func(o *sink.KafkaOptions) { o.PasswordFile = tokenFile(t, "wrong-"+kafkaPassword) },
		"nobody":           func(o *sink.KafkaOptions) { o.User, o.PasswordFile = "", "" },
		"another's mechanism": func(o *sink.KafkaOptions) {
			o.Mechanism = "plain" // of a user who has none but scram-sha-512
		},
	} {
		bad := o
		change(&bad)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := openKafka(t, bad).Write(t.Context(), sinktest.Records(0, 1)); err == nil || strings.Contains(err.Error(), kafkaPassword) {
				t.Errorf("answered %v", err)
			}
		})
	}
}

// S64
func TestAKafkaThatIsNotToBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := sink.KafkaOptions{Brokers: []string{"kafka.example:9093"}, Topic: "a.b", User: "u", PasswordFile: tokenFile(t, kafkaPassword)}
	if _, err := sink.OpenKafka(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*sink.KafkaOptions){
		"no brokers": func(o *sink.KafkaOptions) { o.Brokers = nil }, "no port": func(o *sink.KafkaOptions) { o.Brokers = []string{"kafka.example"} },
		"a URL": func(o *sink.KafkaOptions) { o.Brokers = []string{"kafka://u:" + kafkaPassword + "@kafka.example:9092"} },
		"topic": func(o *sink.KafkaOptions) { o.Topic = "a b" }, "no topic": func(o *sink.KafkaOptions) { o.Topic = "" },
		"no user": func(o *sink.KafkaOptions) { o.User = "" }, "no password": func(o *sink.KafkaOptions) { o.PasswordFile = "" },
		"no file": func(o *sink.KafkaOptions) { o.PasswordFile = "none" }, "mechanism": func(o *sink.KafkaOptions) { o.Mechanism = "gssapi" },
		"no authority": func(o *sink.KafkaOptions) { o.TLS.CAFile = empty }, "no key": func(o *sink.KafkaOptions) { o.TLS.CertFile = empty },
		"both": func(o *sink.KafkaOptions) { o.AllowPlaintext, o.TLS.CAFile = true, empty },
	} {
		o := good
		change(&o)
		if _, err := sink.OpenKafka(o); err == nil || strings.Contains(err.Error(), kafkaPassword) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// To a broker that has no TLS nothing is sent from a sink that expects it.
	c, _ := kafka(t, 1)
	o := kafkaOptions(t, c)
	o.TLS.CAFile, o.Timeout = tokenFile(t, pki.New(t, "x").PEM), time.Second
	if err := openKafka(t, o).Write(t.Context(), sinktest.Records(0, 1)); err == nil {
		t.Error("records went in the clear")
	}
}
