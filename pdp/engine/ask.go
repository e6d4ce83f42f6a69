package engine

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// input is what a question is about, for either kind of form.
type input interface {
	native.Input
	term() (ast.Value, error) // nil if there is no input
	kind(rule string) kind
}

// document is the input of a question of OPA's Data API.
type document struct {
	native.JSON
	given bool
	seen  *consulted
}

func (d document) sees() *consulted { return d.seen }

func (d document) At(path []string) (any, bool) {
	if !d.given {
		return nil, false
	}
	return d.JSON.At(path)
}

func (d document) term() (ast.Value, error) {
	if !d.given {
		return nil, nil //nolint:nilnil // there is none, which is no failure
	}
	return ast.InterfaceToValue(d.Value)
}

func (q *question) term() (ast.Value, error) { return inputOf(q.request, q.known(), clockOf(q.now)) }

func (document) kind(rule string) kind { return kind{rule: rule} }

func (q *question) kind(rule string) kind {
	return kind{rule, q.request.Resource.Type, q.request.Action.Name}
}

// counts are of all evaluations since the start.
type counts struct {
	native, partial, topdown atomic.Uint64
	left                     atomic.Uint64 // by native programs, to topdown
	wrong                    atomic.Uint64 // answers of fast forms that were not topdown's
}

// ask answers by the fastest form that has an answer.
func (e *Engine) ask(ctx context.Context, f *forms, in input, now time.Time) (said, string, error) {
	fast, of := !f.dropped.Load(), in.kind(f.rule)
	if fast && f.native != nil {
		got, err := e.askNative(ctx, f, of, in)
		switch {
		case err == nil && e.doubted():
			return e.askTwice(ctx, f, of, got, in, now)
		case err == nil:
			e.counts.native.Add(1)
			return got, byNative, nil
		case !errors.Is(err, native.ErrAskTopdown):
			return said{}, byNative, errFailed.Because(err)
		}
		e.counts.left.Add(1)
	}
	partial, took := false, func(time.Duration) {}
	if fast && f.partial != nil {
		partial, took = f.trial.next()
	}
	start := time.Now()
	if partial {
		// Partial evaluation changes the order of things, so that a builtin may fail where topdown does not come to it.
		got, err := e.askTopdown(ctx, f.partial, of, in, now)
		took(time.Since(start))
		if err == nil || ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLate) {
			e.counts.partial.Add(1)
			return got, byPartial, err
		}
	}
	var got said
	var err error
	if f.written != nil && !f.dropped.Load() {
		got, err = e.askTopdown(ctx, f.written, of, in, now)
	} else {
		got, err = e.askOPA(ctx, &f.plain, of, in, now)
	}
	if !partial {
		took(time.Since(start))
	}
	e.counts.topdown.Add(1)
	return got, byTopdown, err
}

// askNative evaluates by Go code. It takes no place unless questions of its kind were slow.
func (e *Engine) askNative(ctx context.Context, f *forms, of kind, in input) (said, error) {
	own, err := e.lanes.suspects(of)
	if err != nil || own != nil {
		place, err := e.lanes.enterOwn(ctx, of, time.Now().Add(e.opts.Deadline), own, err)
		if err != nil {
			return said{}, err
		}
		stopped := true
		defer func() { e.lanes.leave(place, stopped) }()
		a, err := f.native.Ask(ctx, in, e.opts.Deadline)
		stopped = errors.As(err, new(*native.Stopped))
		return f.saidBy(a), err
	}
	a, err := f.native.Ask(ctx, in, e.opts.Deadline)
	if err == nil {
		return f.saidBy(a), nil
	}
	var stopped *native.Stopped
	if errors.As(err, &stopped) {
		e.lanes.ended(of, stopped.After, true)
	}
	return said{}, err
}

// saidBy is the answer of the native form.
func (f *forms) saidBy(a native.Answer) said {
	got := said{value: a.Value, defined: a.Defined}
	if a.Constant >= 0 && a.Constant < len(f.decided) {
		got.decided = f.decided[a.Constant]
	}
	return got
}

// askTwice has topdown confirm what a fast form said. If it does not, its own word holds, and the fast forms are not asked again.
func (e *Engine) askTwice(ctx context.Context, f *forms, of kind, got said, in input, now time.Time) (said, string, error) {
	by, err := e.askOPA(ctx, &f.plain, of, in, now)
	e.counts.topdown.Add(1)
	if err != nil && (ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLate)) { // topdown had no time to say
		return got, byNative, nil //nolint:nilerr // see above
	}
	if err == nil && by.like(got) {
		return by, byNative, nil
	}
	e.counts.wrong.Add(1)
	f.dropped.Store(true)
	e.opts.Log.ErrorContext(ctx, "a fast form answered otherwise than topdown; topdown decides from here on", "rule", f.rule)
	return by, byTopdown, err
}

// askTopdown evaluates when there is a processor for it, for as long as is left of the deadline. To have more evaluations under way
// than processors would make each of them later; and those that wait here can be counted and bounded, where those in the scheduler's
// own queue cannot.
func (e *Engine) askTopdown(ctx context.Context, q *query, of kind, in input, now time.Time) (said, error) {
	until := time.Now().Add(e.opts.Deadline)
	place, err := e.lanes.enter(ctx, of, until)
	if err != nil {
		return said{}, errFailed.Because(err)
	}
	stopped := true
	defer func() { e.lanes.leave(place, stopped) }()
	var got said
	got, stopped, err = q.ask(ctx, in, now, until)
	return got, err
}

// askOPA has package rego evaluate with all of the input, by which the other ways are judged.
func (e *Engine) askOPA(ctx context.Context, q *rego.PreparedEvalQuery, of kind, in input, now time.Time) (said, error) {
	v, err := in.term()
	if err != nil {
		return said{}, notJSON(err)
	}
	until := time.Now().Add(e.opts.Deadline)
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	place, err := e.lanes.enter(ctx, of, until)
	if err != nil {
		return said{}, errFailed.Because(err)
	}
	stopped := true
	defer func() { e.lanes.leave(place, stopped) }()
	results, err := q.Eval(ctx, rego.EvalParsedInput(v), rego.EvalTime(now), rego.EvalMetrics(metrics.NoOp()))
	if stopped = err != nil && ctx.Err() != nil; stopped {
		return said{}, errFailed.Because(fmt.Errorf("%w: %w", placeOf(err), ctx.Err()))
	}
	if err != nil {
		return said{}, errFailed.Because(placeOf(err))
	}
	return saidBy(results), nil
}

// tell logs how a rule is evaluated.
func (e *Engine) tell(ctx context.Context, f *forms) {
	if f.wrong != "" {
		e.counts.wrong.Add(1)
		e.opts.Log.ErrorContext(ctx, "a fast form was dropped", "rule", f.rule, "why", f.wrong)
	}
	e.opts.Log.InfoContext(ctx, "evaluating", "rule", f.rule, "by", f.name(), "not_native", f.notNative, "not_partial", f.notPartial)
}

// suspicion says for people what of the snapshot's fast forms cannot be trusted; "" if nothing.
func (s *snapshot) suspicion() string {
	s.documents.mu.Lock()
	all := []*forms{s.forms}
	for _, f := range s.documents.queries {
		all = append(all, f)
	}
	s.documents.mu.Unlock()
	for _, f := range all {
		switch {
		case f == nil:
		case f.wrong != "":
			return f.rule + ": " + f.wrong + ", and was dropped."
		case f.dropped.Load():
			return f.rule + ": a fast form answered a question otherwise than topdown, and was dropped."
		}
	}
	return ""
}
