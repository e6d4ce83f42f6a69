package sink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/internal/web"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// NATSOptions say where a NATS sink publishes.
type NATSOptions struct {
	URL            string // nats:// on this machine, tls:// elsewhere
	Subject        string // one that a stream of JetStream takes
	CredsFile      string // of NATS, with a JWT and a key; "" for none
	TokenFile      string // a token; "" for none
	TLS            BrokerTLS
	AllowPlaintext bool // nats:// to other machines, where token and records may travel in the clear
}

// NATS publishes each record to a stream, and takes it for delivered once the stream says so. The record's decision_id is the
// message's id, so that JetStream drops what is delivered again within the stream's window.
type NATS struct {
	o       NATSOptions
	overTLS bool
	conn    *nats.Conn
	js      jetstream.JetStream
	closed  bool
}

// OpenNATS checks the options; it connects when there is something to publish.
func OpenNATS(o NATSOptions) (*NATS, error) {
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Scheme != "nats" && u.Scheme != "tls":
		return nil, errors.New("nats: not a nats:// or tls:// URL")
	case u.User != nil:
		return nil, errors.New("nats: credentials belong into creds_file or token_file, not into the URL")
	case u.Scheme == "nats" && !o.AllowPlaintext && !egress.IsLoopback(u.Hostname()):
		return nil, errors.New("nats: nats:// is for this machine alone; use tls://")
	case u.Scheme == "nats" && o.TLS.some():
		return nil, errors.New("nats: certificates are for tls://")
	case o.Subject == "" || strings.ContainsAny(o.Subject, "*> \t\r\n") || strings.HasPrefix(o.Subject, ".") || strings.HasSuffix(o.Subject, ".") || strings.Contains(o.Subject, ".."):
		return nil, errors.New("nats: subject: words with dots between, and no wildcard")
	}
	if o.CredsFile != "" {
		if _, err := os.Stat(o.CredsFile); err != nil {
			return nil, fmt.Errorf("nats: %w", err)
		}
	}
	if o.TokenFile != "" {
		if _, err := web.ReadToken(o.TokenFile); err != nil {
			return nil, fmt.Errorf("nats: token: %w", err)
		}
	}
	if _, err := o.TLS.config(); err != nil { // files that cannot be read are told now
		return nil, fmt.Errorf("nats: %w", err)
	}
	return &NATS{o: o, overTLS: u.Scheme == "tls"}, nil
}

// connect makes a connection that ends when it breaks; the next Write makes another.
func (n *NATS) connect() error {
	options := []nats.Option{nats.NoReconnect(), nats.Timeout(5 * time.Second), nats.Name("gatehouse-pdp decision log")}
	if n.overTLS {
		over, err := n.o.TLS.config()
		if err != nil {
			return fmt.Errorf("nats: %w", err)
		}
		options = append(options, nats.Secure(over)) // nothing is sent to a server that has no TLS
	}
	if n.o.CredsFile != "" {
		options = append(options, nats.UserCredentials(n.o.CredsFile))
	}
	if n.o.TokenFile != "" {
		token, err := web.ReadToken(n.o.TokenFile)
		if err != nil {
			return fmt.Errorf("nats: token: %w", err)
		}
		options = append(options, nats.Token(token))
	}
	conn, err := nats.Connect(n.o.URL, options...)
	if err != nil {
		return plainly("connect", err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return plainly("connect", err)
	}
	n.conn, n.js = conn, js
	return nil
}

// Write implements decisionlog.Sink.
func (n *NATS) Write(ctx context.Context, records [][]byte) error {
	switch {
	case n.closed:
		return errClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case len(records) == 0:
		return nil
	}
	if n.conn == nil || n.conn.IsClosed() {
		if err := n.connect(); err != nil {
			return err
		}
	}
	err := n.publish(ctx, records)
	if err != nil && !errors.Is(err, decisionlog.ErrRejected) {
		n.conn.Close() // so that no answer of this batch is taken for one of the next
	}
	return err
}

func (n *NATS) publish(ctx context.Context, records [][]byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answers := make([]jetstream.PubAckFuture, 0, len(records))
	for _, record := range records {
		var r struct {
			ID string `json:"decision_id"`
		}
		if int64(len(record)) > n.conn.MaxPayload()-1024 || json.Unmarshal(record, &r) != nil { // 1024 for the headers
			return fmt.Errorf("nats: not a record, or too large: %w", decisionlog.ErrRejected)
		}
		m := &nats.Msg{Subject: n.o.Subject, Data: record, Header: nats.Header{}}
		if r.ID != "" {
			m.Header.Set(jetstream.MsgIDHeader, r.ID)
		}
		answer, err := n.js.PublishMsgAsync(m)
		if err != nil {
			return plainly("publish", err)
		}
		answers = append(answers, answer)
	}
	for _, answer := range answers {
		select {
		case <-answer.Ok():
		case err := <-answer.Err():
			return plainly("publish", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// plainly keeps of an error what is known to hold neither records nor credentials.
func plainly(what string, err error) error {
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return errors.New("nats: no stream takes the subject")
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired):
		return errors.New("nats: the server knows no such user")
	case errors.Is(err, nats.ErrSecureConnWanted):
		return errors.New("nats: the server has no TLS")
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return errors.New("nats: the server's certificate is of no authority that is believed, of another name, or over")
	}
	return fmt.Errorf("nats: cannot %s: the server cannot be reached, went away, or refuses", what)
}

// Close implements decisionlog.Sink.
func (n *NATS) Close() error {
	n.closed = true
	if n.conn != nil {
		n.conn.Close()
	}
	return nil
}
