package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
)

// query is a reference that topdown is asked for without package rego around it: of the input there is only what the rules can look
// at, all evaluations read in one transaction, for nothing ever writes, and no timer or goroutine watches over them.
type query struct {
	body     ast.Body
	names    ast.QueryCompiler
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction
	data     fixedData   // of the store
	all      bool        // rules are evaluated behind the first that holds, so that whatever can fail does
	parts    *inputParts // nil: the input as a whole
	runs     sync.Pool   // of *run

	written map[ast.Object]said // decisions that stand in rules as they are, by themselves: topdown answers with the rule's own value
}

// mostWritten bounds the decisions that are read before anybody asks.
const mostWritten = 1024

// decides has decisions that stand in the rules behind a reference read once, and not each time.
func (q *query) decides(ref ast.Ref) {
	q.written = map[ast.Object]said{}
	for _, r := range q.compiler.GetRulesExact(ref) {
		for ; r != nil && len(q.written) < mostWritten; r = r.Else {
			if r.Head.Value == nil {
				continue
			}
			object, ok := r.Head.Value.Value.(ast.Object)
			if !ok || !ast.IsConstant(object) {
				continue
			}
			v, err := ast.JSON(object)
			if err != nil {
				continue
			}
			if decided := decisionsOf([]any{v})[0]; decided != nil {
				q.written[object] = said{value: v, defined: true, decided: decided}
			}
		}
	}
}

// saidBy is what topdown found.
func (q *query) saidBy(found ast.Value) (said, error) {
	if object, ok := found.(ast.Object); ok && q.written != nil {
		if s, ok := q.written[object]; ok {
			return s, nil
		}
	}
	v, err := ast.JSON(found)
	return said{value: v, defined: err == nil}, err
}

// answered is the variable of a query.
const answered = ast.Var("answered")

// queryOf prepares ref. The input is cut down to parts.
func queryOf(ctx context.Context, compiler *ast.Compiler, store storage.Store, ref ast.Ref, parts *inputParts) (*query, error) {
	q := &query{compiler: compiler, store: store, parts: parts, names: compiler.QueryCompiler()}
	var err error
	if q.body, err = q.names.Compile(ast.NewBody(ast.Equality.Expr(ast.NewTerm(answered), ast.NewTerm(ref)))); err != nil {
		return nil, err
	}
	if q.txn, err = store.NewTransaction(ctx); err != nil {
		return nil, err
	}
	q.data, err = fixedOf(ctx, store, q.txn)
	return q, err
}

// ask evaluates, until a moment of the process's clock. stopped says that this or the context ended it.
func (q *query) ask(ctx context.Context, in input, now, until time.Time) (answer said, stopped bool, err error) {
	r, _ := q.runs.Get().(*run)
	if r == nil {
		r = &run{data: dataValues{fixed: q.data}, nothing: map[string]any{}}
	}
	r.values.reset()
	r.data.reset()
	r.over = overdue{ctx: ctx, until: until}
	asked := topdown.NewQuery(q.body).WithQueryCompiler(q.names).WithCompiler(q.compiler).WithStore(q.store).WithTransaction(q.transaction(ctx)).
		WithMetrics(metrics.NoOp()).WithStrictBuiltinErrors(true).WithTime(now).WithEarlyExit(!q.all).WithCancel(&r.over).WithVirtualCache(&r.values).WithBaseCache(&r.data).WithRequestMetadata(r.nothing)
	var shown *shownInput
	if q.parts != nil {
		shown = q.parts.show(in)
		asked = asked.WithInput(shown.root())
	} else {
		v, err := in.term()
		if err != nil {
			return said{}, false, notJSON(err)
		}
		if v != nil {
			asked = asked.WithInput(ast.NewTerm(v))
		}
	}
	var found *ast.Term
	err = asked.Iter(ctx, func(result topdown.QueryResult) error {
		found = result[answered]
		return nil
	})
	switch {
	case err != nil && r.over.err != nil:
		stopped = true
		err = errFailed.Because(fmt.Errorf("%w: %w", placeOf(err), r.over.err))
	case shown != nil && shown.err != nil:
		err = notJSON(shown.err)
	case err != nil:
		err = errFailed.Because(placeOf(err))
	case found != nil:
		if answer, err = q.saidBy(found.Value); err != nil {
			err = errFailed.Because(err)
		}
	}
	if shown != nil {
		shown.done()
	}
	r.over.ctx = nil
	q.runs.Put(r)
	return answer, stopped, err
}

// run is what an evaluation needs and the next one can use.
type run struct {
	values ruleValues
	data   dataValues
	over   overdue

	nothing map[string]any // which topdown would make each time
}

func notJSON(err error) error {
	return fault.New(fault.Invalid, "The request holds a value that is not JSON.").Because(err)
}

func (q *query) transaction(ctx context.Context) storage.Transaction {
	if s, ok := q.store.(*store); ok && s.directory != nil {
		return s.seenBy(ctx, inner(q.txn))
	}
	return q.txn
}

// overdue ends an evaluation that nobody waits for any more. Topdown asks it before every expression; it looks at the clock at some of them.
type overdue struct {
	ctx   context.Context //nolint:containedctx // it lives as long as the evaluation
	until time.Time
	turns uint
	err   error
}

// Cancelled implements topdown.Cancel.
func (o *overdue) Cancelled() bool {
	if o.turns++; o.turns&0xf == 1 && o.err == nil {
		if o.err = o.ctx.Err(); o.err == nil && time.Now().After(o.until) {
			o.err = context.DeadlineExceeded
		}
	}
	return o.err != nil
}

// Cancel implements topdown.Cancel.
func (o *overdue) Cancel() { o.err = context.Canceled }
