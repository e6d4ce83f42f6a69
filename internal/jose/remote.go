package jose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	fetchTimeout = 5 * time.Second
	maxSetBytes  = 512 << 10
	refetchAfter = 10 * time.Second // at most one fetch for an unknown kid in this time
	retryAfter   = time.Second      // while there is no set at all
)

// RemoteKeys is the key set at a URL. It fetches in the background, refetches when a token names an unknown key, and keeps
// the last good set when the issuer is away or answers nonsense.
type RemoteKeys struct {
	url     string
	refresh time.Duration
	client  *http.Client
	now     func() time.Time

	set    atomic.Pointer[keyset]
	flight singleflight.Group

	mu   sync.Mutex
	last time.Time // of the last fetch for an unknown kid
	busy int       // fetches under way
	err  error     // of the last fetch
}

// NewRemoteKeys makes a set that is fetched first by Run, or by the first token. refresh is the time between two fetches.
// Plain http is for loopback and private networks; the caller decides, as it does on the URL.
func NewRemoteKeys(address string, refresh time.Duration, now func() time.Time) (*RemoteKeys, error) {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return nil, errors.New("key set: not an http or https URL")
	}
	return &RemoteKeys{
		url: address, refresh: refresh, now: now, err: errors.New("not fetched yet"),
		client: &http.Client{
			Timeout:       fetchTimeout,
			Transport:     &http.Transport{IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 1, TLSHandshakeTimeout: fetchTimeout},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Run keeps the set fresh until ctx ends; without a set it tries again every second.
func (r *RemoteKeys) Run(ctx context.Context) error {
	defer r.client.CloseIdleConnections()
	for {
		wait := r.refresh
		if r.fetchOnce(ctx) != nil {
			wait = retryAfter
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

// Key implements KeySource. An unknown kid costs the issuer at most one fetch in ten seconds, however many tokens name it.
func (r *RemoteKeys) Key(ctx context.Context, kid, algorithm string) (PublicKey, error) {
	if set := r.set.Load(); set != nil {
		if k, ok := set.key(kid, algorithm); ok {
			return k, nil
		}
	}
	if r.mayFetch() {
		// The fetch is for all who wait for it, so no single request's end may cut it.
		done := r.flight.DoChan("", func() (any, error) { return nil, r.fetch(context.WithoutCancel(ctx)) })
		select {
		case <-done:
		case <-ctx.Done():
			return PublicKey{}, errNoKeys.Because(ctx.Err())
		}
	}
	set := r.set.Load()
	if set == nil {
		return PublicKey{}, errNoKeys.Because(r.Ready())
	}
	k, ok := set.key(kid, algorithm)
	if !ok {
		return PublicKey{}, errUnknownKey
	}
	return k, nil
}

// Has reports whether the set still holds the key, for those who remember what it verified.
func (r *RemoteKeys) Has(kid string) bool {
	set := r.set.Load()
	if set == nil {
		return false
	}
	_, ok := (*set)[kid]
	return ok
}

func (r *RemoteKeys) mayFetch() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	pause := refetchAfter
	if r.set.Load() == nil {
		if r.busy > 0 {
			return true // joins the fetch under way: nothing can be verified before it ends
		}
		pause = retryAfter
	}
	now := r.now()
	if !r.last.IsZero() && now.Sub(r.last) < pause {
		return false
	}
	r.last = now
	return true
}

func (r *RemoteKeys) fetchOnce(ctx context.Context) error {
	_, err, _ := r.flight.Do("", func() (any, error) { return nil, r.fetch(ctx) })
	return err
}

func (r *RemoteKeys) fetch(ctx context.Context) error {
	r.mu.Lock()
	r.busy++
	r.mu.Unlock()
	set, err := r.download(ctx)
	if err == nil {
		r.set.Store(&set)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	r.err = err
	return err
}

func (r *RemoteKeys) download(ctx context.Context) (keyset, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	res, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("key set: status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxSetBytes+1))
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	if len(body) > maxSetBytes {
		return nil, errors.New("key set: too large")
	}
	set, err := parseSet(body)
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return set, nil
}
