package engine

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/util"
	"github.com/open-policy-agent/opa/v1/version"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
	"github.com/gatehouse-auth/gatehouse/pdp/dataapi"
	"github.com/gatehouse-auth/gatehouse/pdp/native"
	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// OPAVersion is that of the OPA in this program, as "1.22.2".
func OPAVersion() string { return version.Version }

// often is how many questions for a path make it worth having fast forms of.
const often = 16

// maxPrepared bounds the prepared queries of one snapshot; each takes some 10 KB.
const maxPrepared = 256

// documents prepares queries for the paths that are asked for. It lives and dies with its snapshot.
type documents struct {
	compiler *ast.Compiler
	store    storage.Store
	data     map[string]any // the same as in the store
	names    ruleid.Names

	once sync.Once
	made []any      // inputs to compare forms by
	seen *consulted // and the directory beside them

	mu      sync.Mutex
	queries map[string]*forms
}

// Document answers the value of a rule or of data, for the policies that decide now. The input is the caller's word: no look-up
// is made, and input.context.time is what the caller says. As in Evaluate a builtin that fails, a time-out and a panic are
// errors; an undefined document is not, for it is an answer of OPA's Data API. The answer carries the decision's id and the
// policies' revision also when there is an error.
func (e *Engine) Document(ctx context.Context, q dataapi.Question) (doc dataapi.Document, err error) {
	snap := e.current.Load()
	doc = dataapi.Document{DecisionID: e.newID(new(idText), time.Now())}
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
	seen, err := e.consult(&snap.looksAt, &authzen.Request{}, now)
	if doc.DirectoryRevision = seen.word(); err != nil {
		return doc, err
	}
	if e.directoryStale(now) {
		return doc, errDirectoryStale
	}
	ctx, noting := seen.reading(ctx)
	f, err := e.prepared(ctx, &snap.documents, q.Path)
	if err != nil {
		return doc, errFailed.Because(fmt.Errorf("prepare: %w", err))
	}
	within, end := e.span(ctx, "evaluate")
	got, by, err := e.ask(within, f, document{native.JSON{Value: q.Input}, q.HasInput, noting}, now)
	end(err)
	doc.Value, doc.Defined, doc.EvaluatedBy = got.value, got.defined, by
	if err == nil && refuses(got.value) {
		doc.Rules = f.why().Of(got.value)
	}
	return doc, err
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

// prepared answers the forms for a path. When there are too many it forgets any one: paths that are asked for often come back.
func (e *Engine) prepared(ctx context.Context, d *documents, path []string) (*forms, error) {
	d.mu.Lock()
	f, ok := d.queries[nameOf(path)]
	d.mu.Unlock()
	if ok {
		if !f.settled && f.asked.Add(1) == often {
			e.hasten(d, path, f.plain)
		}
		return f, nil
	}
	within, cancel := context.WithTimeout(ctx, e.opts.Deadline)
	defer cancel()
	f, err := plainForms(within, d, refOf(path))
	if err != nil {
		return nil, err
	}
	d.keep(path, f)
	return f, nil
}

// keep has a path be answered by f from here on.
func (d *documents) keep(path []string, f *forms) {
	name := nameOf(path)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.queries[name] == nil && len(d.queries) >= maxPrepared {
		for old := range d.queries {
			delete(d.queries, old)
			break
		}
	}
	if d.queries[name] == nil || f.settled { // many may come for the same at once
		d.queries[name] = f
	}
}

func nameOf(path []string) string { return strings.Join(path, "\x00") }

func pathNamed(name string) []string {
	if name == "" {
		return nil
	}
	return strings.Split(name, "\x00")
}
