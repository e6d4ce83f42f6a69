package lookup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"github.com/gatehouse-auth/gatehouse/internal/web"
)

const (
	maxAnswer  = 256 << 10 // bytes
	maxID      = 256       // bytes
	maxEntries = 10_000    // remembered answers
	// settling is how long a change that was allowed may take to be made: what is found meanwhile may be from before it.
	settling = 10 * time.Second
	missing  = "missing" // the property of an object that does not exist
)

// Set is the declared look-ups of one policy. It is safe for concurrent use.
type Set struct {
	specs   map[string]*spec
	http    *http.Client
	now     func() time.Time
	flights singleflight.Group
	changes atomic.Uint64 // how often Changing was called: whoever asks then joins no flight that began before
	good    sync.Map      // resource type → *atomic.Int32, the address that answered last
	counts  *Counts
	tokens  map[string]string

	mu       sync.Mutex
	cache    map[key]entry
	changing map[key]time.Time // until when nothing that was asked for is remembered
}

type key struct{ kind, id string }

type entry struct {
	properties   map[string]any
	asked, until time.Time
}

// NewClient makes the HTTP client that look-ups need: no redirects, no proxy of the environment, bounded connections.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: time.Second}).DialContext,
			MaxIdleConns:           128,
			MaxIdleConnsPerHost:    32,
			MaxConnsPerHost:        64,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 16 << 10,
			DisableCompression:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// New checks the declarations in document (the value under "lookups", nil for none). Services maps the host of a
// declaration's URL to base URLs, which are tried in turn.
func New(document any, services map[string][]string, client *http.Client, now func() time.Time) (*Set, error) {
	specs, err := parse(document, services)
	if err != nil {
		return nil, err
	}
	s := &Set{specs: specs, http: client, now: now, cache: map[key]entry{}, changing: map[key]time.Time{}, counts: &Counts{}}
	for kind := range specs {
		s.good.Store(kind, new(atomic.Int32))
	}
	return s, nil
}

// CountIn makes s count in c, which outlives it. It must be called before the first Find.
func (s *Set) CountIn(c *Counts) { s.counts = c }

// Authorize makes s show each service the bearer token (RFC 6750) of a file, which is read for each request. It must be called before
// the first Find.
func (s *Set) Authorize(files map[string]string) { s.tokens = files }

// Declared reports whether there is a look-up for objects of this type.
func (s *Set) Declared(kind string) bool { return s.specs[kind] != nil }

// Any reports whether there are look-ups at all.
func (s *Set) Any() bool { return len(s.specs) > 0 }

// Find answers the declared properties of an object, and {"missing": true} for one that does not exist (404 or 410), which
// is not remembered unless the declaration says so: it may be created the next moment. The answer is shared and must not be changed.
func (s *Set) Find(ctx context.Context, kind, id string) (map[string]any, error) {
	if t := togetherIn(ctx); t != nil && s.Declared(kind) && safeID(id) {
		if o, ok := t.find(ctx, s, kind, id); ok {
			return o.found, o.err
		}
	}
	found, result, err := s.find(ctx, kind, id)
	if s.Declared(kind) {
		s.counts.add(kind, result)
	}
	return found, err
}

// find also answers how it went.
func (s *Set) find(ctx context.Context, kind, id string) (map[string]any, Result, error) {
	spec := s.specs[kind]
	if spec == nil {
		return nil, Failed, errors.New("look-up: none is declared for this type")
	}
	if !safeID(id) {
		return nil, Failed, errors.New("look-up: unfit id")
	}
	k := key{kind, id}
	if found, ok := s.remembered(k); ok {
		return found, Remembered, nil
	}
	// Callers that ask for the same object at the same moment share one request, which none of them can cancel alone.
	result := s.flights.DoChan(kind+"\x00"+id, func() (shared any, err error) {
		defer func() { // here a panic would end the program
			if p := recover(); p != nil {
				err = fmt.Errorf("look-up: panic: %T", p)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), spec.deadline)
		defer cancel()
		asked := s.now()
		found, err := s.askFor(ctx, kind, spec, id)
		if err == nil {
			s.remember(k, entry{found, asked, asked.Add(spec.lasts(found))})
		}
		return found, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, Failed, r.Err
		}
		found := r.Val.(map[string]any)
		if found[missing] != nil {
			return found, Missing, nil
		}
		return found, Found, nil
	case <-ctx.Done():
		return nil, Failed, fmt.Errorf("look-up: %w", ctx.Err())
	}
}

