package main

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

// logConfig is the file of -decision-log.
type logConfig struct {
	Spool struct {
		Dir      string   `yaml:"dir"`
		Size     byteSize `yaml:"size"`
		WhenFull string   `yaml:"when_full"`
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

type maskConfig struct {
	Erase   string `yaml:"erase"`
	Replace string `yaml:"replace"`
	With    any    `yaml:"with"`
}

type sinkConfig struct {
	Name            string `yaml:"name"`
	File            string `yaml:"file"`
	HTTP            string `yaml:"http"`
	TokenFile       string `yaml:"token_file"`
	AllowPlaintext  bool   `yaml:"allow_plaintext"`
	NATS            string `yaml:"nats"`
	Subject         string `yaml:"subject"`
	CredsFile       string `yaml:"creds_file"`
	PostgresURLFile string `yaml:"postgres_url_file"`
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

// readLogConfig answers the options of a journal, with its sinks open, or all that is wrong with the file.
func readLogConfig(path string) (decisionlog.Options, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator named it
	if err != nil {
		return decisionlog.Options{}, err
	}
	var c logConfig
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

func (c logConfig) options() (decisionlog.Options, error) {
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

func (c logConfig) masks() (*decisionlog.Masks, error) {
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

func (s sinkConfig) open() (name string, opened decisionlog.Sink, err error) {
	kinds := 0
	for _, v := range []string{s.File, s.HTTP, s.NATS, s.PostgresURLFile} {
		if v != "" {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return "", nil, errors.New("one of file, http, nats and postgres_url_file")
	case s.HTTP == "" && s.NATS == "" && (s.TokenFile != "" || s.AllowPlaintext):
		return "", nil, errors.New("token_file and allow_plaintext belong to http and nats")
	case s.NATS == "" && (s.Subject != "" || s.CredsFile != ""):
		return "", nil, errors.New("subject and creds_file belong to nats")
	case s.File != "":
		name = "file"
		opened, err = sink.OpenFile(s.File)
	case s.HTTP != "":
		name = "http"
		opened, err = sink.OpenHTTP(sink.HTTPOptions{URL: s.HTTP, TokenFile: s.TokenFile, AllowHTTP: s.AllowPlaintext})
	case s.NATS != "":
		name = "nats"
		opened, err = sink.OpenNATS(sink.NATSOptions{
			URL: s.NATS, Subject: s.Subject, CredsFile: s.CredsFile, TokenFile: s.TokenFile, AllowPlaintext: s.AllowPlaintext,
		})
	default:
		name = "postgres"
		opened, err = openPostgres(s.PostgresURLFile)
	}
	if s.Name != "" {
		name = s.Name
	}
	return name, opened, err
}

func openPostgres(file string) (decisionlog.Sink, error) {
	text, err := os.ReadFile(file) //nolint:gosec // the operator named it
	if err != nil {
		return nil, err
	}
	return sink.OpenPostgres(telemetry.Secret(strings.TrimSpace(string(text))))
}
