package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
)

// Config is what a file says of all sources.
type Config struct {
	Sources []Options // by name; Sink, Log and Now are left to the caller
	// Candidates are compared with what a source of the same name sends, and checked as that is.
	Candidates []Options
	Folder     []string // the roots of the policy folder beside them; nil is everything
}

// document is the file. Any other field is refused.
type document struct {
	Keys   map[string]keySpec `yaml:"keys"`
	Folder struct {
		Roots []string `yaml:"roots"`
	} `yaml:"folder"`
	Keep struct {
		Dir    string        `yaml:"dir"`
		MaxAge time.Duration `yaml:"max_age"`
	} `yaml:"keep"`
	Sources    map[string]sourceSpec    `yaml:"sources"`
	Candidates map[string]candidateSpec `yaml:"candidates"`
}

// candidateSpec is what differs from the source that it is for.
type candidateSpec struct {
	URL       string        `yaml:"url"`
	TokenFile string        `yaml:"token_file"`
	Poll      time.Duration `yaml:"poll"`
}

type keySpec struct {
	Algorithm string `yaml:"algorithm"`
	File      string `yaml:"file"`
}

type sourceSpec struct {
	URL          string        `yaml:"url"`
	TokenFile    string        `yaml:"token_file"`
	CAFile       string        `yaml:"ca_file"`
	Keys         []string      `yaml:"keys"`
	Scope        string        `yaml:"scope"`
	Unsigned     bool          `yaml:"unsigned"`
	Roots        []string      `yaml:"roots"`
	Poll         time.Duration `yaml:"poll"`
	LongPoll     time.Duration `yaml:"long_poll"`
	Timeout      time.Duration `yaml:"timeout"`
	MaxStaleness time.Duration `yaml:"max_staleness"`
	WhenStale    string        `yaml:"when_stale"`
	Limits       struct {
		Compressed   int64 `yaml:"compressed"`
		Uncompressed int64 `yaml:"uncompressed"`
		File         int64 `yaml:"file"`
		Files        int   `yaml:"files"`
	} `yaml:"limits"`
}

const maxConfig = 1 << 20 // bytes of it and of each key

// ReadConfig reads a file of sources, in YAML, and answers everything that is wrong with it.
func ReadConfig(name string) (Config, error) {
	text, err := readSmall(name)
	if err != nil {
		return Config{}, err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var doc document
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: holds more than one document", name)
	}
	c, err := doc.config()
	if err != nil {
		return Config{}, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

func readSmall(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator says which
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	return readUpTo(f, maxConfig)
}

func (d document) config() (Config, error) {
	var errs []error
	keys := map[string]Key{}
	for _, id := range slices.Sorted(maps.Keys(d.Keys)) {
		text, err := readSmall(d.Keys[id].File)
		if err != nil {
			errs = append(errs, fmt.Errorf("keys.%s: %w", id, err))
			continue
		}
		keys[id] = Key{ID: id, Algorithm: d.Keys[id].Algorithm, PEM: string(text)}
	}
	if d.Folder.Roots != nil {
		if err := CheckRoots(d.Folder.Roots); err != nil {
			errs = append(errs, fmt.Errorf("folder: %w", err))
		}
	}
	if len(d.Sources) == 0 {
		errs = append(errs, errors.New("sources: there is none"))
	}
	if d.Keep.MaxAge != 0 && d.Keep.Dir == "" {
		errs = append(errs, errors.New("keep: max_age needs dir"))
	}
	c := Config{Folder: d.Folder.Roots}
	for _, name := range slices.Sorted(maps.Keys(d.Sources)) {
		spec := d.Sources[name]
		o := spec.options(name)
		o.Dir, o.MaxAge = d.Keep.Dir, d.Keep.MaxAge
		var err error
		o.Verifier, err = spec.verifier(d.Keys, keys)
		if spec.WhenStale != "" && spec.WhenStale != "deny" && spec.WhenStale != "continue" {
			err = errors.Join(err, errors.New("when_stale must be continue or deny"))
		}
		if err == nil {
			_, err = NewSource(o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("sources.%s: %w", name, err))
		}
		c.Sources = append(c.Sources, o)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Candidates)) {
		at := slices.IndexFunc(c.Sources, func(o Options) bool { return o.Name == name })
		if at < 0 {
			errs = append(errs, fmt.Errorf("candidates.%s: there is no such source", name))
			continue
		}
		o, spec := c.Sources[at], d.Candidates[name]
		o.URL, o.TokenFile, o.Dir, o.MaxAge, o.MaxStaleness, o.DenyWhenStale = spec.URL, spec.TokenFile, "", 0, 0, false
		if spec.Poll != 0 {
			o.Poll = spec.Poll
		}
		as := d.Sources[name] // signed as its source's, or near as that may be
		as.URL = spec.URL
		var err error
		if o.Verifier, err = as.verifier(d.Keys, keys); err == nil {
			_, err = NewSource(o)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("candidates.%s: %w", name, err))
		}
		c.Candidates = append(c.Candidates, o)
	}
	return c, errors.Join(errs...)
}

func (s sourceSpec) options(name string) Options {
	return Options{
		Name: name, URL: s.URL, TokenFile: s.TokenFile, CAFile: s.CAFile, Roots: s.Roots,
		Poll: s.Poll, LongPoll: s.LongPoll, Timeout: s.Timeout, MaxStaleness: s.MaxStaleness, DenyWhenStale: s.WhenStale == "deny",
		Limits: Limits{Compressed: s.Limits.Compressed, Uncompressed: s.Limits.Uncompressed, File: s.Limits.File, Files: s.Limits.Files},
	}
}

// verifier takes the keys that the source names, or all. Without any, a source beyond this machine is refused unless its operator
// says that nobody signs it.
func (s sourceSpec) verifier(declared map[string]keySpec, read map[string]Key) (*Verifier, error) {
	names := s.Keys
	if names == nil {
		names = slices.Sorted(maps.Keys(declared))
	}
	if s.Unsigned {
		if s.Keys != nil || s.Scope != "" {
			return nil, errors.New("unsigned goes with neither keys nor scope")
		}
		return nil, nil //nolint:nilnil // no verifier is what was asked for
	}
	if len(names) == 0 {
		u, err := url.Parse(s.URL)
		if err == nil && s.Scope == "" && egress.IsLoopback(u.Hostname()) {
			return nil, nil //nolint:nilnil // as above
		}
		return nil, errors.New("needs keys, by which its bundles are signed; unsigned: true does without")
	}
	var keys []Key
	for _, id := range names {
		if _, ok := declared[id]; !ok {
			return nil, fmt.Errorf("there is no key %q", id)
		}
		if k, ok := read[id]; ok { // what could not be read was told
			keys = append(keys, k)
		}
	}
	if len(keys) < len(names) {
		return nil, errors.New("its keys cannot be read")
	}
	return NewVerifier(s.Scope, keys...)
}
