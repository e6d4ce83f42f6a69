package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/pdp/pace"
)

// backlog does work that nobody waits for, one piece after the other. The goroutine for it ends when there is none left.
type backlog struct {
	mu     sync.Mutex
	todo   []func(context.Context)
	done   chan struct{} // closed when the goroutine ends; nil if there is none
	cancel func()        // what it does
	closed bool
}

func (b *backlog) do(work func(context.Context)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	b.todo = append(b.todo, work)
	if b.done == nil {
		var ctx context.Context
		ctx, b.cancel = context.WithCancel(context.Background())
		b.done = make(chan struct{})
		go b.work(ctx)
	}
}

func (b *backlog) work(ctx context.Context) {
	for {
		b.mu.Lock()
		if len(b.todo) == 0 || b.closed {
			b.cancel()
			close(b.done)
			b.done, b.todo = nil, nil
			b.mu.Unlock()
			return
		}
		next := b.todo[0]
		b.todo = b.todo[1:]
		b.mu.Unlock()
		next(ctx)
	}
}

// wait returns when there is no work. After stop there never is.
func (b *backlog) wait() {
	b.mu.Lock()
	done := b.done
	b.mu.Unlock()
	if done != nil {
		<-done
	}
}

func (b *backlog) stop() {
	b.mu.Lock()
	if b.closed = true; b.done != nil {
		b.cancel()
	}
	b.mu.Unlock()
	b.wait()
}

// answered is how many decisions and documents there have been.
func (e *Engine) answered() uint64 {
	hits, _ := e.Remembered()
	return hits + e.counts.native.Load() + e.counts.partial.Load() + e.counts.topdown.Load()
}

// GivingWay is for work of one goroutine that must not make decisions late.
func (e *Engine) GivingWay(ctx context.Context) context.Context {
	return pace.In(ctx, pace.New(e.opts.Gauge.Asked))
}

// hasten makes the fast forms of a path while plain ones go on answering.
func (e *Engine) hasten(d *documents, path []string, plain rego.PreparedEvalQuery) {
	e.later.do(func(until context.Context) {
		ctx := e.GivingWay(until)
		ref := refOf(path)
		defer func() {
			if p := recover(); p != nil {
				e.opts.Log.ErrorContext(ctx, "no fast form was made", "rule", ref.String(), "error", fmt.Errorf("panic: %v", p))
			}
		}()
		f := e.quicken(ctx, d, nil, ref, plain)
		if ctx.Err() != nil {
			return
		}
		d.keep(path, f)
		e.tell(ctx, f)
	})
}

// takeoverTime bounds the work on what is asked for often, before a snapshot decides. The rest is done when it is asked for again.
const takeoverTime = 2 * time.Second

// takeOver prepares the documents that were asked of the snapshot before, so that nobody waits for that after the swap.
func (e *Engine) takeOver(ctx context.Context, d *documents, before *snapshot) {
	if before == nil {
		return
	}
	before.documents.mu.Lock()
	asked := maps.Clone(before.documents.queries)
	before.documents.mu.Unlock()
	names := slices.SortedFunc(maps.Keys(asked), func(a, b string) int { // those that are asked for often first
		if asked[a].settled != asked[b].settled {
			if asked[a].settled {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	spent := pace.Watch(ctx)
	for _, name := range names {
		if spent() > takeoverTime {
			return
		}
		path := pathNamed(name)
		f, err := plainForms(ctx, d, refOf(path))
		if err != nil {
			continue // who asks is told
		}
		if asked[name].settled {
			f = e.quicken(ctx, d, nil, refOf(path), f.plain)
		}
		d.keep(path, f)
		pace.Breathe(ctx)
	}
}

func plainForms(ctx context.Context, d *documents, ref ast.Ref) (*forms, error) {
	plain, err := rego.New(rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ref)))), rego.Compiler(d.compiler), rego.Store(d.store),
		rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	return &forms{rule: ref.String(), plain: plain, why: d.origins(ref)}, err
}

// breathing lets decisions go first between the longer stages of a compilation.
func breathing(ctx context.Context, c *ast.Compiler) *ast.Compiler {
	for _, stage := range []ast.StageID{
		ast.StageResolveRefs, ast.StageSetRuleTree, ast.StageRewriteLocalVars, ast.StageRewriteExprTerms, ast.StageSetGraph,
		ast.StageCheckRuleConflicts, ast.StageCheckSafetyRuleBodies, ast.StageRewriteDynamicTerms, ast.StageCheckTypes, ast.StageBuildRuleIndices,
	} {
		c = c.WithStageAfterID(stage, ast.CompilerStageDefinition{Name: "Breathe", MetricName: "breathe", Stage: func(*ast.Compiler) *ast.Error {
			pace.Breathe(ctx)
			return nil
		}})
	}
	return c
}

// breather lets decisions go first between the steps of an evaluation.
type breather struct{ ctx context.Context } //nolint:containedctx // it lives as long as one call

func (breather) Enabled() bool { return true }

func (b breather) TraceEvent(topdown.Event) { pace.Breathe(b.ctx) }

func (breather) Config() topdown.TraceConfig { return topdown.TraceConfig{} }
