package sink

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// RabbitMQOptions say where a RabbitMQ sink publishes.
type RabbitMQOptions struct {
	URL            string // amqp:// on this machine, amqps:// elsewhere, with the virtual host as its path; no user
	Exchange       string // "" for the default one, by which a routing key is a queue's name. It is not made
	RoutingKey     string
	TLS            BrokerTLS
	User           string // "" for none: who we are is our certificate's to say (SASL EXTERNAL)
	PasswordFile   string
	AllowPlaintext bool          // amqp:// to other machines, where password and records travel in the clear
	Timeout        time.Duration // of a batch; default 10 s
}

// RabbitMQ publishes each record as a persistent message, and takes it for delivered once the broker has confirmed that all queues
// which it belongs to have it. A record for which there is no queue is not delivered.
type RabbitMQ struct {
	o      RabbitMQOptions
	conn   *amqp.Connection
	ch     *amqp.Channel
	none   chan amqp.Return // messages for which there is no queue
	gone   chan *amqp.Error // why the broker closed the channel
	closed bool
}

// confirmed is how many messages are under way before their confirmations are waited for.
const confirmed = 200

// OpenRabbitMQ checks the options; it connects when there is something to publish.
func OpenRabbitMQ(o RabbitMQOptions) (*RabbitMQ, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "amqp" && u.Scheme != "amqps":
		return nil, errors.New("rabbitmq: not an amqp:// or amqps:// URL")
	case u.User != nil:
		return nil, errors.New("rabbitmq: credentials belong into user and password_file, not into the URL")
	case u.Scheme == "amqp" && !o.AllowPlaintext && !egress.IsLoopback(u.Hostname()):
		return nil, errors.New("rabbitmq: amqp:// is for this machine alone; use amqps://")
	case u.Scheme == "amqp" && o.TLS.some():
		return nil, errors.New("rabbitmq: certificates are for amqps://")
	case o.RoutingKey == "" || len(o.RoutingKey) > 255 || len(o.Exchange) > 127:
		return nil, errors.New("rabbitmq: a routing_key is needed, of at most 255 bytes")
	case (o.User == "") != (o.PasswordFile == ""):
		return nil, errors.New("rabbitmq: user and password_file belong together")
	case o.User == "" && o.TLS.CertFile == "":
		return nil, errors.New("rabbitmq: a user, or a certificate, is needed")
	}
	r := &RabbitMQ{o: o}
	if _, err := r.config(); err != nil { // files that cannot be read are told now
		return nil, err
	}
	return r, nil
}

func (r *RabbitMQ) config() (amqp.Config, error) {
	secret, err := password(r.o.PasswordFile)
	if err != nil {
		return amqp.Config{}, fmt.Errorf("rabbitmq: %w", err)
	}
	var over *tls.Config
	if over, err = r.o.TLS.config(); err != nil {
		return amqp.Config{}, fmt.Errorf("rabbitmq: %w", err)
	}
	var who amqp.Authentication = &amqp.ExternalAuth{}
	if r.o.User != "" {
		who = &amqp.PlainAuth{Username: r.o.User, Password: secret}
	}
	return amqp.Config{
		SASL: []amqp.Authentication{who}, TLSClientConfig: over, Heartbeat: 10 * time.Second, Dial: amqp.DefaultDial(r.o.Timeout),
		Properties: amqp.Table{"connection_name": "gatehouse-pdp decision log"},
	}, nil
}

func (r *RabbitMQ) connect() error {
	config, err := r.config()
	if err != nil {
		return err
	}
	if r.conn, err = amqp.DialConfig(r.o.URL, config); err != nil {
		return rabbitError("connect", err)
	}
	if r.ch, err = r.conn.Channel(); err != nil {
		return rabbitError("connect", err)
	}
	r.none = r.ch.NotifyReturn(make(chan amqp.Return, confirmed))
	r.gone = r.ch.NotifyClose(make(chan *amqp.Error, 1))
	if err := r.ch.Confirm(false); err != nil {
		return rabbitError("connect", err)
	}
	return nil
}

// Write implements decisionlog.Sink.
func (r *RabbitMQ) Write(ctx context.Context, records [][]byte) error {
	switch {
	case r.closed:
		return errClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case len(records) == 0:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, r.o.Timeout)
	defer cancel()
	var err error
	if r.ch == nil || r.ch.IsClosed() || r.conn.IsClosed() {
		r.disconnect()
		err = r.connect()
	}
	for len(records) > 0 && err == nil {
		n := min(confirmed, len(records))
		err = r.publish(ctx, records[:n])
		records = records[n:]
	}
	if err != nil { // so that no confirmation of this batch is taken for one of the next
		r.disconnect()
	}
	return err
}

func (r *RabbitMQ) publish(ctx context.Context, records [][]byte) error {
	answers := make([]*amqp.DeferredConfirmation, len(records))
	for i, record := range records {
		var err error
		answers[i], err = r.ch.PublishWithDeferredConfirmWithContext(ctx, r.o.Exchange, r.o.RoutingKey, true, false, amqp.Publishing{
			ContentType: "application/json", DeliveryMode: amqp.Persistent, AppId: "gatehouse-pdp", Type: "decision",
			MessageId: marksOf(record).ID, Body: record,
		})
		if err != nil {
			return rabbitError("publish", r.why(err))
		}
	}
	for _, answer := range answers {
		ok, err := answer.WaitContext(ctx)
		switch {
		case err != nil:
			return rabbitError("publish", err)
		case !ok:
			if err := r.why(nil); err != nil {
				return rabbitError("publish", err)
			}
			return errors.New("rabbitmq: a queue did not take a record")
		}
	}
	select {
	case _, open := <-r.none: // it comes before its confirmation
		if open {
			return errors.New("rabbitmq: no queue takes the routing key")
		}
	default:
	}
	return nil
}

// why is what the broker said when it closed the channel, or else err; nil where it is open and there is none.
func (r *RabbitMQ) why(err error) error {
	if !r.ch.IsClosed() {
		return err
	}
	select {
	case e := <-r.gone: // soon: the channel is closed behind it
		if e != nil {
			return e
		}
	case <-time.After(time.Second):
	}
	return errors.Join(err, amqp.ErrClosed)
}

// rabbitError keeps of an error what is known to hold neither records nor credentials.
func rabbitError(what string, err error) error {
	var e *amqp.Error
	switch {
	case errors.Is(err, amqp.ErrVhost):
		return errors.New("rabbitmq: the user may not use the virtual host, or there is none")
	case errors.As(err, &e):
		switch e.Code {
		case amqp.AccessRefused:
			return errors.New("rabbitmq: the broker knows no such user, or the user may not write there")
		case amqp.NotFound:
			return errors.New("rabbitmq: there is no such exchange")
		case amqp.NotAllowed:
			return errors.New("rabbitmq: the user may not use the virtual host, or there is none")
		case amqp.ContentTooLarge, amqp.PreconditionFailed:
			return fmt.Errorf("rabbitmq: the broker takes no such record: %w", decisionlog.ErrRejected)
		}
	}
	return fmt.Errorf("rabbitmq: cannot %s: the broker cannot be reached, went away, or refuses", what)
}

// disconnect ends the connection at once: a broker that hangs would make a goodbye wait.
func (r *RabbitMQ) disconnect() {
	if r.conn != nil {
		_ = r.conn.CloseDeadline(time.Now().Add(time.Second)) // it is of no use any more
	}
	r.conn, r.ch = nil, nil
}

// Close implements decisionlog.Sink.
func (r *RabbitMQ) Close() error {
	r.closed = true
	r.disconnect()
	return nil
}
