// Package shadow decides a share of the live requests a second time, by a candidate for the policies, and remembers where the two
// disagree. Requests never wait for it: what there is no room for is left out, and counted.
//
// What it keeps of a request is an example per kind of disagreement, of which only that is left which one of the policies can look at,
// with the subject's id replaced and what the decision log hides of the record hidden, by its masks and its mask policy.
package shadow

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog"
	"github.com/gatehouse-auth/gatehouse/pdp/engine"
	"github.com/gatehouse-auth/gatehouse/pdp/recording"
	"github.com/gatehouse-auth/gatehouse/pdp/server"
)

// Bounds.
const (
	queue     = 1024 // requests that wait
	mostKinds = 1000 // kinds of disagreement that are told apart
)

// Options is what a Shadow is made of.
type Options struct {
	Dir    string         // the candidate's folder, watched
	Fed    *engine.Engine // the candidate in place of that, which somebody else gives its policies
	Share  float64
	Active *engine.Engine
	Engine engine.Options                                              // of the candidate, without its folder
	Masks  func(context.Context, decisionlog.Event) *decisionlog.Masks // what to hide of a decision, beside what is always left out; nil for nothing more
	Now    func() time.Time                                            // default time.Now
	Poll   time.Duration                                               // how often a candidate that does not load is looked at again; default 2 s
	Log    *slog.Logger
}

// Shadow compares. It is safe for concurrent use.
type Shadow struct {
	opts      Options
	items     chan item
	candidate atomic.Pointer[engine.Engine]
	dropped   atomic.Uint64

	mu     sync.Mutex
	pair   [2]string // revisions that are compared
	since  time.Time
	counts Counts
	kinds  map[string]*Disagreement
	more   int   // disagreements that there was no room to tell apart
	why    error // why there is no candidate
}

// item is a request that was decided.
type item struct {
	request  authzen.Request
	known    map[string]any
	at       time.Time
	was      bool
	reasons  []string
	revision string
	event    decisionlog.Event // as the decision log has it
}

// Counts are of requests since both policies have been as they are.
type Counts struct {
	Compared     uint64 `json:"compared"`
	Gains        uint64 `json:"gains"`
	Loses        uint64 `json:"loses"`
	OtherReasons uint64 `json:"other_reasons"` // decided alike
	Failed       uint64 `json:"failed"`        // the candidate could not decide, which denies
}

// Disagreement is a kind of requests that the candidate decides otherwise.
type Disagreement struct {
	ID        string          `json:"id"`
	Direction string          `json:"direction"` // gains or loses
	Who       string          `json:"who"`       // roles
	Action    string          `json:"action"`
	Resource  string          `json:"resource"`
	Before    string          `json:"before"` // the decision in force
	After     string          `json:"after"`
	Rules     []string        `json:"rules,omitempty"` // ids of those that the denial, before or after, came to be by
	Times     uint64          `json:"times"`
	First     time.Time       `json:"first"`
	Last      time.Time       `json:"last"`
	Example   authzen.Request `json:"-"` // masked
	Known     map[string]any  `json:"-"` // as well
	hidden    []string
}

// Status is how the comparison stands.
type Status struct {
	Active        string         `json:"active"`
	Candidate     string         `json:"candidate,omitempty"`
	Why           string         `json:"why,omitempty"` // there is none, or not its newest
	Share         float64        `json:"share"`
	Since         *time.Time     `json:"since,omitempty"`
	Counts        Counts         `json:"counts"`
	Dropped       uint64         `json:"dropped"` // for want of room, since the start
	NotToldApart  int            `json:"not_told_apart,omitempty"`
	Disagreements []Disagreement `json:"disagreements"`
}

