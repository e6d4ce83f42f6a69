package decisionlog

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// WhenFull is what happens to a decision that cannot be recorded, because the spool is full or the disk fails.
type WhenFull string

// The choices. With Block and Fail a decision is answered once its record is in the spool, with Drop at once.
const (
	Block WhenFull = "block" // it waits for room, as long as the enforcement point does and Options.Wait lets it; then as Fail
	Fail  WhenFull = "fail"  // it is denied, with ErrUnrecorded
	Drop  WhenFull = "drop"  // it is answered, and the loss counted and told
)

// ErrUnrecorded is why a decision is denied that could not be recorded.
var ErrUnrecorded = fault.New(fault.Unavailable, "The decision could not be recorded.").Named("decision_log_unavailable")

// Options is what a Journal is made of.
type Options struct {
	Dir      string // of the spool
	MaxBytes int64  // of the spool; see package spool
	WhenFull WhenFull
	Wait     time.Duration // how long a decision may wait with Block; 0 is as long as the enforcement point does
	// Sync says when records are flushed to the disk, so that they survive the end of the machine and not only that of the
	// process: 0 before each is acknowledged, more than 0 at least so often, less than 0 when the system likes.
	Sync  time.Duration
	Masks *Masks
	// MaskBy, if there is one, answers masks for one record beside Masks, which have been applied to what it sees. Where it fails,
	// input, result and what was looked up are erased whole.
	MaskBy func(ctx context.Context, record []byte) ([]Mask, error)
	Rates  Rates
	Labels map[string]string
	Sinks  map[string]Sink // by name; the journal closes them
	Log    *slog.Logger
	Now    func() time.Time // default time.Now

	Linger time.Duration // how long a shipper waits for more records behind the first; default 250 ms
	Grace  time.Duration // for shipping, once Run is to end; default 2 s
	Buffer int           // bytes that wait to be spooled; default 16 MiB
}

// Journal records decisions: it encodes them where they are made, writes them in batches to a spool, and ships them from there to
// its sinks. It is safe for concurrent use.
//
// Who has to wait for a record writes it, with those of all others that came meanwhile, unless somebody is writing already: to wake
// another goroutine for it costs more than the write. Where several are recorded at the same moment who writes gives way first, so
// that there is one write for all who are about to come. A goroutine of its own writes where nobody waits or a write takes long.
type Journal struct {
	opts     Options
	labels   []byte
	spool    *spool.Spool
	shippers []*shipper
	scratch  sync.Pool // of *encoder
	counts   counts
	crowded  atomic.Pointer[error] // why the last records could not be spooled; nil when they were

	joined atomic.Bool // several records were written together lately

	pen   sync.Mutex // held by who writes to the spool
	spare []byte     // memory for the next batch; under pen
	alone int        // batches of one record since the last of more; under pen

	mu    sync.Mutex
	batch *batch
	stuck []*batch // could not be written by who waits for them
	ended bool
	room  chan struct{} // closed when the batch has been taken over to be written; nil while nobody waits for that
	wake  chan struct{}
}

// counts are what metrics tell.
type counts struct {
	permit, deny, notApplicable, indeterminate, document atomic.Uint64 // records that were made, by outcome
	dropped, refused                                     atomic.Uint64 // of these: not spooled, and the decision answered or denied
}

func (c *counts) of(outcome string) *atomic.Uint64 {
	switch outcome {
	case Permit:
		return &c.permit
	case NotApplicable:
		return &c.notApplicable
	case Indeterminate:
		return &c.indeterminate
	case Document:
		return &c.document
	}
	return &c.deny
}

// Open opens the spool. Nothing is shipped before Run.
func Open(opts Options) (*Journal, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Masks == nil {
		opts.Masks = &Masks{root: &maskNode{}}
	}
	opts.Linger = cmp.Or(opts.Linger, 250*time.Millisecond)
	opts.Grace = cmp.Or(opts.Grace, 2*time.Second)
	opts.Buffer = cmp.Or(opts.Buffer, 16<<20)
	switch opts.WhenFull {
	case Block, Fail, Drop:
	default:
		return nil, errors.New("decision log: when full: block, drop or fail")
	}
	labels, err := json.Marshal(opts.Labels)
	if err != nil {
		return nil, fmt.Errorf("decision log: labels: %w", err)
	}
	if opts.Labels == nil {
		labels = []byte("{}")
	}
	j := &Journal{opts: opts, labels: labels, batch: newBatch(nil), wake: make(chan struct{}, 1)}
	j.scratch.New = func() any { return &encoder{} }
	if err := opts.Rates.Validate(); err != nil {
		return nil, fmt.Errorf("decision log: sample: %w", err)
	}
	var names []string
	for name := range opts.Sinks {
		names = append(names, name)
	}
	if j.spool, err = spool.Open(spool.Options{Dir: opts.Dir, MaxBytes: opts.MaxBytes, Readers: names, Lazy: opts.Sync != 0, Log: opts.Log}); err != nil {
		return nil, fmt.Errorf("decision log: %w", err)
	}
	for name, sink := range opts.Sinks {
		j.shippers = append(j.shippers, newShipper(j, name, sink))
	}
	return j, nil
}

