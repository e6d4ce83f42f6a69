package engine

import (
	"context"
	"fmt"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/open-policy-agent/opa/v1/version"

	"github.com/gatehouse-auth/gatehouse/internal/fault"
	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
)

// OPAVersion is that of the OPA in this program, as "1.22.2".
func OPAVersion() string { return version.Version }

// maxPrepared bounds the prepared queries of one snapshot; each takes some 10 KB.
const maxPrepared = 256

// documents prepares queries for the paths that are asked for. It lives and dies with its snapshot.
type documents struct {
	compiler *ast.Compiler
	store    storage.Store

	mu      sync.Mutex
	queries map[string]*rego.PreparedEvalQuery
}

// Document answers the value of a rule or of data, for the policies that decide now. The input is the caller's word: no look-up
// is made, and input.context.time is what the caller says. As in Evaluate a builtin that fails, a time-out and a panic are
// errors; an undefined document is not, for it is an answer of OPA's Data API. The answer carries the decision's id and the
// policies' revision also when there is an error.
func (e *Engine) Document(ctx context.Context, q dataapi.Question) (doc dataapi.Document, err error) {
	snap := e.current.Load()
	doc = dataapi.Document{DecisionID: e.opts.NewID()}
	if snap == nil {
		return doc, errNotLoaded
	}
	doc.Revision = snap.revision
	defer func() {
		if p := recover(); p != nil {
			err = errFailed.Because(fmt.Errorf("panic: %v", p))
		}
		if err != nil {
			doc.Value, doc.Defined = nil, false
		}
	}()
	now := e.opts.Now()
	if _, deny := e.stale(now); deny {
		return doc, errStale
	}
	seen, err := e.consult(snap.looksAt, &authzen.Request{}, now)
	if doc.DirectoryRevision = seen.word(); err != nil {
		return doc, err
	}
	if e.directoryStale(now) {
		return doc, errDirectoryStale
	}
	opts := []rego.EvalOption{rego.EvalTime(now), rego.EvalMetrics(metrics.NoOp()), rego.EvalParsedInput(nil)}
	if q.HasInput {
		input, err := ast.InterfaceToValue(q.Input)
		if err != nil {
			return doc, fault.New(fault.Invalid, "The input holds a value that is not JSON.").Because(err)
		}
		opts[2] = rego.EvalParsedInput(input)
	}
	ctx, cancel := context.WithTimeout(seen.in(ctx, looksAt{directory: true}), e.opts.Deadline)
	defer cancel()
	query, err := snap.documents.prepared(ctx, refOf(q.Path))
	if err != nil {
		return doc, errFailed.Because(fmt.Errorf("prepare: %w", err))
	}
	within, end := e.span(ctx, "evaluate")
	results, err := e.eval(within, *query, opts...)
	end(err)
	if err != nil {
		return doc, errFailed.Because(placeOf(err))
	}
	if len(results) == 1 && len(results[0].Expressions) == 1 {
		doc.Value, doc.Defined = results[0].Expressions[0].Value, true
	}
	return doc, nil
}

// refOf reads whole numbers as places in arrays, as OPA does.
func refOf(path []string) ast.Ref {
	ref := make(ast.Ref, 1, len(path)+1)
	ref[0] = ast.DefaultRootDocument
	for _, segment := range path {
		if i, ok := util.Atoi64(segment); ok {
			ref = append(ref, ast.IntNumberTerm(int(i)))
			continue
		}
		ref = append(ref, ast.StringTerm(segment))
	}
	return ref
}

// prepared answers the query for ref. When there are too many it forgets any one: paths that are asked for often come back.
func (d *documents) prepared(ctx context.Context, ref ast.Ref) (*rego.PreparedEvalQuery, error) {
	name := ref.String()
	d.mu.Lock()
	q, ok := d.queries[name]
	d.mu.Unlock()
	if ok {
		return q, nil
	}
	made, err := rego.New(rego.ParsedQuery(ast.NewBody(ast.NewExpr(ast.NewTerm(ref)))), rego.Compiler(d.compiler), rego.Store(d.store),
		rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.queries) >= maxPrepared {
		for old := range d.queries {
			delete(d.queries, old)
			break
		}
	}
	d.queries[name] = &made
	return &made, nil
}
