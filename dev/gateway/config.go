package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document is kong.yml, format 3.0, as far as this gateway implements it. Any other field is refused.
type document struct {
	FormatVersion string         `yaml:"_format_version"`
	Transform     *bool          `yaml:"_transform"`
	Services      []serviceSpec  `yaml:"services"`
	Routes        []routeSpec    `yaml:"routes"`
	Upstreams     []upstreamSpec `yaml:"upstreams"`
	Plugins       []pluginSpec   `yaml:"plugins"`
}

type serviceSpec struct {
	Name           string       `yaml:"name"`
	URL            string       `yaml:"url"`
	Protocol       string       `yaml:"protocol"`
	Host           string       `yaml:"host"`
	Port           int          `yaml:"port"`
	Path           string       `yaml:"path"`
	Retries        *int         `yaml:"retries"`
	ConnectTimeout int          `yaml:"connect_timeout"` // ms
	ReadTimeout    int          `yaml:"read_timeout"`    // ms
	WriteTimeout   int          `yaml:"write_timeout"`   // ms
	Tags           []string     `yaml:"tags"`
	Routes         []routeSpec  `yaml:"routes"`
	Plugins        []pluginSpec `yaml:"plugins"`
}

type routeSpec struct {
	Name          string       `yaml:"name"`
	Service       string       `yaml:"service"`
	Protocols     []string     `yaml:"protocols"`
	Methods       []string     `yaml:"methods"`
	Hosts         []string     `yaml:"hosts"`
	Paths         []string     `yaml:"paths"`
	RegexPriority int          `yaml:"regex_priority"`
	StripPath     *bool        `yaml:"strip_path"`
	PreserveHost  bool         `yaml:"preserve_host"`
	Tags          []string     `yaml:"tags"`
	Plugins       []pluginSpec `yaml:"plugins"`
}

type upstreamSpec struct {
	Name         string       `yaml:"name"`
	Algorithm    string       `yaml:"algorithm"`
	Tags         []string     `yaml:"tags"`
	Targets      []targetSpec `yaml:"targets"`
	Healthchecks healthSpec   `yaml:"healthchecks"`
}

type targetSpec struct {
	Target string   `yaml:"target"`
	Weight *int     `yaml:"weight"`
	Tags   []string `yaml:"tags"`
}

type healthSpec struct {
	Active  activeSpec  `yaml:"active"`
	Passive passiveSpec `yaml:"passive"`
}

type activeSpec struct {
	Type      string      `yaml:"type"`
	HTTPPath  string      `yaml:"http_path"`
	Timeout   float64     `yaml:"timeout"` // seconds
	Healthy   healthySpec `yaml:"healthy"`
	Unhealthy sickSpec    `yaml:"unhealthy"`
}

type passiveSpec struct {
	Type      string      `yaml:"type"`
	Healthy   healthySpec `yaml:"healthy"`
	Unhealthy sickSpec    `yaml:"unhealthy"`
}

type healthySpec struct {
	Interval     float64 `yaml:"interval"` // seconds; 0 probes never
	Successes    int     `yaml:"successes"`
	HTTPStatuses []int   `yaml:"http_statuses"`
}

type sickSpec struct {
	Interval     float64 `yaml:"interval"` // seconds; 0 probes never
	HTTPFailures int     `yaml:"http_failures"`
	TCPFailures  int     `yaml:"tcp_failures"`
	Timeouts     int     `yaml:"timeouts"`
	HTTPStatuses []int   `yaml:"http_statuses"`
}

type pluginSpec struct {
	Name      string         `yaml:"name"`
	Route     string         `yaml:"route"`
	Service   string         `yaml:"service"`
	Enabled   *bool          `yaml:"enabled"`
	Protocols []string       `yaml:"protocols"`
	Tags      []string       `yaml:"tags"`
	Config    map[string]any `yaml:"config"`
}

// parse reads kong.yml and checks all that does not need the plugin's schema.
func parse(text []byte) (document, error) {
	var d document
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&d); err != nil {
		return document{}, fmt.Errorf("kong.yml: %w", err)
	}
	var errs []error
	if d.FormatVersion != "3.0" {
		errs = append(errs, fmt.Errorf("_format_version: this gateway reads 3.0, not %q", d.FormatVersion))
	}
	for i := range d.Services {
		if err := d.Services[i].complete(); err != nil {
			errs = append(errs, fmt.Errorf("services[%d].%w", i, err))
		}
	}
	for i, u := range d.Upstreams {
		if err := u.check(); err != nil {
			errs = append(errs, fmt.Errorf("upstreams[%d].%w", i, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return document{}, err
	}
	return d, nil
}

// complete splits url into its parts and fills Kong's defaults.
func (s *serviceSpec) complete() error {
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Host == "" {
			return errors.New("url: not a URL")
		}
		s.Protocol, s.Host, s.Path = u.Scheme, u.Hostname(), u.Path
		s.Port = 80
		if p := u.Port(); p != "" {
			if s.Port, err = strconv.Atoi(p); err != nil {
				return errors.New("url: bad port")
			}
		}
	}
	if s.Name == "" {
		return errors.New("name: required")
	}
	if s.Host == "" {
		return errors.New("host: required")
	}
	if s.Protocol == "" {
		s.Protocol = "http"
	}
	if s.Protocol != "http" {
		return fmt.Errorf("protocol: this gateway speaks http to upstreams, not %q", s.Protocol)
	}
	if s.Port == 0 {
		s.Port = 80
	}
	if s.Path != "" && !strings.HasPrefix(s.Path, "/") {
		return errors.New("path: should start with: /")
	}
	for _, ms := range []*int{&s.ConnectTimeout, &s.ReadTimeout, &s.WriteTimeout} {
		switch {
		case *ms < 0:
			return errors.New("connect_timeout, read_timeout, write_timeout: milliseconds, more than 0")
		case *ms == 0:
			*ms = 60000
		}
	}
	return nil
}

func (u upstreamSpec) check() error {
	if u.Name == "" {
		return errors.New("name: required")
	}
	if u.Algorithm != "" && u.Algorithm != "round-robin" {
		return fmt.Errorf("algorithm: this gateway knows round-robin, not %q", u.Algorithm)
	}
	for i, t := range u.Targets {
		if _, _, err := net.SplitHostPort(t.Target); err != nil {
			return fmt.Errorf("targets[%d].target: not host:port", i)
		}
		if t.Weight != nil && (*t.Weight < 0 || *t.Weight > 65535) {
			return fmt.Errorf("targets[%d].weight: value should be between 0 and 65535", i)
		}
	}
	a := u.Healthchecks.Active
	if a.Type != "" && a.Type != "http" && a.Type != "tcp" {
		return fmt.Errorf("healthchecks.active.type: this gateway probes http and tcp, not %q", a.Type)
	}
	return nil
}