// Records reports whether Record would make a record of such a decision.
func (j *Journal) Records(outcome, route, id string) bool {
	_, sampled := j.opts.Rates.sampled(route, id)
	return outcome != Permit || sampled
}

// Record records a denial, and an allowance if it is sampled. With Block and Fail it returns once the record is in the spool; an
// error is in the chain of ErrUnrecorded and means that the decision must not be answered. With Drop it never waits and never
// fails.
func (j *Journal) Record(ctx context.Context, e *Event) error {
	rate := 1.0
	if e.Outcome == Permit {
		var sampled bool
		if rate, sampled = j.opts.Rates.sampled(e.Route, e.DecisionID); !sampled {
			return nil
		}
	}
	enc, _ := j.scratch.Get().(*encoder)
	enc.reset(spool.AppendFrame(enc.dst[:0]), j.opts.Masks)
	enc.appendRecord(e, j.labels, rate)
	if j.opts.MaskBy != nil {
		j.maskBy(ctx, enc, e, rate)
	}
	err := spool.Seal(enc.dst, 0, j.opts.Now())
	if err == nil {
		err = j.append(ctx, enc.dst)
	}
	if cap(enc.dst) > 2*maxRecord {
		enc.dst = nil // one large record should not be kept for ever
	}
	j.scratch.Put(enc)
	j.counts.of(e.Outcome).Add(1)
	switch {
	case err == nil:
		return nil
	case j.opts.WhenFull == Drop:
		j.counts.dropped.Add(1)
		return nil
	}
	j.counts.refused.Add(1)
	return ErrUnrecorded.Because(err)
}

// MasksOf answers what is hidden of one decision: what the masks and MaskBy would hide of its record. It is for those who keep
// something of a decision elsewhere.
func (j *Journal) MasksOf(ctx context.Context, e Event) *Masks {
	if j.opts.MaskBy == nil {
		return j.opts.Masks
	}
	rate := 1.0
	if e.Outcome == Permit {
		rate, _ = j.opts.Rates.sampled(e.Route, e.DecisionID)
	}
	enc := &encoder{}
	enc.reset(nil, j.opts.Masks)
	enc.appendRecord(&e, j.labels, rate)
	masks, _ := j.masksBy(ctx, enc.dst, &e)
	return masks
}

// masksBy answers the masks, and whether MaskBy hides more of a record than they did when it was written.
func (j *Journal) masksBy(ctx context.Context, record []byte, e *Event) (masks *Masks, more bool) {
	list, err := j.opts.MaskBy(ctx, record)
	if err == nil && len(list) == 0 {
		return j.opts.Masks, false
	}
	if err == nil {
		if masks, err = j.opts.Masks.and(list); err != nil {
			err = errors.New("a mask cannot be applied") // its pointer may have been made of input
		}
	}
	if err != nil {
		j.opts.Log.ErrorContext(ctx, "decision log: what to mask is not known; input and result are erased", "decision_id", e.DecisionID, "error", err)
		masks = everything()
	}
	return masks, true
}

// maskBy writes the record in enc once more where MaskBy hides more of it.
func (j *Journal) maskBy(ctx context.Context, enc *encoder, e *Event, rate float64) {
	frame := len(spool.AppendFrame(nil))
	masks, more := j.masksBy(ctx, enc.dst[frame:], e)
	if !more {
		return
	}
	enc.reset(enc.dst[:frame], masks)
	enc.appendRecord(e, j.labels, rate)
}

// Run writes and ships until ctx ends, then writes what waits, ships as much as the grace allows, and closes everything. What is
// not shipped by then is shipped after the next start.
func (j *Journal) Run(ctx context.Context) error {
	shipping, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var all sync.WaitGroup
	for _, s := range j.shippers {
		all.Go(func() { s.run(shipping) })
	}
	all.Go(func() { j.syncEvery(ctx) })
	j.write(ctx)
	j.mu.Lock()
	j.ended = true
	j.mu.Unlock()
	j.flushAll(ctx) // what came in between
	last := time.AfterFunc(j.opts.Grace, stop)
	defer last.Stop()
	for _, s := range j.shippers {
		s.finish()
	}
	all.Wait()
	errs := []error{j.spool.Close()}
	for _, s := range j.shippers {
		errs = append(errs, s.sink.Close())
	}
	return errors.Join(errs...)
}

// Ready answers nil, or a fault named "degraded" that says what is wrong with the log.
func (j *Journal) Ready() error {
	degraded := func(detail string) error { return fault.New(fault.Unavailable, detail).Named("degraded") }
	if err := j.crowded.Load(); err != nil {
		s := j.spool.Stats()
		if !errors.Is(*err, spool.ErrFull) || s.Limit-s.Bytes <= spool.MaxRecord {
			return degraded("Decisions cannot be recorded: the spool is full, or its disk fails.")
		}
	}
	for _, s := range j.shippers {
		if s.failing.Load() {
			return degraded("A sink takes no records; they wait in the spool.")
		}
	}
	return nil
}
