package sink_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

const natsToken = "secret-nats-token"

// natsServer is a real NATS server with JetStream, which can be ended and started again with what it has kept.
type natsServer struct {
	dir  string
	port int
	*server.Server
}

func newNATS(t *testing.T) *natsServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free, and stays the same over restarts
	if err != nil {
		t.Fatal(err)
	}
	at, _ := ln.Addr().(*net.TCPAddr)
	ln.Close()
	n := &natsServer{dir: t.TempDir(), port: at.Port}
	n.begin(t)
	t.Cleanup(func() { n.end() })
	return n
}

func (n *natsServer) begin(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoLog: true, NoSigs: true, Authorization: natsToken})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	n.Server = s
}

func (n *natsServer) end() {
	n.Shutdown()
	n.WaitForShutdown()
}

func (n *natsServer) url() string { return fmt.Sprintf("nats://127.0.0.1:%d", n.port) }

// with connects as somebody else.
func (n *natsServer) with(t *testing.T, do func(jetstream.JetStream)) {
	t.Helper()
	conn, err := nats.Connect(n.url(), nats.Token(natsToken))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	do(js)
}

func (n *natsServer) stream(t *testing.T) {
	t.Helper()
	n.with(t, func(js jetstream.JetStream) {
		if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "decisions", Subjects: []string{"gatehouse.decisions"}}); err != nil {
			t.Fatal(err)
		}
	})
}

func (n *natsServer) records(t *testing.T) (all []string) {
	t.Helper()
	n.with(t, func(js jetstream.JetStream) {
		stream, err := js.Stream(t.Context(), "decisions")
		if err != nil {
			t.Fatal(err)
		}
		for i := uint64(1); i <= stream.CachedInfo().State.LastSeq; i++ {
			m, err := stream.GetMsg(t.Context(), i)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, string(m.Data))
		}
	})
	return all
}

func openNATS(t *testing.T, n *natsServer) *sink.NATS {
	t.Helper()
	s, err := sink.OpenNATS(sink.NATSOptions{URL: n.url(), Subject: "gatehouse.decisions", TokenFile: tokenFile(t, natsToken+"\n")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestNATSKeepsTheContract(t *testing.T) {
	t.Parallel()
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		n := newNATS(t)
		n.stream(t)
		return sinktest.Place{
			Sink: openNATS(t, n), Delivered: n.records, Secrets: []string{natsToken},
			Break: func(t *testing.T) func() {
				n.end()
				return func() { n.begin(t) }
			},
		}
	})
}

func TestARecordIsInAStreamOnceHoweverOftenItIsDelivered(t *testing.T) {
	t.Parallel()
	n := newNATS(t)
	n.stream(t)
	s := openNATS(t, n)
	for range 3 {
		if err := s.Write(t.Context(), sinktest.Records(0, 5)); err != nil {
			t.Fatal(err)
		}
	}
	if all := n.records(t); len(all) != 5 {
		t.Errorf("%d records", len(all))
	}
	for _, record := range []string{"", "{", `{"decision_id":"d","x":"` + strings.Repeat("x", 2<<20) + `"}`} {
		if err := s.Write(t.Context(), [][]byte{[]byte(record)}); !errors.Is(err, decisionlog.ErrRejected) {
			t.Errorf("%.20q: %v", record, err)
		}
	}
}

func TestANATSThatIsNotPreparedSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	n := newNATS(t)
	s := openNATS(t, n)
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err == nil || !strings.Contains(err.Error(), "no stream takes the subject") {
		t.Errorf("without a stream: %v", err)
	}
	stranger, err := sink.OpenNATS(sink.NATSOptions{URL: n.url(), Subject: "gatehouse.decisions"})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Write(t.Context(), sinktest.Records(0, 1)); err == nil || !strings.Contains(err.Error(), "no such user") {
		t.Errorf("without a token: %v", err)
	}
	n.stream(t)
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// S64: nothing goes in the clear that is not told to.
func TestANATSThatIsNotToBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	creds := filepath.Join(t.TempDir(), "creds")
	if err := os.WriteFile(creds, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	good := sink.NATSOptions{URL: "tls://nats.example", Subject: "a.b", CredsFile: creds}
	if _, err := sink.OpenNATS(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*sink.NATSOptions){
		"plain": func(o *sink.NATSOptions) { o.URL = "nats://nats.example:4222" }, "http": func(o *sink.NATSOptions) { o.URL = "http://127.0.0.1" },
		"no URL": func(o *sink.NATSOptions) { o.URL = "" }, "user": func(o *sink.NATSOptions) { o.URL = "tls://user:secret-nats-token@nats.example" },
		"no subject": func(o *sink.NATSOptions) { o.Subject = "" }, "wildcard": func(o *sink.NATSOptions) { o.Subject = "a.*" }, "dots": func(o *sink.NATSOptions) { o.Subject = "a..b" },
		"no file": func(o *sink.NATSOptions) { o.TokenFile = "none" }, "no token": func(o *sink.NATSOptions) { o.TokenFile = creds },
		"two tokens": func(o *sink.NATSOptions) { o.TokenFile = tokenFile(t, natsToken+"\n"+natsToken) },
	} {
		o := good
		change(&o)
		if _, err := sink.OpenNATS(o); err == nil || strings.Contains(err.Error(), natsToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
