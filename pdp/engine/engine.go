package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/directory"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// Defaults of Options.
const (
	DefaultDeadline = 100 * time.Millisecond
	DefaultTests    = 10 * time.Second
	DefaultPoll     = 250 * time.Millisecond
)

// Options is what an Engine is made of. Policies, Dir or Feeds must be given.
type Options struct {
	// Directory knows subjects; nil leaves them to what requests say. The caller runs it.
	Directory *directory.Directory
	Large     int // members of an object of data beyond which it is a relation: read by keys alone; default 20,000

	Policies    fs.FS               // the policy folder
	Dir         string              // the policy folder on disk
	Roots       []string            // what the folder may define beside Feeds; nil is everything
	Feeds       []Feed              // who else may Put policies; nothing is decided before all have
	OnLoad      func(Load)          // told of every attempt to load, for metrics; must not call the engine
	Skip        []string            // of StepSchema, StepGolden: what is not asked of policies
	OtherInputs bool                // documents are asked for too, so that packages may be written for other inputs than decisions have
	Services    map[string][]string // service name of a look-up's URL → base URLs, tried in turn
	Tokens      map[string]string   // service name → file of the bearer token that it is shown
	Memory      int                 // bytes that remembered decisions may take; default 32 MiB, negative for none
	Deadline    time.Duration       // for one evaluation, look-ups not counted; default 100 ms
	Tests       time.Duration       // for all tests of the policies when they load; default 10 s
	Poll        time.Duration       // how often Run looks for changed files; default 250 ms
	Now         func() time.Time    // default time.Now
	NewID       func() string       // decision ids; default UUIDv7 of Now
	Log         *slog.Logger        // default slog.Default

	Gauge *pace.Gauge // of all who decide in this process, to whom publishing gives way; nil for this engine alone

	NoPartial bool // never decide by what partial evaluation leaves of the rules
	NoNative  bool // never decide by native code

	// Span is told when a part of a decision begins, "lookup" or "evaluate", and its end with what failed. Nil for nobody; it must not block.
	Span func(ctx context.Context, part string) (within context.Context, end func(error))
}

// Engine decides. It is safe for concurrent use.
type Engine struct {
	opts    Options
	files   fs.FS
	http    *http.Client
	current atomic.Pointer[snapshot]
	lookups lookup.Counts
	attempt atomic.Pointer[attempt]
	alone   bool   // nothing is known of other parts, so that what is beyond its roots may be theirs
	lanes   *lanes // of whoever evaluates a policy; look-ups wait without a place

	keys    sync.Pool // of *[]byte
	tallies tallies
	counts  counts
	again   uint32 // oneIn, but in tests
	later   backlog
	leave   func() // Options.Gauge

	sources map[string]*state // by name; the map itself never changes
	bounded []*state          // those with a MaxStaleness

	loading sync.Mutex // held while a snapshot is built
	seen    string     // fingerprint of the files that were last tried

	telling sync.Mutex // never held for long; taken after loading
	offered parts      // the newest of each source
	active  parts      // those that decide; changes under both

	since    time.Time // when what decides began to
	loads    uint64
	failures uint64
}

// state is how a source is.
type state struct {
	Feed
	confirmed atomic.Pointer[time.Time] // when what decides was last known to be its newest

	// Under Engine.telling.
	decoded decoded // its data files

	failure error // why its newest does not decide; nil when it does
	pause   pause // before that is tried again; zero: it is not
	refused bool  // the failure is of something that was never offered
	away    error // why it could not be asked
	unkept  error // why what decides will not be there after a restart without the source

	failures map[string]uint64 // by step
}

// Open loads the policies. It fails when they do not load: an engine always has something to decide by.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	if opts.Deadline == 0 {
		opts.Deadline = DefaultDeadline
	}
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	if opts.Tests == 0 {
		opts.Tests = DefaultTests
	}
	if opts.Poll == 0 {
		opts.Poll = DefaultPoll
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.Gauge == nil {
		opts.Gauge = new(pace.Gauge)
	}
	if opts.OnLoad == nil {
		opts.OnLoad = func(Load) {}
	}
	for _, step := range opts.Skip {
		if !slices.Contains(skippable(), step) {
			return nil, fmt.Errorf("engine: step %q cannot be left out", step)
		}
	}
	e := &Engine{opts: opts, again: oneIn, files: opts.Policies, http: lookup.NewClient(), sources: map[string]*state{}, offered: parts{}, active: parts{}, lanes: newLanes(runtime.GOMAXPROCS(0), opts.Log)}
	if e.files == nil && opts.Dir != "" {
		e.files = os.DirFS(opts.Dir)
	}
	for _, s := range opts.Feeds {
		if s.Name == Folder || e.sources[s.Name] != nil {
			return nil, fmt.Errorf("engine: source %q has no name of its own", s.Name)
		}
		e.sources[s.Name] = &state{Feed: s, failures: map[string]uint64{}}
		if s.MaxStaleness > 0 {
			e.bounded = append(e.bounded, e.sources[s.Name])
		}
	}
	if e.files == nil {
		if len(opts.Feeds) == 0 {
			return nil, errors.New("engine: neither policies nor a folder of them")
		}
		e.join()
		return e, nil
	}
	e.sources[Folder] = &state{failures: map[string]uint64{}}
	if err := e.Reload(ctx); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	e.join()
	return e, nil
}

