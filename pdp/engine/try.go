package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// attempt is a snapshot's query for Try, which has no part in decisions.
type attempt struct {
	of    *snapshot
	query rego.PreparedEvalQuery
}

// Try asks the policies that decide now as Evaluate does, at some time and by what is known of the resource; nil: by what a look-up
// finds now. What rules read of the directory is as it is now, but the subject is as it is given. Nothing is remembered of it, and nothing recalled.
func (e *Engine) Try(ctx context.Context, r authzen.Request, known map[string]any, now time.Time) (allow bool, about authzen.ResponseContext, err error) {
	snap := e.current.Load()
	if snap == nil {
		return false, about, errNotLoaded
	}
	defer func() {
		if p := recover(); p != nil {
			allow, err = false, errFailed.Because(fmt.Errorf("panic: %v", p))
		}
	}()
	if known == nil {
		if known, err = snap.properties(ctx, r.Resource, snap.looksUp(r.Resource)); err != nil {
			return false, about, err
		}
	}
	asked := r // who asks stays as it was given
	seen, err := e.consult(&snap.looksAt, &asked, now)
	if err != nil {
		return false, about, err
	}
	input, err := Input(r, known, now)
	if err != nil {
		return false, about, fault.New(fault.Invalid, "The request holds a value that is not JSON.").Because(err)
	}
	t := e.attempt.Load()
	if t == nil || t.of != snap {
		t = &attempt{of: snap}
		t.query, err = rego.New(rego.Query(Entrypoint), rego.Compiler(snap.documents.compiler), rego.Store(snap.documents.store),
			rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
		if err != nil {
			return false, about, errFailed.Because(err)
		}
		e.attempt.Store(t)
	}
	ctx, cancel := context.WithTimeout(ctx, e.opts.Deadline)
	defer cancel()
	results, err := t.query.Eval(seen.in(ctx, &snap.looksAt), rego.EvalParsedInput(input), rego.EvalTime(now), rego.EvalMetrics(metrics.NoOp()))
	if err != nil {
		return false, about, errFailed.Because(placeOf(err))
	}
	if allow, about, err = Decision(results); err == nil {
		snap.because.tell(&answer{allow: allow, about: &about})
	}
	return allow, about, err
}

// Reads is what the policies that decide now can look at.
func (e *Engine) Reads() Reads {
	if snap := e.current.Load(); snap != nil {
		return Reads{snap.looksAt}
	}
	return Reads{}
}
