// Package directory holds what is known of subjects (roles, groups, tenant, attributes): the policy information point. It keeps
// itself current from a feed (package feed) or from a file, and answers without a lock while it does.
//
// A View is all that is known at one revision, and never changes. It is made of layers: one large one, and few small ones above
// it for what has changed since, merged beside those who read. A layer has no pointers but to a handful of large blocks, so that
// a million bindings cost the garbage collector nothing and some tens of megabytes in all.
//
// A role counts for as long as its binding lasts, by the clock of whoever asks: that one ends needs no message. It counts where
// its binding names no tenant, or names that of the subject (Entry.Facts).
//
// What is cut off, contradicts itself or exceeds a limit is not used at all: the last good view stays. The package does not know
// OPA.
package directory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// Options is what a Directory is made of. The zeros of durations and limits are their defaults.
type Options struct {
	// URL is where subjects come from: http:// or https:// and unix:///path.sock are a feed; file:///path is a snapshot of the
	// feed (.ndjson), or an OPA data.json whose member "directory" has the members "subjects" and "roles".
	URL       string
	TokenFile string // holds a bearer token, read for each request; "" is none
	CAFile    string // holds the certificates that the server's must come from, as PEM; "" is the system's

	CertFile  string // with KeyFile: what is shown to a server that asks for a certificate, as PEM; read for each connection
	KeyFile   string
	PlainHTTP bool // believe what comes over plain http from another machine, and show it the token

	Wait    time.Duration // how long the sender may hold a request while nothing changes; whole seconds, default and at most feed.MaxWait
	Timeout time.Duration // for a request beyond Wait, and for a part of an answer to come; default 30 s
	Poll    time.Duration // how often a file is looked at; default 1 s
	Limits  Limits

	Dir    string        // where the last view is kept for the next start; "" keeps none
	MaxAge time.Duration // what is kept is not used when it was confirmed longer ago; default 24 h

	// MaxStaleness is how long a view may be used after its source last said that there is nothing newer; 0 is for ever. Past
	// it, Ready fails.
	MaxStaleness time.Duration
	// DenyWhenStale denies every request then, with the reason "directory_stale".
	DenyWhenStale bool

	// Types are the types of subjects that the directory is about; default user.
	Types []string
	// Issuer is whose subjects it is about, as the request's subject.properties.claims.iss has it; "" is anyone's.
	Issuer string
	// ForgetUnknown leaves a subject that the directory does not know without roles, groups, tenant and attributes. Otherwise
	// what the request says of it holds.
	ForgetUnknown bool

	Log *slog.Logger
	Now func() time.Time // default time.Now
}

// Defaults of Options.
const (
	DefaultTimeout = 30 * time.Second
	DefaultPoll    = time.Second
	DefaultMaxAge  = 24 * time.Hour
)

// Directory keeps a view current. It is safe for concurrent use.
type Directory struct {
	opts  Options
	from  source
	after func(time.Duration) <-chan time.Time
	told  func(error) // of each time that the source was asked, for tests; may be nil

	current atomic.Pointer[held]

	mu       sync.Mutex
	away     error // why the source could not be asked
	failure  error // why what it sent is not used
	failures map[string]uint64
	loads    map[string]uint64

	kept keeper
	way  *way
}

// held is a view, and when it was last known to be the newest.
type held struct {
	view      *View
	confirmed time.Time
}

// source brings views: next answers when there is something to tell.
type source interface {
	// next answers the newest view, v itself if nothing is newer. It may wait for news, but never longer than its own limits.
	next(ctx context.Context, v *View) (*View, error)
	// pause is the least time between two calls, for one that took so long and brought news or not.
	pause(took time.Duration, news bool) time.Duration
	// retry is the time until the next call after so many failures, the last of which was err.
	retry(failures int, err error) time.Duration
	close()
}

// New makes a directory that knows nothing yet; Run fills it. It fails if the options make no sense, and answers all that is
// wrong with them.
func New(o Options) (*Directory, error) {
	o = o.withDefaults()
	o.Limits.way = new(way)
	from, err := o.source()
	if err = errors.Join(o.check(), err); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	d := &Directory{opts: o, from: from, after: time.After, failures: map[string]uint64{}, loads: map[string]uint64{}, way: o.Limits.way}
	d.kept.name, d.kept.busy = o.keptFile(), make(chan struct{}, 1)
	return d, nil
}

// Fixed is a directory that knows v for good, for tests and tools.
func Fixed(v *View, o Options) *Directory {
	o = o.withDefaults()
	d := &Directory{opts: o, failures: map[string]uint64{}, loads: map[string]uint64{}}
	d.put(v, o.Now())
	return d
}

