package engine

import (
	"context"
	"time"

	"github.com/open-policy-agent/opa/v1/topdown"
)

// RuleValues is what evaluations keep the values of rules in.
func RuleValues() topdown.VirtualCache {
	c := &ruleValues{}
	c.reset()
	return c
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

// Crowded reports whether every place is taken, or was taken away.
func (e *Engine) Crowded() bool { return len(e.lanes.free) == 0 || e.lanes.some.Load() > 0 }

// TakeNative makes an engine answer by another's native code.
func (e *Engine) TakeNative(other *Engine) {
	e.current.Load().forms.native = other.current.Load().forms.native
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
	probes := s.documents.probes()
	expected := askAll(context.Background(), regoOf(&f.plain), probes, time.Minute)
	f.checkNative(context.Background(), probes, expected)
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
