package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
)

// KafkaOptions say where a Kafka sink produces.
type KafkaOptions struct {
	Brokers        []string // host:port, to begin with
	Topic          string   // it is not made
	TLS            BrokerTLS
	Mechanism      string // plain, scram-sha-256 or scram-sha-512; "" is the last
	User           string // "" for no user
	PasswordFile   string
	AllowPlaintext bool          // without TLS to other machines too; this machine is always reached without
	Timeout        time.Duration // of a batch; default 10 s
}

// Kafka produces each record to a topic, and takes it for delivered once all replicas that are in sync have it. All records of one
// decision point have one key, so that they are in one partition and in their order there.
type Kafka struct {
	o      KafkaOptions
	plain  bool
	client *kgo.Client
	closed bool
}

// OpenKafka checks the options; it connects when there is something to produce.
func OpenKafka(o KafkaOptions) (*Kafka, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	k := &Kafka{o: o, plain: o.AllowPlaintext}
	local := len(o.Brokers) > 0
	for _, b := range o.Brokers {
		host, _, err := net.SplitHostPort(b)
		if err != nil || host == "" {
			return nil, errors.New("kafka: each broker is host:port")
		}
		local = local && egress.IsLoopback(host)
	}
	if local && !o.TLS.some() {
		k.plain = true
	}
	switch {
	case len(o.Brokers) == 0:
		return nil, errors.New("kafka: at least one broker is needed")
	case o.Topic == "" || len(o.Topic) > 249 || strings.Trim(o.Topic, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != "":
		return nil, errors.New("kafka: topic: letters, digits, dots, dashes and underscores")
	case (o.User == "") != (o.PasswordFile == ""):
		return nil, errors.New("kafka: user and password_file belong together")
	case o.Mechanism != "" && o.User == "":
		return nil, errors.New("kafka: a mechanism is for a user")
	case o.AllowPlaintext && o.TLS.some():
		return nil, errors.New("kafka: allow_plaintext is for brokers without TLS, which have no certificates")
	}
	if _, err := k.options(); err != nil { // files that cannot be read are told now
		return nil, err
	}
	return k, nil
}

func (k *Kafka) options() ([]kgo.Opt, error) {
	options := []kgo.Opt{
		kgo.SeedBrokers(k.o.Brokers...), kgo.DefaultProduceTopic(k.o.Topic), kgo.ClientID("gatehouse-pdp"),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordDeliveryTimeout(k.o.Timeout), kgo.ProduceRequestTimeout(k.o.Timeout),
		kgo.UnknownTopicRetries(1), kgo.AllowIdempotentProduceCancellation(), kgo.RetryTimeout(k.o.Timeout),
		kgo.ManualFlushing(), // a batch is whole when it comes here
	}
	if k.plain {
		options = append(options, kgo.Dialer(k.dialPlain))
	} else {
		c, err := k.o.TLS.config()
		if err != nil {
			return nil, fmt.Errorf("kafka: %w", err)
		}
		options = append(options, kgo.DialTLSConfig(c))
	}
	secret, err := password(k.o.PasswordFile)
	if err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	var how sasl.Mechanism
	switch scrams := (scram.Auth{User: k.o.User, Pass: secret}); k.o.Mechanism {
	case "plain":
		how = plain.Auth{User: k.o.User, Pass: secret}.AsMechanism()
	case "scram-sha-256":
		how = scrams.AsSha256Mechanism()
	case "scram-sha-512", "":
		how = scrams.AsSha512Mechanism()
	default:
		return nil, errors.New("kafka: mechanism: plain, scram-sha-256 or scram-sha-512")
	}
	if k.o.User != "" {
		options = append(options, kgo.SASL(how))
	}
	return options, nil
}

var errElsewhere = errors.New("kafka: a broker is on another machine, and has no TLS")

// dialPlain dials without TLS. A broker on this machine may name others of its cluster.
func (k *Kafka) dialPlain(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !k.o.AllowPlaintext && !egress.IsLoopback(host) {
		return nil, errElsewhere
	}
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
}

// Write implements decisionlog.Sink.
func (k *Kafka) Write(ctx context.Context, records [][]byte) error {
	switch {
	case k.closed:
		return errClosed
	case ctx.Err() != nil:
		return ctx.Err()
	case len(records) == 0:
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.o.Timeout)
	defer cancel()
	err := k.connect(ctx)
	if err == nil {
		err = k.produce(ctx, records)
	}
	if err != nil && k.client != nil { // so that nothing of this batch comes behind the next
		k.client.Close()
		k.client = nil
	}
	return err
}

// connect asks a broker whether it knows us, unless one did: while it produces, the client tries again rather than say so.
func (k *Kafka) connect(ctx context.Context) error {
	if k.client != nil {
		return nil
	}
	options, err := k.options()
	if err != nil {
		return err
	}
	if k.client, err = kgo.NewClient(options...); err != nil {
		return errors.New("kafka: the client refuses its options")
	}
	if err := k.client.Ping(ctx); err != nil {
		return kafkaError(err)
	}
	return nil
}

func (k *Kafka) produce(ctx context.Context, records [][]byte) error {
	failed := make(chan error, len(records))
	for _, record := range records {
		r := &kgo.Record{Value: record}
		if m := marksOf(record); m.Labels.ID != "" {
			r.Key = []byte(m.Labels.ID)
		}
		k.client.Produce(ctx, r, func(_ *kgo.Record, err error) { failed <- err })
	}
	if err := k.client.Flush(ctx); err != nil {
		return kafkaError(err)
	}
	for range records {
		if err := <-failed; err != nil {
			return kafkaError(err)
		}
	}
	return nil
}

// kafkaError keeps of an error what is known to hold neither records nor credentials.
func kafkaError(err error) error {
	switch {
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge), errors.Is(err, kerr.InvalidRecord):
		return fmt.Errorf("kafka: the broker takes no such record: %w", decisionlog.ErrRejected)
	case errors.Is(err, errElsewhere):
		return errElsewhere
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return errors.New("kafka: there is no such topic")
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		return errors.New("kafka: the broker knows no such user, or not by this mechanism")
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		return errors.New("kafka: the user may not write to the topic")
	case errors.Is(err, kerr.NotEnoughReplicas), errors.Is(err, kerr.NotEnoughReplicasAfterAppend):
		return errors.New("kafka: too few replicas are in sync")
	}
	return errors.New("kafka: cannot produce: the brokers cannot be reached, went away, or refuse")
}

// Close implements decisionlog.Sink.
func (k *Kafka) Close() error {
	k.closed = true
	if k.client != nil {
		k.client.Close()
		k.client = nil
	}
	return nil
}