// join has everything in this process give way to what is asked of the engine.
func (e *Engine) join() {
	e.leave = e.opts.Gauge.Join(e.answered)
	if e.opts.Directory != nil {
		e.opts.Directory.GiveWay(e.opts.Gauge.Asked)
	}
}

// Gauge is Options.Gauge, for others who decide in this process.
func (e *Engine) Gauge() *pace.Gauge { return e.opts.Gauge }

// Close drops idle connections to the services of look-ups, and ends what goes on in the background. Run does so when it ends.
func (e *Engine) Close() {
	e.later.stop()
	if e.leave != nil {
		e.leave()
	}
	e.http.CloseIdleConnections()
}

// Revision names the policies that decide now: 16 hexadecimal digits of the SHA-256 of their files. It is empty before there
// are any.
func (e *Engine) Revision() string {
	if snap := e.current.Load(); snap != nil {
		return snap.revision
	}
	return ""
}

// errNotLoaded is the failure to decide before every source has sent policies.
var errNotLoaded = fault.New(fault.Unavailable, "There are no policies to decide by.").Named("not_loaded")

// errStale is the failure to answer by policies that their operator calls too old.
var errStale = fault.New(fault.Unavailable, "The policies are too old to decide by.").Named(Stale)

// errFailed is every failure to decide; what failed stands in the log alone.
var errFailed = fault.New(fault.Unavailable, "No decision could be made.").Named("policy_failed")

// placeOf keeps of an evaluation's error what went wrong and where. OPA's text also holds operands, and they are the input's (S67).
func placeOf(err error) error {
	var e *topdown.Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Location == nil:
		return errors.New(e.Code)
	default:
		return fmt.Errorf("%s at %s:%d", e.Code, e.Location.File, e.Location.Row)
	}
}

// Evaluate decides. The context's time is the engine's own, whatever the request says. The answer carries the decision's id and
// the policies' revision also when there is an error.
func (e *Engine) Evaluate(ctx context.Context, r authzen.Request) (res authzen.Response, err error) {
	snap := e.current.Load()
	about, id, own := e.paper(snap)
	if snap != nil {
		about.Revision = snap.revision
	}
	defer func() {
		if p := recover(); p != nil {
			err = errFailed.Because(fmt.Errorf("panic: %v", p))
		}
		if about.DecisionID == "" {
			about.DecisionID = e.newID(id, time.Now())
		}
		if err != nil {
			*about = authzen.ResponseContext{Outcome: authzen.Indeterminate, Revision: about.Revision, DirectoryRevision: about.DirectoryRevision, DecisionID: about.DecisionID}
			res = authzen.Response{Context: about}
		}
	}()
	now := e.opts.Now()
	about.DecisionID = e.newID(id, now)
	if snap == nil {
		return res, errNotLoaded
	}
	if _, deny := e.stale(now); deny {
		about.Outcome, about.Reasons = authzen.Indeterminate, []string{Stale}
		return authzen.Response{Context: about}, nil
	}
	var seen consulted
	if e.opts.Directory != nil {
		seen, err = e.consult(&snap.looksAt, &r, now)
		if about.DirectoryRevision = seen.word(); err != nil {
			return res, err
		}
		if e.directoryStale(now) {
			about.Outcome, about.Reasons = authzen.Indeterminate, []string{directory.Stale}
			return authzen.Response{Context: about}, nil
		}
		if seen.fed {
			about.Subject = r.Subject.Properties
		}
	}
	looksUp, unlooked := snap.looking(&r.Resource)
	properties, err := e.properties(ctx, snap, r.Resource, looksUp)
	if err != nil {
		e.opts.Log.WarnContext(ctx, "look-up failed; denied", "decision_id", about.DecisionID, "resource_type", r.Resource.Type, "error", err)
		about.Outcome, about.Reasons = authzen.Indeterminate, []string{"resource_unavailable"}
		return authzen.Response{Context: about}, nil
	}
	if looksUp {
		about.LookedUp = properties
	}
	within, end := e.span(ctx, "evaluate")
	said, by, err := e.answer(within, snap, &seen, &r, properties, now)
	end(err)
	if err != nil {
		return res, err
	}
	about.Reasons, about.Rules, about.Need, about.Obligations = said.about.Reasons, said.about.Rules, said.about.Need, said.about.Obligations
	about.Outcome, about.EvaluatedBy = said.about.Outcome, by
	if said.allow && snap.lookups.Declared(r.Resource.Type) && writes(&r.Action) {
		snap.lookups.Changing(r.Resource.Type, r.Resource.ID)
	}
	if !looksUp {
		about.Cache = snap.looksAt.cache(own, &seen, unlooked, now)
	}
	return authzen.Response{Decision: said.allow, Context: about}, nil
}

