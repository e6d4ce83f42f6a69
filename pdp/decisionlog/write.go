package decisionlog

import (
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/decisionlog/spool"
)

// batch is frames that are written together. Whoever waits for one of them waits for done.
type batch struct {
	frames []byte
	count  int
	done   chan struct{}
	err    error // set before done is closed
}

func newBatch(frames []byte) *batch { return &batch{frames: frames[:0], done: make(chan struct{})} }

var (
	errBufferFull = errors.New("too many records wait")
	errEnded      = errors.New("the decision log has ended")
)

// append puts a frame into the batch that is written next and, unless records may be dropped, returns when that is written.
func (j *Journal) append(ctx context.Context, frame []byte) error {
	mine, room, err := j.enqueue(frame)
	if err != nil || mine == nil && room == nil {
		return err
	}
	if mine != nil && !mine.isDone() && j.joined.Load() {
		runtime.Gosched() // behind who writes
	}
	if mine != nil && mine.isDone() { // as most are, and to measure their time costs more
		return mine.err
	}
	if j.opts.WhenFull == Block && j.opts.Wait > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, j.opts.Wait)
		defer cancel()
	}
	for mine == nil {
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
		if mine, room, err = j.enqueue(frame); err != nil {
			return err
		}
	}
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *batch) isDone() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// enqueue puts a frame into the batch that is written next, and sees to it that it is. It answers the batch if there is something
// to wait for or, where there was no room, what tells that there may be.
func (j *Journal) enqueue(frame []byte) (mine *batch, room <-chan struct{}, err error) {
	j.mu.Lock()
	b := j.batch
	switch {
	case j.ended:
		j.mu.Unlock()
		return nil, nil, errEnded
	case len(b.frames) > 0 && len(b.frames)+len(frame) > j.opts.Buffer:
		defer j.mu.Unlock()
		if j.opts.WhenFull != Block {
			return nil, nil, errBufferFull
		}
		if j.room == nil {
			j.room = make(chan struct{})
		}
		return nil, j.room, nil
	}
	b.frames = append(b.frames, frame...)
	b.count++
	stuck := len(j.stuck) > 0
	j.mu.Unlock()
	if j.opts.WhenFull == Drop {
		j.awake()
		return nil, nil, nil
	}
	if stuck || j.opts.Sync == 0 { // to flush takes long
		j.awake()
	} else {
		j.lead()
	}
	return b, nil, nil
}

// awake has the writer look for something to write.
func (j *Journal) awake() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// mostLed bounds how many batches one decision writes before it is answered.
const mostLed = 8

// lead writes what waits, unless somebody does, who then looks again.
func (j *Journal) lead() {
	for range mostLed {
		if !j.pen.TryLock() {
			return
		}
		if j.joined.Load() {
			runtime.Gosched() // so that who else is about to record something comes along: to write once for all costs less
		}
		j.turn()
		j.mu.Lock()
		more := j.leads()
		j.mu.Unlock()
		if !more {
			return
		}
	}
	j.awake()
}

// turn writes what waits, and lays the pen down, also in a panic: who holds it for ever stops all decisions.
func (j *Journal) turn() {
	defer j.pen.Unlock()
	j.mu.Lock()
	var b *batch
	if j.leads() {
		b = j.swap()
	}
	j.mu.Unlock()
	if b != nil {
		j.attempt(b)
	}
}

// leads reports whether there is something to write for who comes by. What is stuck is written first, and by the writer, as is what
// has to be flushed before anybody is told. mu is held.
func (j *Journal) leads() bool { return j.batch.count > 0 && len(j.stuck) == 0 && j.opts.Sync != 0 }

// patience is how many batches of one record there may be before nobody is waited for any more.
const patience = 64

// measure learns from a batch whether others come along. The pen is held.
func (j *Journal) measure(count int) {
	switch {
	case count > 1:
		j.alone = 0
		if !j.joined.Load() {
			j.joined.Store(true)
		}
	case j.joined.Load():
		if j.alone++; j.alone > patience {
			j.joined.Store(false)
		}
	}
}