// New makes a Shadow. Run makes it work.
func New(opts Options) (*Shadow, error) {
	if !(opts.Share > 0 && opts.Share <= 1) {
		return nil, errors.New("shadow: a share is above 0 and at most 1")
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Poll == 0 {
		opts.Poll = 2 * time.Second
	}
	s := &Shadow{opts: opts, items: make(chan item, queue), kinds: map[string]*Disagreement{}}
	if opts.Fed != nil {
		s.candidate.Store(opts.Fed)
	}
	return s, nil
}

// Wrap answers an engine that decides as e does, and shows what it decided.
func (s *Shadow) Wrap(e server.Engine) server.Engine { return &watched{e, s} }

type watched struct {
	server.Engine
	shadow *Shadow
}

// Evaluate implements server.Engine.
func (w *watched) Evaluate(ctx context.Context, r authzen.Request) (authzen.Response, error) {
	s := w.shadow
	at := s.opts.Now()
	res, err := w.Engine.Evaluate(ctx, r)
	if err != nil || res.Context == nil || res.Context.Outcome == authzen.Indeterminate || !s.compares() {
		return res, err
	}
	if s.opts.Share < 1 && rand.Float64() >= s.opts.Share { //nolint:gosec // a sample
		return res, err
	}
	event := recording.EventOf(ctx, at, r, res, nil)
	if res.Context.Subject != nil {
		r.Subject.Properties = res.Context.Subject // as the policy saw it
	}
	select {
	case s.items <- item{r, res.Context.LookedUp, at, res.Decision, res.Context.Reasons, res.Context.Revision, event}:
	default:
		s.dropped.Add(1)
	}
	return res, err
}

// compares reports whether there is a candidate that loads.
func (s *Shadow) compares() bool {
	e := s.candidate.Load()
	return e != nil && e.Revision() != ""
}

// Run loads the candidate, and loads it again when it changes, and compares until ctx ends.
func (s *Shadow) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { s.load(ctx) })
	for {
		select {
		case it := <-s.items:
			s.compare(ctx, it)
		case <-ctx.Done():
			return nil
		}
	}
}

