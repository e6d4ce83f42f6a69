package sink_test

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gatehouse-auth/gatehouse/internal/testenv"
	"github.com/gatehouse-auth/gatehouse/internal/testenv/pki"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sinktest"
)

// rabbit is a RabbitMQ that all of these tests share, each with a queue of its own.
type rabbit struct {
	testenv.Rabbit
	passwordFile string
	conn         *amqp.Connection
}

// with opens a channel as somebody else.
func (r *rabbit) with(t *testing.T, do func(*amqp.Channel) error) {
	t.Helper()
	ch, err := r.conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(ch), ch.Close()); err != nil {
		t.Fatal(err)
	}
}

// queue makes one that keeps what it has, as an operator would.
func (r *rabbit) queue(t *testing.T, arguments amqp.Table) string {
	t.Helper()
	name := t.Name()
	r.with(t, func(ch *amqp.Channel) error {
		_, err := ch.QueueDeclare(name, true, false, false, false, arguments)
		return err
	})
	return name
}

// messages takes all that a queue has.
func (r *rabbit) messages(t *testing.T, queue string) (all []amqp.Delivery) {
	t.Helper()
	r.with(t, func(ch *amqp.Channel) error {
		for {
			m, more, err := ch.Get(queue, true)
			if err != nil || !more {
				return err
			}
			all = append(all, m)
		}
	})
	return all
}

func (r *rabbit) records(t *testing.T, queue string) (all []string) {
	t.Helper()
	for _, m := range r.messages(t, queue) {
		all = append(all, string(m.Body))
	}
	return all
}

func (r *rabbit) options(address, queue string) sink.RabbitMQOptions {
	return sink.RabbitMQOptions{URL: "amqp://" + address + "/", RoutingKey: queue, User: r.User, PasswordFile: r.passwordFile, Timeout: 30 * time.Second}
}

func openRabbitMQ(t *testing.T, o sink.RabbitMQOptions) *sink.RabbitMQ {
	t.Helper()
	s, err := sink.OpenRabbitMQ(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestRabbitMQ(t *testing.T) {
	t.Parallel()
	ours := pki.New(t, "brokers")
	server := ours.Server(t)
	r := &rabbit{Rabbit: testenv.RabbitMQ(t, testenv.RabbitTLS{CAFile: tokenFile(t, ours.PEM), CertFile: tokenFile(t, server.Cert), KeyFile: tokenFile(t, server.Key)})}
	r.passwordFile = tokenFile(t, r.Password+"\n")
	conn, err := amqp.Dial("amqp://" + r.User + ":" + r.Password + "@" + r.Address + "/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	r.conn = conn
	t.Run("keeps the contract", r.contract)
	t.Run("messages say what they are", r.marked)
	t.Run("what is not prepared is said", r.unprepared)
	t.Run("a queue that takes no more is an error", r.full)
	t.Run("both sides show who they are by TLS", func(t *testing.T) { r.overTLS(t, ours) })
}

// S64: the broker is known by its certificate, we by a password or by ours, and files that change are taken up by the next connection.
func (r *rabbit) overTLS(t *testing.T, ours *pki.Authority) {
	queue := r.queue(t, nil)
	ca, us, stranger, other := tokenFile(t, ours.PEM), ours.Client(t, r.User), ours.Client(t, "somebody"), pki.New(t, "another")
	forged, late := other.Client(t, r.User), ours.Issue(t, r.User, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Minute))
	base := func() sink.RabbitMQOptions {
		o := r.options(r.TLSAddress, queue)
		o.URL, o.TLS.CAFile = "amqps://"+r.TLSAddress+"/", ca
		return o
	}
	by := func(p pki.Pair) sink.RabbitMQOptions {
		o := base()
		o.User, o.PasswordFile, o.TLS.CertFile, o.TLS.KeyFile = "", "", tokenFile(t, p.Cert), tokenFile(t, p.Key)
		return o
	}
	for name, o := range map[string]sink.RabbitMQOptions{"a password": base(), "a certificate": by(us)} {
		if err := openRabbitMQ(t, o).Write(t.Context(), sinktest.Records(0, 300)); err != nil {
			t.Errorf("by %s: %v", name, err)
		}
		if got := r.records(t, queue); len(got) != 300 {
			t.Errorf("by %s: %d records have arrived", name, len(got))
		}
	}
	elsewhere, unknown, plain, password := base(), base(), base(), base()
	elsewhere.URL = strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	unknown.TLS.CAFile = tokenFile(t, other.PEM)
	plain.URL = "amqps://" + r.Address + "/"
	password.PasswordFile = tokenFile(t, "wrong-"+r.Password)
	system := base()
	system.TLS.CAFile = ""
	changing := by(stranger)
	t.Run("strangers", func(t *testing.T) { // RabbitMQ makes each wait for three seconds
		for name, o := range map[string]sink.RabbitMQOptions{
			"another name": elsewhere, "another authority": unknown, "the system's authorities": system, "a broker without TLS": plain, "another password": password,
			"a certificate of another authority": by(forged), "one whose time is over": by(late), "somebody's certificate": changing,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := openRabbitMQ(t, o)
				if err := s.Write(t.Context(), sinktest.Records(0, 1)); err == nil || strings.Contains(err.Error(), r.Password) {
					t.Errorf("answered %v", err)
				}
				if o != changing {
					return
				}
				for file, text := range map[string]string{o.TLS.CertFile: us.Cert, o.TLS.KeyFile: us.Key} {
					if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Write(t.Context(), sinktest.Records(7, 8)); err != nil {
					t.Errorf("with a new certificate: %v", err)
				}
			})
		}
	})
	if got := r.records(t, queue); len(got) != 1 || !strings.Contains(got[0], "d-000007") {
		t.Errorf("of strangers have arrived %q", got)
	}
}

func (r *rabbit) contract(t *testing.T) {
	sinktest.Run(t, func(t *testing.T) sinktest.Place {
		queue, proxy := r.queue(t, nil), testenv.NewProxy(t, r.Address)
		var seen []string // a message that is read is gone
		return sinktest.Place{
			Sink: openRabbitMQ(t, r.options(proxy.Address, queue)), Secrets: []string{r.Password},
			Delivered: func(t *testing.T) []string {
				seen = append(seen, r.records(t, queue)...)
				return seen
			},
			Break: func(t *testing.T) func() {
				proxy.Stop()
				return func() { proxy.Start(t) }
			},
		}
	})
}

func (r *rabbit) marked(t *testing.T) {
	queue := r.queue(t, nil)
	s := openRabbitMQ(t, r.options(r.Address, queue))
	if err := s.Write(t.Context(), append(sinktest.Records(7, 8), []byte("no JSON"))); err != nil {
		t.Fatal(err)
	}
	all := r.messages(t, queue)
	if len(all) != 2 || all[0].MessageId != "d-000007" || all[0].DeliveryMode != amqp.Persistent || all[0].ContentType != "application/json" || all[1].MessageId != "" {
		t.Errorf("messages %+v", all)
	}
}

// S64, S67: what is wrong is said without what was said to the broker.
func (r *rabbit) unprepared(t *testing.T) {
	queue := r.queue(t, nil)
	for want, change := range map[string]func(*sink.RabbitMQOptions){
		"no queue takes the routing key": func(o *sink.RabbitMQOptions) { o.RoutingKey = "nowhere" },
		"there is no such exchange":      func(o *sink.RabbitMQOptions) { o.Exchange = "nowhere" },
		"knows no such user":             func(o *sink.RabbitMQOptions) { o.PasswordFile = tokenFile(t, "wrong-"+r.Password) },
		"virtual host":                   func(o *sink.RabbitMQOptions) { o.URL += "nowhere" },
	} {
		o := r.options(r.Address, queue)
		change(&o)
		s := openRabbitMQ(t, o)
		tries := 2 // it is said again, and not only once
		if want == "knows no such user" {
			tries = 1 // RabbitMQ makes a stranger wait for three seconds
		}
		for range tries {
			if err := s.Write(t.Context(), sinktest.Records(0, 300)); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), r.Password) {
				t.Errorf("%s: %v", want, err)
			}
		}
	}
	if n := len(r.records(t, queue)); n != 0 {
		t.Errorf("%d records have arrived", n)
	}
}

