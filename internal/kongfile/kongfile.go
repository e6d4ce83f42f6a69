// Package kongfile reads Kong's declarative configuration (kong.yml, format 3.0) and finds the route of a request as Kong does.
// Programs that stand where Kong stands read the very file that Kong reads, by Parse, which refuses fields that it does not know:
// what is passed over in silence could be what guards a route. Survey is for those who only look.
package kongfile

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Document is the file.
type Document struct {
	FormatVersion string     `yaml:"_format_version"`
	Transform     *bool      `yaml:"_transform"`
	Services      []Service  `yaml:"services"`
	Routes        []Route    `yaml:"routes"`
	Upstreams     []Upstream `yaml:"upstreams"`
	Plugins       []Plugin   `yaml:"plugins"`
}

// Service is an API behind the gateway.
type Service struct {
	Name           string   `yaml:"name"`
	URL            string   `yaml:"url"`
	Protocol       string   `yaml:"protocol"`
	Host           string   `yaml:"host"`
	Port           int      `yaml:"port"`
	Path           string   `yaml:"path"`
	Retries        *int     `yaml:"retries"`
	ConnectTimeout int      `yaml:"connect_timeout"` // ms
	ReadTimeout    int      `yaml:"read_timeout"`    // ms
	WriteTimeout   int      `yaml:"write_timeout"`   // ms
	Tags           []string `yaml:"tags"`
	Routes         []Route  `yaml:"routes"`
	Plugins        []Plugin `yaml:"plugins"`
}

// Route says which requests go to a service.
type Route struct {
	Name          string   `yaml:"name"`
	Service       string   `yaml:"service"`
	Protocols     []string `yaml:"protocols"`
	Methods       []string `yaml:"methods"`
	Hosts         []string `yaml:"hosts"`
	Paths         []string `yaml:"paths"`
	RegexPriority int      `yaml:"regex_priority"`
	StripPath     *bool    `yaml:"strip_path"`
	PreserveHost  bool     `yaml:"preserve_host"`
	Tags          []string `yaml:"tags"`
	Plugins       []Plugin `yaml:"plugins"`
}

// Upstream is a service's host that stands for several targets.
type Upstream struct {
	Name         string       `yaml:"name"`
	Algorithm    string       `yaml:"algorithm"`
	Tags         []string     `yaml:"tags"`
	Targets      []Target     `yaml:"targets"`
	Healthchecks Healthchecks `yaml:"healthchecks"`
}

// Target is one address of an upstream.
type Target struct {
	Target string   `yaml:"target"`
	Weight *int     `yaml:"weight"`
	Tags   []string `yaml:"tags"`
}

// Healthchecks say when a target is sick.
type Healthchecks struct {
	Active  Active  `yaml:"active"`
	Passive Passive `yaml:"passive"`
}

// Active checks probe.
type Active struct {
	Type      string    `yaml:"type"`
	HTTPPath  string    `yaml:"http_path"`
	Timeout   float64   `yaml:"timeout"` // seconds
	Healthy   Healthy   `yaml:"healthy"`
	Unhealthy Unhealthy `yaml:"unhealthy"`
}

// Passive checks watch what requests meet.
type Passive struct {
	Type      string    `yaml:"type"`
	Healthy   Healthy   `yaml:"healthy"`
	Unhealthy Unhealthy `yaml:"unhealthy"`
}

// Healthy says what makes a target well.
type Healthy struct {
	Interval     float64 `yaml:"interval"` // seconds; 0 probes never
	Successes    int     `yaml:"successes"`
	HTTPStatuses []int   `yaml:"http_statuses"`
}

// Unhealthy says what makes a target sick.
type Unhealthy struct {
	Interval     float64 `yaml:"interval"` // seconds; 0 probes never
	HTTPFailures int     `yaml:"http_failures"`
	TCPFailures  int     `yaml:"tcp_failures"`
	Timeouts     int     `yaml:"timeouts"`
	HTTPStatuses []int   `yaml:"http_statuses"`
}

// Statuses answers those that count as healthy.
func (h Healthy) Statuses() []int {
	if h.HTTPStatuses != nil {
		return h.HTTPStatuses
	}
	return []int{200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 306, 307, 308}
}