// load opens the candidate once it can be, and then lets it watch its folder.
func (s *Shadow) load(ctx context.Context) {
	if s.opts.Fed != nil {
		_ = s.opts.Fed.Run(ctx) // it only ends with ctx
		return
	}
	opts := s.opts.Engine
	opts.Dir, opts.Policies, opts.Feeds, opts.Memory, opts.Log = s.opts.Dir, nil, nil, -1, s.opts.Log.With("policies", "candidate")
	tick := time.NewTicker(s.opts.Poll)
	defer tick.Stop()
	for {
		e, err := engine.Open(ctx, opts)
		if err == nil {
			s.say(nil)
			s.candidate.Store(e)
			s.opts.Log.InfoContext(ctx, "a candidate is compared", "revision", e.Revision(), "share", s.opts.Share)
			_ = e.Run(ctx) // it only ends with ctx
			return
		}
		s.say(err)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Shadow) say(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && (s.why == nil || s.why.Error() != err.Error()) {
		s.opts.Log.Warn("there is no candidate to compare", "error", err)
	}
	s.why = err
}

// Candidate is the policies that are compared; nil for none.
func (s *Shadow) Candidate() *engine.Engine { return s.candidate.Load() }

// Dir is the candidate's folder.
func (s *Shadow) Dir() string { return s.opts.Dir }

func (s *Shadow) compare(ctx context.Context, it item) {
	e := s.candidate.Load()
	if e == nil {
		return
	}
	revision := e.Revision()
	now, about, err := e.Try(ctx, it.request, it.known, it.at)
	if ctx.Err() != nil || revision != e.Revision() {
		return
	}
	// Nothing that a mask hides is kept, so what is hidden is known first.
	var masks *decisionlog.Masks
	if it.was != now {
		if masks = s.masks(ctx, it.event); ctx.Err() != nil || revision != e.Revision() {
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.begin(it.revision, revision)
	s.counts.Compared++
	if err != nil {
		s.counts.Failed++
	}
	if it.was == now {
		if word(it.was, it.reasons) != word(now, about.Reasons) && err == nil {
			s.counts.OtherReasons++
		}
		return
	}
	seen := read(it.event, masks)
	other := it.event
	other.Rules = about.Rules
	other.Result = authzen.Response{Decision: now, Context: &authzen.ResponseContext{Reasons: about.Reasons}}
	then := read(other, masks)
	d := Disagreement{Direction: "gains", Who: seen.who(), Action: orMasked(seen.Input.Action.Name), Resource: orMasked(seen.Input.Resource.Type), Before: word(it.was, seen.reasons()), After: word(now, then.reasons())}
	if d.Rules = texts(seen.Gatehouse.Rules); it.was {
		d.Rules = texts(then.Gatehouse.Rules)
	}
	if err != nil {
		d.After = "no decision"
	}
	if it.was {
		d.Direction = "loses"
		s.counts.Loses++
	} else {
		s.counts.Gains++
	}
	if strings.HasPrefix(seen.Input.Resource.ID, "/") {
		d.Resource = seen.Input.Resource.ID
	}
	key := sha256.Sum256([]byte(strings.Join([]string{d.Direction, d.Who, d.Action, d.Resource, d.Before, d.After}, "\x00")))
	d.ID = hex.EncodeToString(key[:4])
	known := s.kinds[d.ID]
	if known == nil {
		if len(s.kinds) >= mostKinds {
			s.more++
			return
		}
		d.First = it.at
		kept, looked := example(it, s.opts.Active.Reads(), e.Reads())
		shown := read(decisionlog.Event{Time: it.at, Outcome: decisionlog.Deny, Input: kept, LookedUp: looked}, masks)
		d.Example, d.Known, d.hidden = shown.Input, shown.Gatehouse.LookedUp, append(shown.Masked, shown.Erased...)
		known = &d
		s.kinds[d.ID] = known
	}
	known.Times++
	known.Last = it.at
}

// begin starts anew where one of the policies is another.
func (s *Shadow) begin(active, candidate string) {
	if pair := [2]string{active, candidate}; s.pair != pair {
		s.pair, s.since, s.counts, s.kinds, s.more = pair, s.opts.Now(), Counts{}, map[string]*Disagreement{}, 0
	}
}

func word(allow bool, reasons []string) string {
	if allow {
		return strings.Join(append([]string{"allow"}, reasons...), " ")
	}
	return strings.Join(append([]string{"deny"}, reasons...), " ")
}

// whoIs names a subject by its roles, or its type where it is no user.
func whoIs(r authzen.Request) string {
	var roles []string
	switch list := r.Subject.Properties["roles"].(type) {
	case []string:
		roles = slices.Clone(list)
	case []any:
		for _, one := range list {
			if role, ok := one.(string); ok {
				roles = append(roles, role)
			}
		}
	}
	slices.Sort(roles)
	switch {
	case r.Subject.Type != "user":
		return orMasked(r.Subject.Type)
	case len(roles) == 0:
		return "nobody's role"
	}
	return strings.Join(roles, " + ")
}

// Status tells how it stands.
func (s *Shadow) Status() Status {
	st := Status{Active: s.opts.Active.Revision(), Share: s.opts.Share, Dropped: s.dropped.Load(), Disagreements: []Disagreement{}}
	if e := s.candidate.Load(); e != nil {
		st.Candidate = e.Revision()
		if err := e.Ready(); err != nil {
			st.Why = err.Error()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.why != nil {
		st.Why = s.why.Error()
	}
	if s.pair != [2]string{st.Active, st.Candidate} {
		return st // nothing has been compared yet
	}
	st.Since, st.Counts, st.NotToldApart = &s.since, s.counts, s.more
	for _, d := range s.kinds {
		st.Disagreements = append(st.Disagreements, *d)
	}
	slices.SortFunc(st.Disagreements, func(a, b Disagreement) int {
		return cmp.Or(cmp.Compare(a.Direction, b.Direction), cmp.Compare(b.Times, a.Times), cmp.Compare(a.ID, b.ID))
	})
	return st
}

// Find answers the disagreement of an id.
func (s *Shadow) Find(id string) (Disagreement, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.kinds[id]
	if d == nil {
		return Disagreement{}, fmt.Errorf("there is no disagreement %q between the policies that are compared now", id)
	}
	return *d, nil
}