// attempt writes a batch, or leaves what cannot be written now to the writer, which has the time. The pen is held.
func (j *Journal) attempt(b *batch) {
	j.measure(b.count)
	n, err := j.spool.Append(b.frames)
	if err == nil {
		j.crowded.Store(nil)
		j.keep(b.frames)
		close(b.done)
		return
	}
	b.frames = b.frames[n:]
	j.mu.Lock()
	j.stuck = append(j.stuck, b)
	j.mu.Unlock()
	j.awake()
}

// keep has the next batch use the memory of one that is written. The pen is held.
func (j *Journal) keep(frames []byte) {
	if j.spare = frames; cap(frames) > 2<<20 {
		j.spare = nil // a burst should not be kept for ever
	}
}

// write is the goroutine that writes what nobody else does.
func (j *Journal) write(ctx context.Context) {
	for {
		select {
		case <-j.wake:
			j.flushAll(ctx)
			j.lead() // for who came meanwhile, and left it to whoever held the pen
		case <-ctx.Done():
			return
		}
	}
}

// flushAll writes what could not be written before, and then what waits.
func (j *Journal) flushAll(ctx context.Context) {
	j.pen.Lock()
	defer j.pen.Unlock()
	j.mu.Lock()
	all := j.stuck
	j.mu.Unlock()
	for _, b := range all {
		j.flush(ctx, b)
	}
	j.mu.Lock()
	j.stuck = nil
	b := j.swap()
	j.mu.Unlock()
	j.flush(ctx, b)
	j.keep(b.frames)
}

// swap takes the batch over and begins another. The pen and mu are held.
func (j *Journal) swap() *batch {
	b := j.batch
	j.batch, j.spare = newBatch(j.spare), nil
	if j.room != nil {
		close(j.room)
		j.room = nil
	}
	return b
}

// flush writes a batch and lets go whoever waits for it.
func (j *Journal) flush(ctx context.Context, b *batch) {
	defer close(b.done)
	if b.count == 0 {
		return
	}
	frames := b.frames
	for told := false; ; {
		room := j.spool.Room()
		n, err := j.spool.Append(frames)
		frames = frames[n:]
		if err == nil {
			j.crowded.Store(nil)
			break
		}
		j.crowded.Store(&err)
		if !told {
			j.opts.Log.ErrorContext(ctx, "decision log: records cannot be spooled", "when_full", string(j.opts.WhenFull), "error", err)
			told = true
		}
		if j.opts.WhenFull != Block || ctx.Err() != nil {
			j.giveUp(ctx, b, frames, err)
			break
		}
		again := time.NewTimer(100 * time.Millisecond) // a disk may recover by itself
		select {
		case <-room:
		case <-again.C:
		case <-ctx.Done():
		}
		again.Stop()
	}
	if j.opts.Sync == 0 {
		if err := j.spool.Sync(); err != nil && b.err == nil {
			b.err = err
		}
	}
}

// giveUp leaves the rest of a batch. Nobody waits for it where records may be dropped.
func (j *Journal) giveUp(ctx context.Context, b *batch, rest []byte, err error) {
	if j.opts.WhenFull != Drop {
		b.err = err
		return
	}
	lost := uint64(spool.Count(rest))
	j.counts.dropped.Add(lost)
	j.opts.Log.ErrorContext(ctx, "decision log: records dropped", "count", lost)
}

// syncEvery flushes from time to time, beside the writer, so that no decision waits for it.
func (j *Journal) syncEvery(ctx context.Context) {
	if j.opts.Sync <= 0 {
		return
	}
	tick := time.NewTicker(j.opts.Sync)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := j.spool.Sync(); err != nil {
				j.opts.Log.ErrorContext(ctx, "decision log: the spool could not be flushed", "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}
