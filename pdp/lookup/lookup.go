// Package lookup finds out what a policy needs to know of an object (its owner, its department) by asking the API that holds
// it. What may be asked is declared by resource type beside the policies; a request chooses the type and the id, never the
// address (no server-side request forgery, S64). Answers are bounded in size and time, redirects are not followed, and what
// has been found is remembered for as long as the declaration says.
//
// Objects that are asked for together, as those of one batch of evaluations are, are looked up side by side, or in one request where
// the declaration names a URL for several.
//
// An object that does not exist is an answer; everything else that is not a well-formed answer is an error, and the caller
// must deny.
package lookup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Defaults and bounds of a declaration.
const (
	DefaultDeadline = 20 * time.Millisecond
	maxDeadline     = 2 * time.Second
	maxTTL          = time.Minute
)

// placeholder stands for the id, as one whole segment of the path.
const placeholder = "{id}"

// declaration is one look-up as it is written beside the policies.
type declaration struct {
	URL        string            `json:"url"`        // http://<service>/path/{id}
	Properties map[string]string `json:"properties"` // name → JSON pointer (RFC 6901) into the answer
	TTL        string            `json:"ttl"`        // Go duration; none: nothing is remembered
	Deadline   string            `json:"deadline"`   // Go duration for all addresses together; default 20ms

	MissingTTL string         `json:"missing_ttl"` // Go duration: how long it is remembered that there is no such object; none: never
	Batch      *severalAtOnce `json:"batch"`
}

// spec is a checked declaration.
type spec struct {
	service       string // the host of the declaration's URL
	before, after string // the path around the id
	bases         []string
	properties    map[string][]string // name → unescaped reference tokens
	ttl, deadline time.Duration
	missingTTL    time.Duration
	batch         *batchSpec // nil for none
}

// parse checks the declarations: document is what stands under "lookups", services maps a host of their URLs to base URLs.
func parse(document any, services map[string][]string) (map[string]*spec, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("look-ups: %w", err)
	}
	var all map[string]declaration
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("look-ups: %w", err)
	}
	specs := make(map[string]*spec, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s, err := all[name].check(services)
		if err != nil {
			return nil, fmt.Errorf("look-up of %q: %w", name, err)
		}
		specs[name] = s
	}
	return specs, nil
}

func (d declaration) check(services map[string][]string) (*spec, error) {
	// The braces of the placeholder are not URL characters; "id" takes their place while the rest is checked.
	u, err := url.Parse(strings.Replace(d.URL, placeholder, "id", 1))
	if err != nil {
		return nil, errors.New("url: not a URL")
	}
	before, after, found := strings.Cut(d.URL, placeholder)
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("url: must be http or https")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(d.URL, "?#"):
		return nil, errors.New("url: must have neither user, query nor fragment")
	case !found || !strings.HasSuffix(before, "/") || after != "" && !strings.HasPrefix(after, "/"):
		return nil, errors.New("url: must have {id} as one whole segment of its path")
	}
	root := u.Scheme + "://" + u.Host
	before, inPath := strings.CutPrefix(before, root)
	if !inPath || !strings.HasPrefix(before, "/") || strings.Contains(after, placeholder) {
		return nil, errors.New("url: must have {id} once, in its path")
	}
	s := &spec{service: u.Host, before: before, after: after, properties: map[string][]string{}, deadline: DefaultDeadline}
	if len(services[u.Host]) == 0 {
		return nil, fmt.Errorf("url: no address is known of the service %q; PDP_SERVICES says where it is, as %s=http://…", u.Host, u.Host)
	}
	for _, base := range services[u.Host] {
		b, err := url.Parse(base)
		if err != nil || b.Scheme != "http" && b.Scheme != "https" || b.Host == "" || b.User != nil || strings.ContainsAny(base, "?#") {
			return nil, fmt.Errorf("service %q: an address must be http(s)://host[:port][/path]", u.Host)
		}
		s.bases = append(s.bases, strings.TrimRight(base, "/"))
	}
	if len(d.Properties) == 0 {
		return nil, errors.New("properties: none")
	}
	for name, pointer := range d.Properties {
		if name == missing {
			return nil, fmt.Errorf("properties.%s: the name is taken", name)
		}
		if !strings.HasPrefix(pointer, "/") {
			return nil, fmt.Errorf("properties.%s: not a JSON pointer", name)
		}
		s.properties[name] = pointerTokens(pointer)
	}
	if s.ttl, err = duration(d.TTL, 0, maxTTL); err != nil {
		return nil, fmt.Errorf("ttl: %w", err)
	}
	if s.deadline, err = duration(d.Deadline, DefaultDeadline, maxDeadline); err != nil {
		return nil, fmt.Errorf("deadline: %w", err)
	}
	if s.deadline == 0 {
		return nil, errors.New("deadline: must be more than 0")
	}
	if s.missingTTL, err = duration(d.MissingTTL, 0, maxTTL); err != nil {
		return nil, fmt.Errorf("missing_ttl: %w", err)
	}
	if d.Batch != nil {
		if s.batch, err = d.Batch.check(root); err != nil {
			return nil, fmt.Errorf("batch.%w", err)
		}
	}
	return s, nil
}

func duration(text string, absent, most time.Duration) (time.Duration, error) {
	if text == "" {
		return absent, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		return 0, fmt.Errorf("must be a duration from 0s to %s", most)
	}
	return d, nil
}

func pointerTokens(pointer string) []string {
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	tokens := strings.Split(pointer[1:], "/")
	for i, t := range tokens {
		tokens[i] = unescape.Replace(t)
	}
	return tokens
}
