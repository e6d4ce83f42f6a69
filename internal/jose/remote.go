package jose

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/egress"
)

const (
	maxSetBytes   = 512 << 10
	refetchAfter  = 10 * time.Second // at most one fetch for an unknown kid in this time
	retryAfter    = time.Second      // while there is no set at all, and the first pause while there is one
	retryMost     = 30 * time.Second
	absentFor     = time.Minute     // how long a kid that the issuer was asked for in vain is not asked for again
	maxAbsent     = 1024            // such kids that are remembered
	metadataFor   = time.Hour       // how long the metadata's word on where the keys are is taken
	joinFor       = 2 * time.Second // the longest that a request waits for a fetch, while there is a set
	defaultMaxAge = 24 * time.Hour
)

// RemoteOptions say where a key set is and how long it is good.
type RemoteOptions struct {
	// URL of the key set. If it is empty, the issuer's metadata says where it is.
	URL string
	// Issuer, as its metadata must name it, and MetadataURL where that is not at the issuer's well-known places.
	Issuer, MetadataURL string
	Refresh             time.Duration  // between two fetches
	MaxAge              time.Duration  // how long the last good set lives while the issuer is away; 0 is a day
	Egress              egress.Options // without Origin
	Now                 func() time.Time
}

// RemoteKeys is an issuer's key set. It is fetched in the background before it ages, and when a token names an unknown key.
// The last good set stays when the issuer is away or answers nonsense, up to its age.
type RemoteKeys struct {
	o      RemoteOptions
	client *egress.Client
	set    atomic.Pointer[dated]

	mu         sync.Mutex
	flight     *flight              // the fetch under way, or nil
	last       time.Time            // of the last fetch for an unknown kid
	absent     map[string]time.Time // kids that a fetch did not bring, and when
	err        error                // of the last fetch
	jwksURL    string               // as the metadata said
	discovered time.Time
}

// flight is one fetch, for all who wait for it. err is there once done is closed.
type flight struct {
	done chan struct{}
	err  error
}

// dated is a set and when it was fetched.
type dated struct {
	keyset
	at time.Time
}

// NewRemoteKeys makes a set that is fetched first by Run, or by the first token: there is no need for the issuer to be there.
func NewRemoteKeys(o RemoteOptions) (*RemoteKeys, error) {
	if o.MaxAge == 0 {
		o.MaxAge = defaultMaxAge
	}
	if o.Refresh <= 0 || o.MaxAge < o.Refresh {
		return nil, errors.New("key set: its refresh is above zero and not above its greatest age")
	}
	o.Egress.Origin = o.URL
	if o.URL == "" {
		if o.Egress.Origin = o.MetadataURL; o.MetadataURL == "" {
			if _, err := wellKnown(o.Issuer); err != nil {
				return nil, fmt.Errorf("key set: %w", err)
			}
			o.Egress.Origin = o.Issuer
		}
	}
	client, err := egress.New(o.Egress)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return &RemoteKeys{o: o, client: client, err: errors.New("key set: not fetched yet"), absent: map[string]time.Time{}}, nil
}

