package engine

import (
	"context"
	"io/fs"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// RuleValues is what evaluations keep the values of rules in.
func RuleValues() topdown.VirtualCache {
	c := &ruleValues{}
	c.reset()
	return c
}

// Known is how many kinds of denials the engine knows the rules of.
func (e *Engine) Known() int {
	b := e.current.Load().because
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.known)
}

// Tell has an engine say by which rules a denial came to be.
func (e *Engine) Tell(about *authzen.ResponseContext) {
	e.current.Load().because.tell(&answer{about: about})
}

// Speechless has an engine not say by which rules denials come to be.
func (e *Engine) Speechless() {
	s := e.current.Load()
	s.because = nil
	for _, a := range s.forms.decided {
		if a != nil {
			a.about.Rules = nil
		}
	}
}

// Kept is how many decisions are remembered, and how many bytes they count for.
func (e *Engine) Kept() (n, bytes int) {
	a := e.current.Load().answers
	for i := range a.shards {
		a.shards[i].mu.RLock()
		n += len(a.shards[i].known)
		bytes += a.shards[i].size
		a.shards[i].mu.RUnlock()
	}
	return n, bytes
}

// Prepared is how many queries of documents are kept.
func (e *Engine) Prepared() int {
	d := &e.current.Load().documents
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queries)
}

// GiveTests gives tests and cases another time to end in.
func (e *Engine) GiveTests(d time.Duration) {
	e.loading.Lock()
	defer e.loading.Unlock()
	e.opts.Tests = d
}

// Retry tries again what failed for want of time, as Run does with each look.
func (e *Engine) Retry(ctx context.Context) { e.retry(ctx) }

// Settle waits until nothing goes on in the background.
func (e *Engine) Settle() { e.later.wait() }

// Occupy takes every processor that policies are evaluated on, until the answered function is called.
func (e *Engine) Occupy() (leave func()) {
	var all []int
	for range e.lanes.held {
		all = append(all, <-e.lanes.free)
	}
	return func() {
		for _, i := range all {
			e.lanes.free <- i
		}
	}
}

// Held is how many places for evaluations are taken: of all, and of those that kinds of questions have of their own.
func (e *Engine) Held() (shared, own int) {
	e.lanes.mu.Lock()
	defer e.lanes.mu.Unlock()
	for _, t := range e.lanes.troubles {
		own += len(t.places)
	}
	return len(e.lanes.held) - len(e.lanes.free), own
}

// Crowded reports whether every place is taken, or was taken away.
func (e *Engine) Crowded() bool { return len(e.lanes.free) == 0 || e.lanes.some.Load() > 0 }

// TakeNative makes an engine answer by another's native code.
func (e *Engine) TakeNative(other *Engine) {
	f, from := e.current.Load().forms, other.current.Load().forms
	f.native, f.decided = from.native, from.decided
}

// AskRego has an engine answer through package rego alone, with all of the input.
func (e *Engine) AskRego() {
	f := e.current.Load().forms
	f.native, f.written, f.partial = nil, nil, nil
}

// DoubtAlways has topdown asked for every native answer.
func (e *Engine) DoubtAlways() { e.again = 1 }

// CheckNative compares another's native code with topdown, as when policies come into force, and answers what was found.
func (e *Engine) CheckNative(other *Engine) string {
	s := e.current.Load()
	f := &forms{plain: s.forms.plain, native: other.current.Load().forms.native}
	probes, seen := s.documents.probes()
	ctx := context.WithValue(context.Background(), consultedKey{}, seen)
	expected := askAll(ctx, regoOf(&f.plain), probes, time.Minute)
	f.checkNative(ctx, probes, expected, seen)
	return f.wrong
}

// Trial answers whether a partially evaluated form that takes so long is asked after its trial against the plain one, and after
// how many questions the trial is over.
func Trial(partial, plain time.Duration) (won bool, questions int) {
	var t trial
	for !t.over.Load() {
		questions++
		is, took := t.next()
		if is {
			took(partial)
		} else {
			took(plain)
		}
	}
	won, _ = t.next()
	return won, questions
}

// DataAt answers an object of the data that decides now.
func (e *Engine) DataAt(path ...string) map[string]any {
	data := e.current.Load().documents.data
	for _, name := range path {
		data, _ = data[name].(map[string]any)
	}
	return data
}

