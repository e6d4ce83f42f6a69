package recording

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/telemetry"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/regomask"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/sink"
)

// config is the file.
type config struct {
	Spool struct {
		Dir      string   `yaml:"dir"`
		Size     byteSize `yaml:"size"`
		WhenFull string   `yaml:"when_full"`
		Wait     string   `yaml:"wait"`
		Sync     string   `yaml:"sync"`
	} `yaml:"spool"`
	Labels map[string]string `yaml:"labels"`
	Sample struct {
		Default float64            `yaml:"default"`
		Routes  map[string]float64 `yaml:"routes"`
	} `yaml:"sample"`
	Masks      []maskConfig `yaml:"masks"`
	MaskPolicy string       `yaml:"mask_policy"`
	Sinks      []sinkConfig `yaml:"sinks"`
}

// defaultWait bounds how long a decision waits for room: long enough for a disk that stalls, and shorter than anybody's patience,
// so that those who wait do not take the room of all others.
const defaultWait = time.Second

type maskConfig struct {
	Erase   string `yaml:"erase"`
	Replace string `yaml:"replace"`
	With    any    `yaml:"with"`
}

type sinkConfig struct {
	Name            string   `yaml:"name"`
	File            string   `yaml:"file"`
	HTTP            string   `yaml:"http"`
	TokenFile       string   `yaml:"token_file"`
	AllowPlaintext  bool     `yaml:"allow_plaintext"`
	NATS            string   `yaml:"nats"`
	Subject         string   `yaml:"subject"`
	CredsFile       string   `yaml:"creds_file"`
	PostgresURLFile string   `yaml:"postgres_url_file"`
	Kafka           []string `yaml:"kafka"`
	Topic           string   `yaml:"topic"`
	Mechanism       string   `yaml:"mechanism"`
	RabbitMQ        string   `yaml:"rabbitmq"`
	Exchange        string   `yaml:"exchange"`
	RoutingKey      string   `yaml:"routing_key"`
	User            string   `yaml:"user"`
	PasswordFile    string   `yaml:"password_file"`
	CAFile          string   `yaml:"ca_file"`
	CertFile        string   `yaml:"cert_file"`
	KeyFile         string   `yaml:"key_file"`
}

// byteSize is a number of bytes, such as 512MiB.
type byteSize int64

// UnmarshalYAML reads a number with KiB, MiB or GiB behind it, or none.
func (b *byteSize) UnmarshalYAML(n *yaml.Node) error {
	digits, unit := n.Value, int64(1)
	for suffix, u := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if d, ok := strings.CutSuffix(n.Value, suffix); ok {
			digits, unit = d, u
		}
	}
	v, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || v < 1 || v > (1<<50)/unit {
		return fmt.Errorf("line %d: a size is a number of bytes, or of KiB, MiB or GiB", n.Line)
	}
	*b = byteSize(v * unit)
	return nil
}

// ReadConfig answers the options of a journal, with its sinks open, or all that is wrong with the file.
func ReadConfig(path string) (decisionlog.Options, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator named it
	if err != nil {
		return decisionlog.Options{}, err
	}
	var c config
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("it is empty")
		}
		return decisionlog.Options{}, fmt.Errorf("%s: %w", path, err)
	}
	opts, err := c.options()
	if err != nil {
		for _, s := range opts.Sinks {
			err = errors.Join(err, s.Close())
		}
		return decisionlog.Options{}, fmt.Errorf("%s:\n%w", path, err)
	}
	return opts, nil
}

func (c config) options() (decisionlog.Options, error) {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	o := decisionlog.Options{
		Dir: c.Spool.Dir, MaxBytes: int64(c.Spool.Size), WhenFull: decisionlog.Block, Sync: time.Second, Labels: c.Labels,
		Rates: decisionlog.Rates{Default: c.Sample.Default, Routes: c.Sample.Routes}, Sinks: map[string]decisionlog.Sink{},
	}
	if o.Dir == "" {
		fail("spool.dir: is needed")
	}
	if c.Spool.WhenFull != "" {
		o.WhenFull = decisionlog.WhenFull(c.Spool.WhenFull)
	}
	if !slices.Contains([]decisionlog.WhenFull{decisionlog.Block, decisionlog.Drop, decisionlog.Fail}, o.WhenFull) {
		fail("spool.when_full: block, drop or fail")
	}
	o.Wait = defaultWait
	if c.Spool.Wait != "" {
		wait, err := time.ParseDuration(c.Spool.Wait)
		if err != nil || wait < time.Millisecond || o.WhenFull != decisionlog.Block {
			fail("spool.wait: a time from 1ms on, such as 1s, for when_full: block")
		}
		o.Wait = wait
	}
	switch c.Spool.Sync {
	case "":
	case "always":
		o.Sync = 0
	case "never":
		o.Sync = -1
	default:
		every, err := time.ParseDuration(c.Spool.Sync)
		if err != nil || every < time.Millisecond {
			fail("spool.sync: always, never, or a time from 1ms on, such as 1s")
		}
		o.Sync = every
	}
	if err := o.Rates.Validate(); err != nil {
		fail("sample: %w", err)
	}
	masks, err := c.masks()
	if err != nil {
		fail("masks: %w", err)
	}
	o.Masks = masks
	if c.MaskPolicy != "" {
		policy, err := regomask.Open(context.Background(), c.MaskPolicy)
		if err != nil {
			fail("mask_policy: %w", err)
		} else {
			o.MaskBy = policy.Masks
		}
	}
	if len(c.Sinks) == 0 {
		fail("sinks: at least one is needed")
	}
	for i, s := range c.Sinks {
		name, opened, err := s.open()
		switch {
		case err != nil:
			fail("sinks[%d]: %w", i, err)
		case o.Sinks[name] != nil:
			fail("sinks[%d]: there is a sink %s already; give each a name", i, name)
			err = opened.Close()
		default:
			o.Sinks[name] = opened
		}
		if err != nil {
			continue
		}
	}
	return o, errors.Join(errs...)
}