// Replace gives a Fixed directory another view.
func (d *Directory) Replace(v *View) { d.put(v, d.opts.Now()) }

func (o Options) withDefaults() Options {
	if o.Wait == 0 {
		o.Wait = maxWait
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Poll == 0 {
		o.Poll = DefaultPoll
	}
	if o.MaxAge == 0 {
		o.MaxAge = DefaultMaxAge
	}
	if o.Types == nil {
		o.Types = []string{"user"}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	o.Limits = o.Limits.withDefaults()
	return o
}

// View answers what is known now, nil before anything is. It is never changed, so that one decision sees one view.
func (d *Directory) View() *View {
	if h := d.current.Load(); h != nil {
		return h.view
	}
	return nil
}

// About reports whether the directory is about subjects of this type and issuer.
func (d *Directory) About(kind, issuer string) bool {
	return slices.Contains(d.opts.Types, kind) && (d.opts.Issuer == "" || d.opts.Issuer == issuer)
}

// Types is Options.Types, which must not be changed.
func (d *Directory) Types() []string { return d.opts.Types }

// Issuer is Options.Issuer.
func (d *Directory) Issuer() string { return d.opts.Issuer }

// ByIssuer reports whether the issuer of a subject matters to About.
func (d *Directory) ByIssuer() bool { return d.opts.Issuer != "" }

// ForgetsUnknown is Options.ForgetUnknown.
func (d *Directory) ForgetsUnknown() bool { return d.opts.ForgetUnknown }

func (d *Directory) put(v *View, confirmed time.Time) { d.current.Store(&held{v, confirmed}) }

// Stale is the reason of denials by DenyWhenStale.
const Stale = "directory_stale"

// Stale reports whether the view is older than MaxStaleness, and whether every request is to be denied for it.
func (d *Directory) Stale(now time.Time) (stale, deny bool) {
	h := d.current.Load()
	if d.opts.MaxStaleness <= 0 || h == nil {
		return false, false
	}
	// A clock that was set back must not keep an old view alive for long.
	if age := now.Sub(h.confirmed); age > d.opts.MaxStaleness || age < -d.opts.MaxStaleness {
		return true, d.opts.DenyWhenStale
	}
	return false, false
}

// Ready answers nil when the newest view is used, a fault named "degraded" while an older one is, and any other fault when there
// is none, or when it is older than MaxStaleness.
func (d *Directory) Ready() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var troubles []string
	if d.failure != nil {
		troubles = append(troubles, "What it sent is not used: "+oneLine(d.failure)+".")
	}
	if d.away != nil {
		troubles = append(troubles, "It cannot be asked: "+oneLine(d.away)+".")
	}
	why := strings.Join(troubles, " ")
	v := d.View()
	if v == nil {
		return fault.New(fault.Unavailable, strings.TrimSpace("Nothing is known of subjects yet. "+why)).Named("not_loaded")
	}
	if stale, deny := d.Stale(d.opts.Now()); stale {
		then := "go on deciding by it"
		if deny {
			then = "deny everything"
		}
		return fault.New(fault.Unavailable, strings.TrimSpace(fmt.Sprintf("The directory of revision %s is too old; decisions %s. %s", v.Word(), then, why))).Named("stale")
	}
	if why != "" {
		return fault.New(fault.Unavailable, "The directory cannot be renewed; revision "+v.Word()+" goes on. "+why).Named("degraded")
	}
	return nil
}

// Stats is how a directory is at one moment.
type Stats struct {
	Loaded    bool
	Revision  string
	Number    uint64    // of the revision, within its epoch
	Confirmed time.Time // when what is used was last known to be the newest
	Subjects  int
	Bindings  int // some that were replaced count until layers are merged
	Roles     int
	Bytes     int               // of the blocks that hold it
	Away      bool              // whether the source cannot be asked
	Loads     map[string]uint64 // what came into use: snapshot, changes, kept
	Failures  map[string]uint64 // what did not: away, refused, kept
}

// Stats tells how the directory is.
func (d *Directory) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Away: d.away != nil, Loads: maps.Clone(d.loads), Failures: maps.Clone(d.failures)}
	if h := d.current.Load(); h != nil {
		v := h.view
		s.Loaded, s.Confirmed = true, h.confirmed
		s.Revision, s.Number, s.Subjects, s.Roles = v.Word(), v.revision, v.subjects, v.roles.Len()
		for _, l := range v.layers {
			s.Bindings += l.bindings
			s.Bytes += l.bytes()
		}
	}
	return s
}

// oneLine is the beginning of an error's text without line breaks.
func oneLine(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > 500 {
		text = strings.ToValidUTF8(text[:500], "") + " …"
	}
	return text
}