// Run keeps the set fresh until ctx ends. While the issuer is away it tries again every second, ever more seldom if there is
// a set to live on.
func (r *RemoteKeys) Run(ctx context.Context) error {
	defer r.client.Close()
	pause := retryAfter
	for {
		wait := r.o.Refresh
		if r.fetchOnce(ctx) == nil {
			pause = retryAfter
		} else {
			wait = min(pause, r.o.Refresh)
			if pause = min(2*pause, retryMost); r.current() == nil {
				pause = retryAfter
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Ready answers why the last fetch failed, or nil.
func (r *RemoteKeys) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Age is how old the set is; ok is false while there is none.
func (r *RemoteKeys) Age() (age time.Duration, ok bool) {
	set := r.set.Load()
	if set == nil {
		return 0, false
	}
	return r.o.Now().Sub(set.at), true
}

// current is the set, or nil if there is none or it is too old.
func (r *RemoteKeys) current() keyset {
	set := r.set.Load()
	if set == nil || r.o.Now().Sub(set.at) > r.o.MaxAge {
		return nil
	}
	return set.keyset
}

// Key implements KeySource. An unknown kid costs the issuer at most one fetch in ten seconds, however many tokens name it,
// and none for a minute if the last such fetch did not bring it.
func (r *RemoteKeys) Key(ctx context.Context, kid, algorithm string) (*PublicKey, error) {
	if k, ok := r.current().key(kid, algorithm); ok {
		return k, nil
	}
	fetched := false
	if f, own := r.join(ctx, kid); f != nil {
		wait := ctx
		if r.current() != nil {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeout(ctx, joinFor)
			defer cancel()
		}
		select {
		case <-f.done:
			fetched = own && f.err == nil // one that had begun before may have been too early for the key
		case <-wait.Done():
			return nil, errNoKeys.Because(wait.Err())
		}
	}
	set := r.current()
	if set == nil {
		return nil, errNoKeys.Because(errors.Join(r.Ready(), errors.New("no key set, or one that is too old")))
	}
	if k, ok := set.key(kid, algorithm); ok {
		return k, nil
	}
	if fetched {
		r.remember(kid)
	}
	return nil, errUnknownKey
}

// Holds reports whether the issuer still publishes this very key, for those who remember what it verified. A set that is too
// old holds nothing.
func (r *RemoteKeys) Holds(key *PublicKey) bool { return r.current()[key.ID] == key }

// join answers the fetch that may bring the key: the one under way, or a new one of its own if the issuer may be asked again, or
// nil.
func (r *RemoteKeys) join(ctx context.Context, kid string) (f *flight, own bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	if at, ok := r.absent[kid]; ok && now.Sub(at) < absentFor {
		return nil, false
	}
	if r.flight != nil {
		return r.flight, false
	}
	pause := refetchAfter
	if r.current() == nil {
		pause = retryAfter
	}
	if !r.last.IsZero() && now.Sub(r.last) < pause {
		return nil, false
	}
	r.last = now
	return r.start(context.WithoutCancel(ctx)), true // no single request's end may cut what others wait for
}

// start is called with r.mu held and no flight under way.
func (r *RemoteKeys) start(ctx context.Context) *flight {
	f := &flight{done: make(chan struct{})}
	r.flight = f
	go func() {
		defer close(f.done)
		err := r.fetch(ctx)
		r.mu.Lock()
		defer r.mu.Unlock()
		f.err, r.err, r.flight = err, err, nil
	}()
	return f
}

func (r *RemoteKeys) remember(kid string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.o.Now()
	if len(r.absent) >= maxAbsent {
		for old, at := range r.absent {
			if now.Sub(at) >= absentFor {
				delete(r.absent, old)
			}
		}
	}
	if len(r.absent) < maxAbsent { // beyond that the pause between two fetches is what holds
		r.absent[kid] = now
	}
}

// fetchOnce fetches, or waits for who does.
func (r *RemoteKeys) fetchOnce(ctx context.Context) error {
	r.mu.Lock()
	f := r.flight
	if f == nil {
		f = r.start(ctx)
	}
	r.mu.Unlock()
	<-f.done
	return f.err
}

func (r *RemoteKeys) fetch(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil { // whatever an issuer sends ends neither the process nor those who wait
			err = fmt.Errorf("key set: panic: %v", p)
		}
	}()
	at := r.o.Now()
	set, err := r.download(ctx)
	if err != nil {
		return err
	}
	if older := r.set.Load(); older != nil {
		set.keep(older.keyset)
	}
	r.set.Store(&dated{set, at})
	return nil
}

// download is called by one flight at a time.
func (r *RemoteKeys) download(ctx context.Context) (keyset, error) {
	address := r.o.URL
	if address == "" {
		var err error
		if address, err = r.discover(ctx); err != nil {
			return nil, err
		}
	}
	_, body, err := r.client.Get(ctx, address, "application/jwk-set+json, application/json", maxSetBytes)
	var set keyset
	if err == nil {
		set, err = parseSet(body)
	}
	if err != nil {
		r.mu.Lock()
		r.discovered = time.Time{} // the keys may have moved
		r.mu.Unlock()
		return nil, fmt.Errorf("key set: %w", err)
	}
	return set, nil
}

func (r *RemoteKeys) discover(ctx context.Context) (string, error) {
	r.mu.Lock()
	address, at, now := r.jwksURL, r.discovered, r.o.Now()
	r.mu.Unlock()
	if !at.IsZero() && now.Sub(at) < metadataFor {
		return address, nil
	}
	address, err := discover(ctx, r.client, r.o.Issuer, r.o.MetadataURL)
	if err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jwksURL, r.discovered = address, now
	return address, nil
}