func (c config) masks() (*decisionlog.Masks, error) {
	var list []decisionlog.Mask
	for i, m := range c.Masks {
		switch {
		case (m.Erase == "") == (m.Replace == ""):
			return nil, fmt.Errorf("number %d: either erase or replace", i+1)
		case m.Erase != "" && m.With != nil, m.Replace != "" && m.With == nil:
			return nil, fmt.Errorf("number %d: replace has a with, and erase has none", i+1)
		}
		list = append(list, decisionlog.Mask{Pointer: m.Erase + m.Replace, With: m.With})
	}
	return decisionlog.NewMasks(list)
}

// sinkKinds are the kinds of sinks, and the settings that each has beside its own.
var sinkKinds = []struct {
	kind     string
	settings []string
}{
	{"file", nil},
	{"http", []string{"token_file", "allow_plaintext"}},
	{"nats", []string{"subject", "token_file", "creds_file", "ca_file", "cert_file", "key_file", "allow_plaintext"}},
	{"postgres_url_file", nil},
	{"kafka", []string{"topic", "mechanism", "user", "password_file", "ca_file", "cert_file", "key_file", "allow_plaintext"}},
	{"rabbitmq", []string{"exchange", "routing_key", "user", "password_file", "ca_file", "cert_file", "key_file", "allow_plaintext"}},
}

// given are the settings that a sink has.
func (s sinkConfig) given() (names []string) {
	for _, setting := range []struct {
		name string
		is   bool
	}{
		{"file", s.File != ""}, {"http", s.HTTP != ""}, {"token_file", s.TokenFile != ""}, {"allow_plaintext", s.AllowPlaintext}, {"nats", s.NATS != ""},
		{"subject", s.Subject != ""}, {"creds_file", s.CredsFile != ""}, {"postgres_url_file", s.PostgresURLFile != ""}, {"kafka", len(s.Kafka) > 0}, {"topic", s.Topic != ""},
		{"mechanism", s.Mechanism != ""}, {"rabbitmq", s.RabbitMQ != ""}, {"exchange", s.Exchange != ""}, {"routing_key", s.RoutingKey != ""}, {"user", s.User != ""},
		{"password_file", s.PasswordFile != ""}, {"ca_file", s.CAFile != ""}, {"cert_file", s.CertFile != ""}, {"key_file", s.KeyFile != ""},
	} {
		if setting.is {
			names = append(names, setting.name)
		}
	}
	return names
}

// kind answers which sink is meant. A setting of another kind would be one that nobody reads.
func (s sinkConfig) kind() (string, error) {
	given := s.given()
	var found, all []string
	var settings []string
	for _, k := range sinkKinds {
		all = append(all, k.kind)
		if slices.Contains(given, k.kind) {
			found, settings = append(found, k.kind), k.settings
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("one of %s", strings.Join(all, ", "))
	}
	for _, name := range given {
		if name != found[0] && !slices.Contains(settings, name) {
			return "", fmt.Errorf("%s is not for %s", name, found[0])
		}
	}
	return found[0], nil
}

func (s sinkConfig) open() (name string, opened decisionlog.Sink, err error) {
	kind, err := s.kind()
	if err != nil {
		return "", nil, err
	}
	over := sink.BrokerTLS{CAFile: s.CAFile, CertFile: s.CertFile, KeyFile: s.KeyFile}
	switch kind {
	case "file":
		opened, err = sink.OpenFile(s.File)
	case "http":
		opened, err = sink.OpenHTTP(sink.HTTPOptions{URL: s.HTTP, TokenFile: s.TokenFile, AllowHTTP: s.AllowPlaintext})
	case "nats":
		opened, err = sink.OpenNATS(sink.NATSOptions{
			URL: s.NATS, Subject: s.Subject, CredsFile: s.CredsFile, TokenFile: s.TokenFile, TLS: over, AllowPlaintext: s.AllowPlaintext,
		})
	case "kafka":
		opened, err = sink.OpenKafka(sink.KafkaOptions{
			Brokers: s.Kafka, Topic: s.Topic, TLS: over, Mechanism: s.Mechanism, User: s.User, PasswordFile: s.PasswordFile, AllowPlaintext: s.AllowPlaintext,
		})
	case "rabbitmq":
		opened, err = sink.OpenRabbitMQ(sink.RabbitMQOptions{
			URL: s.RabbitMQ, Exchange: s.Exchange, RoutingKey: s.RoutingKey, TLS: over, User: s.User, PasswordFile: s.PasswordFile, AllowPlaintext: s.AllowPlaintext,
		})
	default:
		kind = "postgres"
		opened, err = openPostgres(s.PostgresURLFile)
	}
	if s.Name != "" {
		kind = s.Name
	}
	return kind, opened, err
}

func openPostgres(file string) (decisionlog.Sink, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator named it
	if err != nil {
		return nil, err
	}
	return sink.OpenPostgres(telemetry.Secret(strings.TrimSpace(string(text))))
}