// safeID refuses ids that could mean another path once they are part of a URL, whatever the API's parser.
func safeID(id string) bool {
	return id != "" && len(id) <= maxID && id != "." && id != ".." && utf8.ValidString(id) &&
		!strings.ContainsFunc(id, unicode.IsControl) && !strings.ContainsAny(id, `/\`)
}

// lasts is how long an answer is remembered.
func (s *spec) lasts(found map[string]any) time.Duration {
	if found[missing] != nil {
		return s.missingTTL
	}
	return s.ttl
}

// askFor asks for one object.
func (s *Set) askFor(ctx context.Context, kind string, spec *spec, id string) (found map[string]any, err error) {
	err = s.ask(ctx, kind, spec, spec.before+url.PathEscape(id)+spec.after, maxAnswer, func(status int, body []byte) (err error) {
		if status != http.StatusOK {
			found = map[string]any{missing: true}
			return nil
		}
		found, err = spec.read(body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}

// ask tries the addresses in turn, the one that answered last first. Each gets an equal share of the time that is left, so
// that one that hangs leaves some for the next. take gets an answer of 200, 404 or 410.
func (s *Set) ask(ctx context.Context, kind string, spec *spec, path string, most int64, take func(status int, body []byte) error) error {
	v, _ := s.good.Load(kind)
	good := v.(*atomic.Int32)
	first, n := int(good.Load()), len(spec.bases)
	var failures []error
	for i := range n {
		at := (first + i) % n
		err := s.askOne(ctx, spec, spec.bases[at]+path, n-i, most, take)
		if err == nil {
			good.Store(int32(at))
			return nil
		}
		failures = append(failures, err)
		var final *refusal
		if errors.As(err, &final) || ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failures...)
}

// refusal is an answer that another address would give as well.
type refusal struct{ why string }

func (r *refusal) Error() string { return "look-up: " + r.why }

func (s *Set) askOne(ctx context.Context, spec *spec, address string, left int, most int64, take func(status int, body []byte) error) error {
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return &refusal{"no request can be made of the id"}
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "gatehouse-pdp")
	if file := s.tokens[spec.service]; file != "" {
		token, err := web.ReadToken(file)
		if err != nil {
			return &refusal{"the service's token cannot be read"}
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := s.http.Do(req)
	if err != nil {
		var u *url.Error // names the whole URL, and with it the object
		if errors.As(err, &u) {
			err = u.Err
		}
		return fmt.Errorf("look-up: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, most+1))
	switch {
	case err != nil:
		return fmt.Errorf("look-up: read answer: %w", err)
	case int64(len(body)) > most:
		return &refusal{"answer too large"}
	case res.StatusCode >= 500:
		return fmt.Errorf("look-up: status %d", res.StatusCode)
	case res.StatusCode != http.StatusOK && res.StatusCode != http.StatusNotFound && res.StatusCode != http.StatusGone:
		return &refusal{"status " + strconv.Itoa(res.StatusCode)}
	}
	return take(res.StatusCode, body)
}

// read takes the declared properties from an answer. One that the answer lacks is absent.
func (s *spec) read(body []byte) (map[string]any, error) {
	object, _ := document(body).(map[string]any)
	if object == nil {
		return nil, &refusal{"answer is not one JSON object"}
	}
	return s.pick(object), nil
}

// document answers the one JSON value that an answer is, or nil.
func document(body []byte) any {
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil || dec.Decode(new(any)) != io.EOF {
		return nil
	}
	return v
}

// pick takes the declared properties from an object.
func (s *spec) pick(object map[string]any) map[string]any {
	found := make(map[string]any, len(s.properties))
	for name, tokens := range s.properties {
		if v, ok := resolve(object, tokens); ok {
			found[name] = v
		}
	}
	return found
}

func resolve(v any, tokens []string) (any, bool) {
	for _, t := range tokens {
		switch at := v.(type) {
		case map[string]any:
			next, ok := at[t]
			if !ok {
				return nil, false
			}
			v = next
		case []any:
			i, err := strconv.Atoi(t)
			if err != nil || i < 0 || i >= len(at) || t != strconv.Itoa(i) {
				return nil, false
			}
			v = at[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// Changing says that an object is about to be changed, so that what was found of it may no longer be so. It is forgotten, and for ten
// seconds each decision looks it up anew.
func (s *Set) Changing(kind, id string) {
	now := s.now()
	s.changes.Add(1) // of several
	s.flights.Forget(kind + "\x00" + id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cache, key{kind, id})
	if len(s.changing) >= maxEntries {
		for k, until := range s.changing {
			if !now.Before(until) {
				delete(s.changing, k)
			}
		}
		if len(s.changing) >= maxEntries { // whatever it is that changes, nothing older is believed
			clear(s.changing)
			clear(s.cache)
		}
	}
	s.changing[key{kind, id}] = now.Add(settling)
}

func (s *Set) remembered(k key) (map[string]any, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.cache[k]
	if !ok {
		return nil, false
	}
	if now := s.now(); !now.Before(e.until) || now.Before(e.asked) { // a clock that was set back keeps nothing longer
		return nil, false
	}
	return e.properties, true
}

// remember keeps e, and makes room first by dropping what has expired, or everything when nothing has.
func (s *Set) remember(k key, e entry) {
	now := s.now()
	if !now.Before(e.until) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, ok := s.changing[k]; ok {
		if e.asked.Before(until) {
			return
		}
		delete(s.changing, k)
	}
	if len(s.cache) >= maxEntries {
		for old, o := range s.cache {
			if !now.Before(o.until) {
				delete(s.cache, old)
			}
		}
		if len(s.cache) >= maxEntries {
			clear(s.cache)
		}
	}
	s.cache[k] = e
}