// Statuses answers those that count as unhealthy.
func (u Unhealthy) Statuses() []int {
	if u.HTTPStatuses != nil {
		return u.HTTPStatuses
	}
	return []int{429, 404, 500, 501, 502, 503, 504, 505}
}

// Plugin is one plugin's configuration, for the route, service or file that it stands in or names.
type Plugin struct {
	Name      string         `yaml:"name"`
	Route     string         `yaml:"route"`
	Service   string         `yaml:"service"`
	Enabled   *bool          `yaml:"enabled"`
	Consumer  any            `yaml:"consumer"`       // by a name or as a mapping, as all that Kong refers to; Parse refuses it
	Group     any            `yaml:"consumer_group"` // likewise
	Protocols []string       `yaml:"protocols"`
	Tags      []string       `yaml:"tags"`
	Config    map[string]any `yaml:"config"`
	At        string         `yaml:"-"` // where in the file it stands; Route or Service is what it stands in
}

// Parse reads the file and checks all that needs no plugin's schema.
func Parse(text []byte) (Document, error) {
	var errs []error
	d, err := decode(text, true)
	if err != nil {
		return Document{}, err
	}
	if d.FormatVersion != "3.0" {
		errs = append(errs, fmt.Errorf("_format_version: expected 3.0, not %q", d.FormatVersion))
	}
	for i, u := range d.Upstreams {
		if err := u.check(); err != nil {
			errs = append(errs, fmt.Errorf("upstreams[%d].%w", i, err))
		}
	}
	errs = append(errs, d.complete())
	for _, p := range d.AllPlugins() {
		if p.forSome() {
			errs = append(errs, fmt.Errorf("%s: consumers are not known here", p.At))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Document{}, err
	}
	return d, nil
}

// Survey reads the file for those who look at its routes and some of its plugins and run none. What Kong knows beside these, in any of
// its versions, is passed over, other plugins too. A plugin for some consumers alone does not stand before everybody: it counts as
// disabled.
func Survey(text []byte, plugins ...string) (Document, error) {
	d, err := decode(text, false)
	if err != nil {
		return Document{}, err
	}
	if !slices.Contains([]string{"1.1", "2.1", "3.0"}, d.FormatVersion) {
		return Document{}, fmt.Errorf("_format_version: expected 3.0, 2.1 or 1.1, not %q", d.FormatVersion)
	}
	if err := d.complete(); err != nil {
		return Document{}, err
	}
	d.only(plugins)
	for _, p := range d.AllPlugins() {
		if p.forSome() {
			p.Enabled = new(bool)
		}
	}
	return d, nil
}

func decode(text []byte, known bool) (d Document, err error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(known)
	if err := dec.Decode(&d); err != nil {
		return Document{}, fmt.Errorf("kong.yml: %w", err)
	}
	return d, nil
}

func (d *Document) complete() error {
	var errs []error
	for i := range d.Services {
		if err := d.Services[i].complete(); err != nil {
			errs = append(errs, fmt.Errorf("services[%d].%w", i, err))
		}
	}
	return errors.Join(append(errs, d.place())...)
}

func (p *Plugin) forSome() bool { return p.Consumer != nil || p.Group != nil }

// complete splits url into its parts and fills Kong's defaults.
func (s *Service) complete() error {
	if s.URL != "" {
		u, err := url.Parse(s.URL)
		if err != nil || u.Host == "" {
			return errors.New("url: not a URL")
		}
		s.Protocol, s.Host, s.Path = u.Scheme, u.Hostname(), u.Path
		if s.Port = 80; u.Scheme == "https" {
			s.Port = 443
		}
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

func (u Upstream) check() error {
	if u.Name == "" {
		return errors.New("name: required")
	}
	for i, t := range u.Targets {
		if _, _, err := net.SplitHostPort(t.Target); err != nil {
			return fmt.Errorf("targets[%d].target: not host:port", i)
		}
		if t.Weight != nil && (*t.Weight < 0 || *t.Weight > 65535) {
			return fmt.Errorf("targets[%d].weight: value should be between 0 and 65535", i)
		}
	}
	return nil
}
