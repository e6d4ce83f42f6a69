package sink_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

const natsToken = "secret-nats-token"

// natsServer is a real NATS server with JetStream, which can be ended and started again with what it has kept.
type natsServer struct {
	dir  string
	port int
	over *tls.Config // nil without TLS
	*server.Server
}

func newNATS(t *testing.T) *natsServer { return newNATSOver(t, nil) }

func newNATSOver(t *testing.T, over *tls.Config) *natsServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free, and stays the same over restarts
	if err != nil {
		t.Fatal(err)
	}
	at, _ := ln.Addr().(*net.TCPAddr)
	ln.Close()
	n := &natsServer{dir: t.TempDir(), port: at.Port, over: over}
	n.begin(t)
	t.Cleanup(func() { n.end() })
	return n
}

func (n *natsServer) begin(t *testing.T) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: n.port, JetStream: true, StoreDir: n.dir, NoLog: true, NoSigs: true, Authorization: natsToken, TLSConfig: n.over, TLSVerify: n.over != nil, TLSTimeout: 30})
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

// with connects as somebody else, who needs no network and so no certificate.
func (n *natsServer) with(t *testing.T, do func(jetstream.JetStream)) {
	t.Helper()
	conn, err := nats.Connect(n.url(), nats.Token(natsToken), nats.InProcessServer(n.Server))
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

// S64: the server is known by its certificate, we by ours and a token, and files that change are taken up by the next connection.
func TestNATSIsReachedByTLS(t *testing.T) {
	t.Parallel()
	ours, other := pki.New(t, "brokers"), pki.New(t, "another")
	us, forged := ours.Client(t, "pdp"), other.Client(t, "pdp")
	late := ours.Issue(t, "pdp", x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute))
	shown := ours.Server(t)
	pair, err := tls.X509KeyPair([]byte(shown.Cert), []byte(shown.Key))
	if err != nil {
		t.Fatal(err)
	}
	n := newNATSOver(t, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pki.Roots(ours), ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12})
	n.stream(t)
	base := func(p pki.Pair) sink.NATSOptions {
		return sink.NATSOptions{
			URL: strings.Replace(n.url(), "nats://", "tls://", 1), Subject: "gatehouse.decisions", TokenFile: tokenFile(t, natsToken),
			TLS: sink.BrokerTLS{CAFile: tokenFile(t, ours.PEM), CertFile: tokenFile(t, p.Cert), KeyFile: tokenFile(t, p.Key)},
		}
	}
	write := func(o sink.NATSOptions, from, to int) error {
		s, err := sink.OpenNATS(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return s.Write(t.Context(), sinktest.Records(from, to))
	}
	if err := write(base(us), 0, 300); err != nil {
		t.Fatal(err)
	}
	large := base(us)
	if large.URL = strings.Replace(large.URL, "tls", "TLS", 1); write(large, 0, 300) != nil { // schemes have no case (RFC 3986 section 3.1)
		t.Error("a scheme in capital letters is another one")
	}
	for name, c := range map[string]struct {
		change func(*sink.NATSOptions)
		why    string
	}{
		"another authority":        {func(o *sink.NATSOptions) { o.TLS.CAFile = tokenFile(t, other.PEM) }, "certificate is of no authority"},
		"the system's authorities": {func(o *sink.NATSOptions) { o.TLS.CAFile = "" }, "certificate is of no authority"},
		"another name":             {func(o *sink.NATSOptions) { o.URL = strings.Replace(o.URL, "127.0.0.1", "localhost", 1) }, "of another name"},
		"no certificate":           {func(o *sink.NATSOptions) { o.TLS.CertFile, o.TLS.KeyFile = "", "" }, "cannot connect"},
		"of another authority":     {func(o *sink.NATSOptions) { *o = base(forged) }, "cannot connect"},
		"one whose time is over":   {func(o *sink.NATSOptions) { *o = base(late) }, "cannot connect"},
		"another token":            {func(o *sink.NATSOptions) { o.TokenFile = tokenFile(t, "wrong-"+natsToken) }, "no such user"},
		"a server without TLS":     {func(o *sink.NATSOptions) { o.URL = strings.Replace(newNATS(t).url(), "nats://", "tls://", 1) }, "has no TLS"},
	} {
		o := base(us)
		c.change(&o)
		err := write(o, 300, 301)
		if err == nil || !strings.Contains(err.Error(), c.why) || strings.Contains(err.Error(), natsToken) || strings.Contains(err.Error(), "d-000300") {
			t.Errorf("%s: %v", name, err)
		}
	}
	changing := base(forged)
	s, err := sink.OpenNATS(changing)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Write(t.Context(), sinktest.Records(300, 301)); err == nil {
		t.Error("a certificate of another authority was taken")
	}
	for file, text := range map[string]string{changing.TLS.CertFile: us.Cert, changing.TLS.KeyFile: us.Key} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Write(t.Context(), sinktest.Records(301, 302)); err != nil {
		t.Errorf("with a new certificate: %v", err)
	}
	if all := n.records(t); len(all) != 301 || !strings.Contains(all[300], "d-000301") {
		t.Errorf("%d records, the last of them %q", len(all), all[len(all)-1])
	}
}

// S64: to a server that answers a tls:// URL without TLS not even the token is sent.
func TestNATSTellsAServerWithoutTLSNothing(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan []byte, 1)
	go func() {
		defer close(heard)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(`INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"auth_required":true}` + "\r\n")); err != nil {
			return
		}
		text, _ := io.ReadAll(conn) // however it ends
		heard <- text
	}()
	s, err := sink.OpenNATS(sink.NATSOptions{URL: "tls://" + ln.Addr().String(), Subject: "a.b", TokenFile: tokenFile(t, natsToken)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Write(t.Context(), sinktest.Records(0, 1)); err == nil || !strings.Contains(err.Error(), "has no TLS") {
		t.Errorf("answered %v", err)
	}
	ln.Close()
	if text := <-heard; len(text) > 0 {
		t.Errorf("it heard %d bytes", len(text))
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
		"certificates of plain": func(o *sink.NATSOptions) { o.URL, o.TLS.CAFile = "nats://127.0.0.1", creds }, "no authority": func(o *sink.NATSOptions) { o.TLS.CAFile = creds },
		"no key": func(o *sink.NATSOptions) { o.TLS.CertFile = creds }, "no pair": func(o *sink.NATSOptions) { o.TLS.CertFile, o.TLS.KeyFile = creds, creds },
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