// writes reports whether an action is an HTTP method that may change what it is about (RFC 9110 section 9.2.1), or one of another
// name that is done by such a method.
func writes(a *authzen.Action) bool {
	method, own := a.Properties["method"].(string)
	return changes(a.Name) || own && changes(method)
}

func changes(method string) bool {
	switch method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return true
	}
	return false
}

// properties are the object's; a look-up of them is a part of its own.
func (e *Engine) properties(ctx context.Context, snap *snapshot, r authzen.Resource, looksUp bool) (map[string]any, error) {
	if !looksUp {
		return snap.properties(ctx, r, looksUp)
	}
	ctx, end := e.span(ctx, "lookup")
	properties, err := snap.properties(ctx, r, looksUp)
	end(err)
	return properties, err
}

func noEnd(error) {}

func (e *Engine) span(ctx context.Context, part string) (context.Context, func(error)) {
	if e.opts.Span == nil {
		return ctx, noEnd
	}
	return e.opts.Span(ctx, part)
}

// maxKey bounds the inputs that are remembered, in bytes of what can matter of them.
const maxKey = 8 << 10

// shortKey is up to how many bytes a key needs no memory beside the stack. A policy that looks at more is lent some.
const shortKey = 256

// answer remembers what the policy says, or else asks it; by tells which.
func (e *Engine) answer(ctx context.Context, snap *snapshot, seen *consulted, r *authzen.Request, properties map[string]any, now time.Time) (a answer, by string, err error) {
	if snap.answers == nil {
		return e.decide(ctx, snap, seen, *r, properties, now)
	}
	if snap.answers.long.Load() {
		lent, _ := e.keys.Get().(*[]byte)
		if lent == nil {
			lent = new([]byte)
		}
		key, known := snap.looksAt.key((*lent)[:0], r, properties, now)
		a, by, err = e.answerTo(ctx, snap, seen, r, properties, now, key, known)
		if *lent = key; cap(key) <= maxKey {
			e.keys.Put(lent)
		}
		return a, by, err
	}
	var short [shortKey]byte
	key, known := snap.looksAt.key(short[:0], r, properties, now)
	if len(key) > shortKey {
		snap.answers.long.Store(true)
	}
	return e.answerTo(ctx, snap, seen, r, properties, now, key, known)
}

// answerTo remembers what the policy says under a key, if that is known, or else asks it.
func (e *Engine) answerTo(ctx context.Context, snap *snapshot, seen *consulted, r *authzen.Request, properties map[string]any, now time.Time, key []byte, known bool) (a answer, by string, err error) {
	if !known || len(key) > maxKey {
		return e.decide(ctx, snap, seen, *r, properties, now)
	}
	hash := snap.answers.hash(key)
	if a, known = snap.answers.recall(hash, key, seen); known {
		return a, byMemory, nil
	}
	if a, by, err = e.decide(ctx, snap, seen, *r, properties, now); err == nil {
		if a.rests, known = seen.rests(); known {
			snap.answers.keep(hash, key, a)
		}
	}
	return a, by, err
}

// decide asks the policy.
func (e *Engine) decide(ctx context.Context, snap *snapshot, seen *consulted, r authzen.Request, properties map[string]any, now time.Time) (answer, string, error) {
	q := askedAbout(r, properties, now)
	if snap.looksAt.directory && seen.view != nil {
		ctx, q.seen = seen.reading(ctx)
		defer func() { seen.rely(seen.end()) }()
	}
	got, by, err := e.ask(ctx, snap.forms, q, now)
	q.done()
	switch {
	case err != nil:
		return answer{}, by, err
	case got.decided != nil:
		return *got.decided, by, nil
	}
	a := answer{about: &authzen.ResponseContext{}}
	if a.allow, err = decisionOf(got, a.about); err != nil {
		return answer{}, by, errFailed.Because(err)
	}
	a.about.Outcome = authzen.OutcomeOf(a.allow, a.about.Reasons)
	snap.because.tell(&a)
	return a, by, nil
}

// properties is what the policy may believe of the object: the answer of a declared look-up, or else what the enforcement
// point sent, for which nil stands. Nothing is asked for that the policy does not look at.
func (s *snapshot) properties(ctx context.Context, r authzen.Resource, looksUp bool) (map[string]any, error) {
	switch {
	case looksUp:
		found, err := s.lookups.Find(ctx, r.Type, r.ID)
		if found == nil {
			found = map[string]any{}
		}
		return found, err
	case s.lookups.Declared(r.Type):
		return map[string]any{}, nil
	default:
		return nil, nil //nolint:nilnil // see above
	}
}