func (r *rabbit) full(t *testing.T) {
	queue := r.queue(t, amqp.Table{"x-max-length": 2, "x-overflow": "reject-publish"})
	s := openRabbitMQ(t, r.options(r.Address, queue))
	if err := s.Write(t.Context(), sinktest.Records(0, 2)); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), sinktest.Records(2, 4)); err == nil || !strings.Contains(err.Error(), "did not take") {
		t.Errorf("a full queue: %v", err)
	}
	r.messages(t, queue)
	if err := s.Write(t.Context(), sinktest.Records(2, 4)); err != nil {
		t.Errorf("once there is room: %v", err)
	}
}

// S64: nothing goes in the clear that is not told to.
func TestARabbitMQThatIsNotToBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	const secret = "secret-rabbit-password"
	good := sink.RabbitMQOptions{URL: "amqps://mq.example/audit", RoutingKey: "decisions", User: "u", PasswordFile: tokenFile(t, secret)}
	if _, err := sink.OpenRabbitMQ(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*sink.RabbitMQOptions){
		"plain": func(o *sink.RabbitMQOptions) { o.URL = "amqp://mq.example" }, "http": func(o *sink.RabbitMQOptions) { o.URL = "http://127.0.0.1" },
		"no URL": func(o *sink.RabbitMQOptions) { o.URL = "" }, "user": func(o *sink.RabbitMQOptions) { o.URL = "amqps://u:" + secret + "@mq.example" },
		"a query": func(o *sink.RabbitMQOptions) { o.URL += "?keyfile=/x" }, "no key": func(o *sink.RabbitMQOptions) { o.RoutingKey = "" },
		"nobody": func(o *sink.RabbitMQOptions) { o.User, o.PasswordFile = "", "" }, "no password": func(o *sink.RabbitMQOptions) { o.PasswordFile = "" },
		"no file": func(o *sink.RabbitMQOptions) { o.PasswordFile = "none" }, "half": func(o *sink.RabbitMQOptions) { o.TLS.CertFile = "x" },
		"TLS of plain": func(o *sink.RabbitMQOptions) { o.URL, o.TLS.CAFile = "amqp://127.0.0.1", "x" },
	} {
		o := good
		change(&o)
		if _, err := sink.OpenRabbitMQ(o); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