// Read answers what stands at a path of a question's input, as native programs read it, as it is looked for, and as topdown is given it.
func Read(r authzen.Request, looked map[string]any, path []string) (read, found, given any, err error) {
	q := askedAbout(r, looked, time.Unix(0, 0))
	defer q.done()
	read, found = gone, gone
	if v, ok := readerOf(path)(q); ok {
		read = v
	}
	if v, ok := q.At(path); ok {
		found = v
	}
	whole, err := q.term()
	if err != nil {
		return nil, nil, nil, err
	}
	ref := make(ast.Ref, len(path))
	for i, name := range path {
		ref[i] = ast.StringTerm(name)
	}
	v, err := whole.Find(ref)
	if err != nil {
		return read, found, gone, nil //nolint:nilerr // it is not there
	}
	given, err = ast.JSON(v)
	return read, found, given, err
}

// gone is the value of what is not there.
const gone = "(gone)"

// MergeRules makes one of rules that differ in one text.
func MergeRules(all []*ast.Rule) []*ast.Rule { return mergeRules(all) }

// RelationAt answers what stands in the place of a large object of the data that decides now, nil for another.
func (e *Engine) RelationAt(path ...string) *relation {
	r, _ := e.DataAt(path[:len(path)-1]...)[path[len(path)-1]].(*relation)
	return r
}

// ReadData reads a data file, and answers what it holds without relations, and whether there were any.
func ReadData(ctx context.Context, text []byte, large int, rooted bool) (v any, relations bool, err error) {
	v, err = readData(ctx, text, large, rooted)
	return expanded(v), hasRelations(v), err
}

func hasRelations(v any) bool {
	switch v := v.(type) {
	case *relation:
		return true
	case map[string]any:
		for _, member := range v {
			if hasRelations(member) {
				return true
			}
		}
	}
	return false
}

// ReadFiles reads a folder of which some was read before.
func ReadFiles(ctx context.Context, files fs.FS, before map[string][]byte) (map[string][]byte, error) {
	return read(ctx, files, before)
}

// UUIDOf is the text of a decision id.
func UUIDOf(ms int64, a, b uint64) string {
	var text idText
	text.write(ms, a, b)
	return string(text[:])
}

// Answers are remembered decisions whose keys are given places by a test.
type Answers struct{ *answers }

// NewAnswers remembers in so many bytes.
func NewAnswers(bytes int) Answers { return Answers{newAnswers(bytes, new(tallies))} }

// Keep remembers an allowance for a reason.
func (a Answers) Keep(hash uint64, key, reason string) {
	a.keep(hash, []byte(key), answer{allow: true, about: &authzen.ResponseContext{Reasons: []string{reason}}})
}

// Recall answers the reason, "" where nothing is remembered.
func (a Answers) Recall(hash uint64, key string) string {
	found, ok := a.recall(hash, []byte(key), &consulted{})
	if !ok {
		return ""
	}
	return found.about.Reasons[0]
}

// Size is what its shards count, and what is in them.
func (a Answers) Size() (counted, kept int) {
	for i := range a.shards {
		counted += a.shards[i].size
		for _, r := range a.shards[i].known {
			kept += sizeOf(len(r.key), r.answer)
		}
	}
	return counted, kept
}

// DataValues is what evaluations keep in which they read data, of which objects of more members than large stand apart, and what the
// store itself reads, nil for nothing.
func DataValues(ctx context.Context, data map[string]any, large int, opaValues bool) (kept topdown.BaseCache, read func(ast.Ref) (ast.Value, error), err error) {
	s, _, err := storeOf(data, large, nil, inmem.OptReturnASTValuesOnRead(opaValues))
	if err != nil {
		return nil, nil, err
	}
	t, err := s.NewTransaction(ctx)
	if err != nil {
		return nil, nil, err
	}
	fixed, err := fixedOf(ctx, s, t)
	return &dataValues{fixed: fixed}, func(ref ast.Ref) (ast.Value, error) {
		path, err := storage.NewPathForRef(ref)
		if err != nil {
			return nil, err
		}
		v, err := s.Read(ctx, t, path)
		if err != nil {
			return nil, err
		}
		if v, ok := v.(ast.Value); ok {
			return v, nil
		}
		return ast.InterfaceToValue(v)
	}, err
}

// Forget is between two evaluations.
func Forget(c topdown.BaseCache) { c.(*dataValues).reset() }
