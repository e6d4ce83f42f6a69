// Package engine decides by Rego policies with OPA inside the process.
//
// All that a decision depends on (rules, data, declared look-ups) is one immutable snapshot, built aside and swapped in whole.
// A snapshot that does not parse, compile under strict checks, keep its own tests and deny by default never replaces one that
// does; Ready then says so while the old one goes on deciding. Policies see only their input and data: every builtin that
// could reach outside or answer differently twice (http.send, net.lookup_ip_addr, opa.runtime, time.now_ns, …) is taken away
// (S62), and the clock is input.context.time. So a decision is made once for all inputs that are alike in what the rules can
// look at, and remembered for as long as its snapshot decides.
//
// Evaluate never turns a failure into a pass: an undefined or malformed decision, a time-out and a panic are errors, for which
// the caller must deny (S56). They are told apart from what a rule denies and from what no rule covers (authzen.Outcome).
package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// Defaults of Options.
const (
	DefaultDeadline = 100 * time.Millisecond
	DefaultPoll     = 250 * time.Millisecond
)

// Options is what an Engine is made of. Either Policies or Dir must be given.
type Options struct {
	Policies fs.FS               // the policy folder
	Dir      string              // the policy folder on disk
	Services map[string][]string // service name of a look-up's URL → base URLs, tried in turn
	Memory   int                 // bytes that remembered decisions may take; default 32 MiB, negative for none
	Deadline time.Duration       // for one evaluation, look-ups not counted; default 100 ms
	Poll     time.Duration       // how often Run looks for changed files; default 250 ms
	Now      func() time.Time    // default time.Now
	NewID    func() string       // decision ids; default UUIDv7
	Log      *slog.Logger        // default slog.Default
}

// Engine decides. It is safe for concurrent use.
type Engine struct {
	opts    Options
	files   fs.FS
	http    *http.Client
	current atomic.Pointer[snapshot]
	lookups lookup.Counts
	slots   chan struct{} // held while a policy is evaluated; look-ups wait without one

	keys         sync.Pool
	hits, misses atomic.Uint64

	loading sync.Mutex
	seen    string // fingerprint of the files that were last tried

	telling  sync.Mutex // of what follows; never held while policies are built
	failure  error      // why the newest files do not decide; nil when they do
	since    time.Time
	loads    uint64
	failures uint64
}

