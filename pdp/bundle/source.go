package bundle

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"time"
)

// Sink is who decides by bundles. Its methods are called by one goroutine for each source.
type Sink interface {
	// Put offers a bundle that its source had, as the newest, at the time confirmed. It answers why it does not decide. It calls
	// decides once it does, which can be later, from another goroutine.
	Put(ctx context.Context, source string, b *Bundle, confirmed time.Time, decides func()) error
	// Confirm says that there is nothing newer than what was Put or Refused last.
	Confirm(source string, at time.Time)
	// Refuse says that the newest is no bundle or not signed as it must be.
	Refuse(ctx context.Context, source string, err error)
	// Away says that the source cannot be asked.
	Away(ctx context.Context, source string, err error)
	// Stored says whether what decides is kept for the next start, where it has to be.
	Stored(source string, err error)
}

// Options is what a Source is made of. The zeros of durations and limits are their defaults.
type Options struct {
	Name      string    // [a-z0-9-], as in files and errors
	URL       string    // where the bundle is; http or https
	TokenFile string    // holds a bearer token, read for each request; "" is none
	CAFile    string    // holds the certificates that the server's must come from, as PEM; "" is the system's
	Verifier  *Verifier // nil takes what nobody signed
	Roots     []string  // what its bundles may define at most; nil is everything
	Limits    Limits

	Poll     time.Duration // between two requests; default 30 s, give or take a tenth
	LongPoll time.Duration // how long the server may wait for something new before it answers; 0 asks for no waiting
	Timeout  time.Duration // for a request, beyond LongPoll; default 30 s

	Dir    string        // where the last bundle that decided is kept; "" keeps none
	MaxAge time.Duration // a kept bundle is not used when it was confirmed longer ago; default 24 h

	// For whoever decides; a Source does not look at them.
	MaxStaleness  time.Duration
	DenyWhenStale bool

	Sink Sink
	Log  *slog.Logger
	Now  func() time.Time // default time.Now
}

// Defaults of Options.
const (
	DefaultPoll    = 30 * time.Second
	DefaultTimeout = 30 * time.Second
	DefaultMaxAge  = 24 * time.Hour
)

const (
	firstDelay = time.Second     // after one failure; doubles with each
	maxDelay   = time.Minute     // and grows no longer
	minGap     = time.Second     // between two long polls of a server that does not wait
	tryAgain   = 5 * time.Minute // a bundle that did not load may have lacked time
)

// Source asks a server for bundles.
type Source struct {
	Options
	client *http.Client
	after  func(time.Duration) <-chan time.Time

	etag     string // of what was read last, whether or not it was good
	digest   string // as above
	waits    bool   // whether the server is known, or hoped, to do long polling
	pending  *offer // put, but does not decide
	tried    time.Time
	failures int
	decided  chan *offer // what has begun to decide and is to be kept
	kept     saved       // what is on disk
	unkept   *offer      // what decides, and could not be kept
}

// offer is a bundle on its way.
type offer struct {
	bundle    *Bundle
	archive   []byte
	etag      string
	confirmed time.Time
}

// NewSource makes a source; Run starts it. It fails if the options make no sense.
func NewSource(o Options) (*Source, error) {
	if o.Poll == 0 {
		o.Poll = DefaultPoll
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Limits = o.Limits.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	client, err := newClient(o)
	if err != nil {
		return nil, err
	}
	return &Source{Options: o, client: client, after: time.After, waits: o.LongPoll > 0, decided: make(chan *offer, 1)}, nil
}

// Run asks until ctx ends. It begins with the bundle that was kept on disk.
func (s *Source) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	s.restore(ctx)
	s.keepDecided(ctx)
	for {
		began := s.Now()
		retryAfter, err := s.exchange(ctx)
		if ctx.Err() != nil {
			s.keepDecided(ctx)
			return nil
		}
		s.keepDecided(ctx)
		wake := s.after(s.delay(s.Now().Sub(began), retryAfter, err))
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				s.keepDecided(ctx)
				return nil
			case o := <-s.decided:
				s.keep(ctx, o)
			case <-wake:
				waiting = false
			}
		}
	}
}

// delay is how long to wait until the next request.
func (s *Source) delay(took, retryAfter time.Duration, err error) time.Duration {
	if err == nil {
		s.failures = 0
		if s.waits {
			return max(0, minGap-took)
		}
		return s.Poll - s.Poll/10 + jitter(s.Poll/5)
	}
	d := min(firstDelay<<min(s.failures, 10), maxDelay)
	s.failures++
	return max(d/2+jitter(d/2), min(retryAfter, maxDelay))
}

// jitter keeps a fleet that lost its server at one moment from coming back at one.
func jitter(below time.Duration) time.Duration {
	if below <= 0 {
		return 0
	}
	return rand.N(below) //nolint:gosec // no secret
}

// exchange asks once and hands on what it learns. Its error is a reason to ask again later than usual.
func (s *Source) exchange(ctx context.Context) (retryAfter time.Duration, err error) {
	asked := s.Now()
	a, err := s.fetch(ctx)
	var large *tooLarge
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &large):
		s.pending, s.digest, s.etag = nil, "", "" // its ETag is not known to be of what was refused
		s.Sink.Refuse(ctx, s.Name, err)
		return 0, err
	case err != nil:
		s.Sink.Away(ctx, s.Name, err)
		return a.retryAfter, err
	case a.archive == nil:
		s.confirmed(ctx, asked)
		return 0, nil
	}
	s.etag = a.etag
	b, err := s.open(ctx, a.archive)
	if err != nil {
		s.pending, s.digest = nil, ""
		s.Sink.Refuse(ctx, s.Name, err)
		return 0, nil // an answer, if not a good one; no reason to hurry or to wait
	}
	if b.Digest == s.digest {
		s.confirmed(ctx, asked)
		return 0, nil
	}
	s.digest = b.Digest
	s.put(ctx, &offer{bundle: b, archive: a.archive, etag: a.etag, confirmed: asked})
	return 0, nil
}

// Open checks an archive as one that has come from the server.
func (s *Source) Open(archive []byte) (*Bundle, error) { return s.open(context.Background(), archive) }

// open reads an archive and checks that it keeps to what the source may define.
func (s *Source) open(ctx context.Context, archive []byte) (*Bundle, error) {
	b, err := openIn(ctx, archive, s.Limits, s.Verifier)
	if err != nil {
		return nil, err
	}
	return b, Within(b.Roots, s.Roots)
}

func (s *Source) put(ctx context.Context, o *offer) {
	s.pending, s.tried = o, s.Now()
	err := s.Sink.Put(ctx, s.Name, o.bundle, o.confirmed, func() {
		select {
		case <-s.decided: // one that was not kept yet, and is older
		default:
		}
		s.decided <- o
	})
	if err == nil {
		s.pending = nil // it decides, or will as soon as every source has sent something
	}
}

// confirmed handles the answer that nothing is newer.
func (s *Source) confirmed(ctx context.Context, at time.Time) {
	if s.pending != nil && at.Sub(s.tried) >= tryAgain {
		s.pending.confirmed = at
		s.put(ctx, s.pending)
	}
	s.Sink.Confirm(s.Name, at)
	if s.unkept != nil {
		s.keep(ctx, s.unkept)
	}
	if s.Dir != "" && s.digest != "" && s.kept.Digest == s.digest && at.Sub(s.kept.Confirmed) >= min(time.Minute, s.MaxAge/10) {
		s.kept.Confirmed, s.kept.ETag = at, s.etag
		s.note(ctx)
	}
}

// keepDecided keeps what has begun to decide, if anything has.
func (s *Source) keepDecided(ctx context.Context) {
	select {
	case o := <-s.decided:
		s.keep(ctx, o)
	default:
	}
}