// Open loads the policies. It fails when they do not load: an engine always has something to decide by.
func Open(ctx context.Context, opts Options) (*Engine, error) {
	if opts.Deadline == 0 {
		opts.Deadline = DefaultDeadline
	}
	if opts.Memory == 0 {
		opts.Memory = DefaultMemory
	}
	if opts.Poll == 0 {
		opts.Poll = DefaultPoll
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.NewID == nil {
		opts.NewID = newID
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	e := &Engine{opts: opts, files: opts.Policies, http: lookup.NewClient(), slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	if e.files == nil {
		if opts.Dir == "" {
			return nil, errors.New("engine: neither policies nor a folder of them")
		}
		e.files = os.DirFS(opts.Dir)
	}
	if err := e.Reload(ctx); err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	return e, nil
}

// newID makes a UUIDv7 (RFC 9562 section 5.7). It need not be secret, and asking the kernel for each costs more than some
// decisions do.
func newID() string {
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16|rand.Uint64()&0xffff) //nolint:gosec // see above
	binary.BigEndian.PutUint64(id[8:], rand.Uint64())                                           //nolint:gosec // see above
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// Remembered answers how many decisions were remembered, and how many had to be made, since the start.
func (e *Engine) Remembered() (hits, misses uint64) { return e.hits.Load(), e.misses.Load() }

// Close drops idle connections to the services of look-ups. Run does so when it ends.
func (e *Engine) Close() { e.http.CloseIdleConnections() }

// Revision names the policies that decide now: 16 hexadecimal digits of the SHA-256 of their files.
func (e *Engine) Revision() string { return e.current.Load().revision }

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

// eval evaluates when there is a processor for it. To have more evaluations under way than processors would make each of them
// later; and those that wait here can be counted and bounded, where those in the scheduler's own queue cannot.
func (e *Engine) eval(ctx context.Context, query rego.PreparedEvalQuery, opts ...rego.EvalOption) (rego.ResultSet, error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for a processor: %w", ctx.Err())
	}
	defer func() { <-e.slots }()
	return query.Eval(ctx, opts...)
}

// Evaluate decides. The context's time is the engine's own, whatever the request says. The answer carries the decision's id and
// the policies' revision also when there is an error.
func (e *Engine) Evaluate(ctx context.Context, r authzen.Request) (res authzen.Response, err error) {
	snap := e.current.Load()
	about := &authzen.ResponseContext{Revision: snap.revision, DecisionID: e.opts.NewID()}
	defer func() {
		if p := recover(); p != nil {
			err = errFailed.Because(fmt.Errorf("panic: %v", p))
		}
		if err != nil {
			*about = authzen.ResponseContext{Outcome: authzen.Indeterminate, Revision: about.Revision, DecisionID: about.DecisionID}
			res = authzen.Response{Context: about}
		}
	}()
	now := e.opts.Now()
	properties, err := snap.properties(ctx, r.Resource)
	if err != nil {
		e.opts.Log.WarnContext(ctx, "look-up failed; denied", "decision_id", about.DecisionID, "resource_type", r.Resource.Type, "error", err)
		about.Outcome, about.Reasons = authzen.Indeterminate, []string{"lookup_failed"}
		return authzen.Response{Context: about}, nil
	}
	clock := clockOf(now)
	buf, _ := e.keys.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	key, known := snap.looksAt.key((*buf)[:0], &r, properties, clock)
	defer func() {
		if *buf = key; cap(key) <= maxKey {
			e.keys.Put(buf)
		}
	}()
	if known = known && snap.answers != nil && len(key) <= maxKey; known {
		if a, ok := snap.answers.recall(key); ok {
			about.Reasons, about.Need, about.Obligations = a.about.Reasons, a.about.Need, a.about.Obligations
			about.Outcome = outcomeOf(a.allow, about.Reasons)
			about.Cache = snap.cacheable(r.Resource, now)
			return authzen.Response{Decision: a.allow, Context: about}, nil
		}
	}
	allow, err := e.decide(ctx, snap, r, properties, now, about)
	if err != nil {
		return res, err
	}
	if known {
		snap.answers.keep(key, answer{allow, &authzen.ResponseContext{Reasons: about.Reasons, Need: about.Need, Obligations: about.Obligations}})
	}
	about.Outcome = outcomeOf(allow, about.Reasons)
	about.Cache = snap.cacheable(r.Resource, now)
	return authzen.Response{Decision: allow, Context: about}, nil
}

// maxKey bounds the inputs that are remembered, in bytes of what can matter of them.
const maxKey = 8 << 10

// decide asks the policy and reads its decision into about.
func (e *Engine) decide(ctx context.Context, snap *snapshot, r authzen.Request, properties map[string]any, now time.Time, about *authzen.ResponseContext) (allow bool, err error) {
	input, err := inputOf(r, properties, clockOf(now))
	if err != nil {
		return false, fault.New(fault.Invalid, "The request holds a value that is not JSON.").Because(err)
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.Deadline)
	defer cancel()
	results, err := e.eval(ctx, snap.query, rego.EvalParsedInput(input), rego.EvalTime(now), rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return false, errFailed.Because(placeOf(err))
	}
	if allow, err = decisionOf(results, about); err != nil {
		return false, errFailed.Because(err)
	}
	return allow, nil
}

// Ready answers nil when the newest policies decide, and a fault named "degraded" that says what is wrong with them when older
// ones do.
func (e *Engine) Ready() error {
	e.telling.Lock()
	defer e.telling.Unlock()
	if e.failure == nil {
		return nil
	}
	return fault.New(fault.Unavailable, "The policies have changed but do not load; revision "+e.Revision()+
		" goes on deciding. "+oneLine(e.failure)).Named("degraded")
}

// Stats is how an engine is at one moment.
type Stats struct {
	Revision string
	Since    time.Time // when these policies began to decide
	Newest   bool      // whether they are the newest; false while newer ones do not load
	Loads    uint64    // policies that came into force
	Failures uint64    // policies that did not, each counted once
	Lookups  map[lookup.Count]uint64

	Hits, Misses uint64 // decisions that were remembered, or had to be made
}

// Stats tells how the engine is.
func (e *Engine) Stats() Stats {
	e.telling.Lock()
	defer e.telling.Unlock()
	return Stats{
		Revision: e.Revision(), Since: e.since, Newest: e.failure == nil, Loads: e.loads, Failures: e.failures, Lookups: e.lookups.All(),
		Hits: e.hits.Load(), Misses: e.misses.Load(),
	}
}

// properties is what the policy may believe of the object: the answer of a declared look-up, or else what the enforcement
// point sent. Nothing is asked for that the policy does not look at.
func (s *snapshot) properties(ctx context.Context, r authzen.Resource) (map[string]any, error) {
	switch {
	case s.looksUp(r):
		return s.lookups.Find(ctx, r.Type, r.ID)
	case s.lookups.Declared(r.Type):
		return map[string]any{}, nil
	default:
		return others(r.Properties, resourceMembers), nil
	}
}
