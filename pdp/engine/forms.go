package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
	"github.com/gatehouse-auth/gatehouse/pdp/pace"
	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// What answered, in records of decisions and in metrics.
const (
	byTopdown = "topdown"    // OPA, of the rules as they are written
	byPartial = "partial"    // OPA, of what partial evaluation left of them
	byNative  = "native"     // Go closures
	byMemory  = "remembered" // from before
)

// Bounds of what is done to make policies fast when they come into force.
const (
	partialTime   = 2 * time.Second        // for partial evaluation
	partialKnown  = 256                    // members; what is larger stays unknown, or rules would be multiplied by users
	partialRules  = 20_000                 // that it may leave
	probeTime     = 300 * time.Millisecond // for all comparisons of one form
	maxProbes     = 512
	writtenProbes = 32
	smallData     = 4 << 20 // bytes of data that are kept as OPA's values too, which topdown reads twice as fast and which take five times the room
)

// dataBytes are those of the files that hold no rules.
func (ps parts) dataBytes() (n int) {
	for _, p := range ps {
		for name, text := range p.Files {
			if path.Ext(name) != ".rego" {
				n += len(text)
			}
		}
	}
	return n
}

// forms are the ways to the value of one reference: topdown always, and what is faster and answers the same.
type forms struct {
	rule    string                 // for people
	plain   rego.PreparedEvalQuery // by which the others are judged
	written *query                 // the rules as they are written
	partial *query
	trial   trial // of partial
	native  *native.Program
	decided []*answer // what native's constants decide; nil for one that is no decision
	why     func() *ruleid.Origins
	settled bool          // there are the fast forms that there will be
	asked   atomic.Uint32 // before
	dropped atomic.Bool   // a fast form was found to answer something else

	// What became of the fast forms, for people.
	notNative  string // why there is no native program
	notPartial string
	wrong      string // what a fast form answered otherwise
	late       error  // why topdown will not answer in time
}

// name tells which form is asked first.
func (f *forms) name() string {
	switch {
	case f.dropped.Load():
		return byTopdown
	case f.native != nil:
		return byNative
	case f.partial != nil && f.trial.won.Load():
		return byPartial
	}
	return byTopdown
}

// readBefore are the decisions that were read before anybody asks.
func (f *forms) readBefore() (all []*answer) {
	for _, a := range f.decided {
		if a != nil {
			all = append(all, a)
		}
	}
	for _, q := range []*query{f.written, f.partial} {
		if q == nil {
			continue
		}
		for _, s := range q.written {
			all = append(all, s.decided)
		}
	}
	return all
}

// quicken makes the fast forms of a reference, keeps those that answer as topdown does, and drops those that are not faster. It
// never fails: whatever goes wrong leaves topdown. Without modules, as parsed, there is no partial evaluation.
func (e *Engine) quicken(ctx context.Context, d *documents, modules map[string]*ast.Module, ref ast.Ref, plain rego.PreparedEvalQuery) *forms {
	f := &forms{rule: ref.String(), plain: plain, settled: true, why: d.origins(ref)}
	if !e.opts.NoNative {
		p, err := compileNative(d, ref)
		f.native = p
		if err != nil {
			f.notNative = err.Error()
		} else if f.rule == Entrypoint {
			f.decided = decisionsOf(p.Constants())
		}
		pace.Breathe(ctx)
	}
	probes, seen := d.probes()
	ctx = context.WithValue(ctx, consultedKey{}, seen) // and not what somebody's question sees, which may be under way
	pace.Breathe(ctx)
	expected := askAll(ctx, regoOf(&f.plain), probes, probeTime)
	if modules != nil && len(expected) < len(probes) {
		if f.late = e.neverInTime(ctx, &f.plain, probes[len(expected)]); f.late != nil {
			return f
		}
	}
	probes = probes[:len(expected)]
	if err := f.write(ctx, d, ref, probes, expected); err != nil {
		e.opts.Log.WarnContext(ctx, "a rule is asked for through package rego", "rule", f.rule, "error", err)
	}
	if f.native != nil {
		f.checkNative(ctx, probes, expected, seen)
	}
	if f.native == nil && modules != nil && !e.opts.NoPartial {
		f.tryPartial(ctx, d, modules, ref, probes, expected)
	}
	return f
}

// write prepares the rules as they are written, and has them answer a few of the questions to which the answers are known.
func (f *forms) write(ctx context.Context, d *documents, ref ast.Ref, probes []any, expected []said) error {
	reads, err := inputReads(d.compiler, ref)
	if err != nil {
		return err
	}
	q, err := queryOf(ctx, d.compiler, d.store, ref, reads)
	if err != nil {
		return err
	}
	if f.rule == Entrypoint {
		q.decides(ref)
	}
	for i, got := range askAll(ctx, q.of, probes[:min(len(probes), writtenProbes)], probeTime) {
		if !got.like(expected[i]) {
			f.wrong = fmt.Sprintf("topdown answers otherwise than through package rego for generated input %d", i)
			return errors.New(f.wrong)
		}
	}
	f.written = q
	return nil
}

func compileNative(d *documents, ref ast.Ref) (p *native.Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	if p, err = native.Compile(d.compiler, d.data, ref); err == nil {
		p.ReadBy(readerOf)
	}
	return p, err
}

// probes are made once; those of a document are the first of them.
func (d *documents) probes() ([]any, *consulted) {
	d.once.Do(func() {
		data, known := d.data, map[string]any(nil)
		if d.seen, known = d.madeUp(); known != nil {
			data = maps.Clone(data)
			data["directory"] = known
		}
		d.made = probesOf(d.compiler, data, maxProbes)
	})
	return d.made, d.seen
}

// said is an answer, to be compared.
type said struct {
	value   any
	defined bool
	failed  bool
	decided *answer // the same, read before
}

func (s said) like(o said) bool {
	return s.failed == o.failed && s.defined == o.defined && reflect.DeepEqual(s.value, o.value)
}

func regoOf(q *rego.PreparedEvalQuery) func(context.Context, any) said {
	return func(ctx context.Context, input any) said {
		results, err := q.Eval(ctx, rego.EvalInput(input), rego.EvalMetrics(metrics.NoOp()))
		if err != nil {
			return said{failed: true}
		}
		return saidBy(results)
	}
}

// of is what it says of JSON.
func (q *query) of(ctx context.Context, input any) said {
	got, _, err := q.ask(ctx, document{native.JSON{Value: input}, true, nil}, time.Now(), time.Now().Add(time.Minute))
	if err != nil {
		return said{failed: true}
	}
	return got
}

func saidBy(results rego.ResultSet) said {
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return said{}
	}
	return said{value: results[0].Expressions[0].Value, defined: true}
}

// askAll answers as many inputs as it can within a time of work.
func askAll(ctx context.Context, ask func(context.Context, any) said, inputs []any, within time.Duration) []said {
	all, spent := make([]said, 0, len(inputs)), pace.Watch(ctx)
	for _, in := range inputs {
		limited, cancel := context.WithTimeout(ctx, within-spent())
		got := ask(limited, in)
		late := limited.Err() != nil
		cancel()
		if late {
			break
		}
		all = append(all, got)
		pace.Breathe(ctx)
	}
	return all
}

// checkNative compares a program with topdown, and drops it when it differs or leaves most to topdown.
func (f *forms) checkNative(ctx context.Context, probes []any, expected []said, seen *consulted) {
	left := 0
	for i, p := range probes {
		v, defined, err := f.native.Eval(ctx, probe{native.JSON{Value: p}, seen}, time.Second)
		switch got := (said{value: v, defined: defined}); {
		case errors.Is(err, native.ErrAskTopdown):
			left++
		case err != nil: // it is late, where topdown was not
			f.native, f.notNative = nil, "it took too long"
			return
		case !got.like(expected[i]):
			f.native, f.wrong = nil, fmt.Sprintf("the native form answers otherwise than topdown for generated input %d", i)
			return
		}
		pace.Breathe(ctx)
	}
	if len(probes) > 0 && left == len(probes) {
		f.native, f.notNative = nil, "it left every question to topdown"
	}
}

// tryPartial evaluates the rules as far as they do not depend on the input, and keeps what is left if it is right.
func (f *forms) tryPartial(ctx context.Context, d *documents, modules map[string]*ast.Module, ref ast.Ref, probes []any, expected []said) {
	if at := withItself(d.compiler); at != "" {
		f.notPartial = at + ": something is compared with itself, of which partial evaluation forgets that it must be there"
		return
	}
	q, err := partially(ctx, d, modules, ref)
	if err != nil {
		f.notPartial = err.Error()
		return
	}
	answers := askAll(ctx, q.of, probes, 2*probeTime)
	for i, got := range answers {
		switch {
		case got.failed: // it is asked again then
		case expected[i].failed:
			f.notPartial = "builtins do not fail in it where they do in the rules as written"
			return
		case !got.like(expected[i]):
			f.wrong = fmt.Sprintf("the partially evaluated form answers otherwise than topdown for generated input %d", i)
			return
		}
	}
	if missed(ctx, regoOf(&f.plain), q.of, probes, expected) {
		f.notPartial = "it takes a part of the input for there that is not"
		return
	}
	f.partial = q
}

// withItself answers where rules compare something with itself. OPA leaves that out of what partial evaluation leaves of a rule that
// others read, so that what is undefined would be taken for true.
func withItself(c *ast.Compiler) (at string) {
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		ast.WalkExprs(c.Modules[name], func(e *ast.Expr) bool {
			if e.IsEquality() && e.Location != nil && !ast.IsConstant(e.Operand(0).Value) && e.Operand(0).Equal(e.Operand(1)) {
				at = fmt.Sprintf("%s:%d", e.Location.File, e.Location.Row)
			}
			return false
		})
	}
	return at
}

// trial finds out on real questions which of two forms is faster: made-up ones are mostly denied early, and say little.
type trial struct {
	over, won atomic.Bool
	turns     atomic.Uint32

	mu    sync.Mutex
	times [2][]time.Duration
}

// turnsEach is how many questions each form answers in a trial.
const turnsEach = 64

// next answers which form is to be asked, and what is to be told how long it took.
func (t *trial) next() (partial bool, took func(time.Duration)) {
	if t.over.Load() {
		return t.won.Load(), func(time.Duration) {}
	}
	turn := t.turns.Add(1) % 2
	return turn == 1, func(d time.Duration) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.times[turn] = append(t.times[turn], d)
		if len(t.times[0]) < turnsEach || len(t.times[1]) < turnsEach || t.over.Load() {
			return
		}
		for _, times := range t.times {
			slices.Sort(times)
		}
		t.won.Store(t.times[1][turnsEach/2] < t.times[0][turnsEach/2]*9/10)
		t.over.Store(true)
		t.times = [2][]time.Duration{}
	}
}

func partially(ctx context.Context, d *documents, modulesOf map[string]*ast.Module, ref ast.Ref) (q *query, err error) {
	defer func() {
		if r := recover(); r != nil {
			q, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, pace.Limit(ctx, partialTime))
	defer cancel()
	answer := ast.NewTerm(answered)
	options := []func(*rego.Rego){
		rego.ParsedQuery(ast.NewBody(ast.Equality.Expr(answer, ast.NewTerm(ref)))), rego.Compiler(d.compiler), rego.Store(d.store),
		rego.StrictBuiltinErrors(true), rego.Unknowns(append([]string{"input"}, large(d.data, "data")...)),
	}
	if pace.Paced(ctx) { // it costs time, and is the only way in
		options = append(options, rego.QueryTracer(breather{ctx}))
	}
	made := rego.New(options...)
	residue, err := made.Partial(ctx)
	if err != nil {
		return nil, err
	}
	n := len(residue.Queries)
	for _, m := range residue.Support {
		n += len(m.Rules)
	}
	if n > partialRules {
		return nil, fmt.Errorf("it leaves %d rules, more than %d", n, partialRules)
	}
	// What is left refers to the rules as well, so that they are compiled together; anew, for d's own must stay as they are.
	modules := map[string]*ast.Module{}
	for name, m := range modulesOf {
		modules[name] = m.Copy()
	}
	residual := &ast.Module{Package: &ast.Package{Path: ast.MustParseRef("data." + residualPackage)}}
	for _, body := range residue.Queries {
		residual.Rules = append(residual.Rules, &ast.Rule{Head: ast.NewHead("answer", nil, answer), Body: body, Module: residual})
	}
	modules["residual"] = residual
	for i, m := range residue.Support {
		m.Rules = mergeRules(m.Rules)
		modules[fmt.Sprintf("support %d", i)] = m
	}
	compiler := breathing(ctx, ast.NewCompiler().WithCapabilities(Capabilities()))
	if compiler.Compile(modules); compiler.Failed() {
		return nil, compiler.Errors
	}
	left := ast.MustParseRef("data." + residualPackage + ".answer")
	if named := onlyNames(residue.Queries, answer); named != nil {
		left = named
	}
	reads, err := inputReads(compiler, left)
	if err != nil {
		return nil, err
	}
	if q, err = queryOf(ctx, compiler, d.store, left, reads); err == nil {
		q.all = true // in the rules as written another one may come first, and fail
		if ref.String() == Entrypoint {
			q.decides(left)
		}
	}
	return q, err
}

// residualPackage holds what partial evaluation leaves.
const residualPackage = "gatehouse_residual"

// large names the parts of data with many members.
func large(v any, at string) (all []string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > partialKnown {
			return []string{at}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			all = append(all, large(v[name], at+"["+quoted(name)+"]")...)
		}
	case []any:
		if len(v) > partialKnown {
			return []string{at}
		}
	case nil, bool, string, json.Number:
	default: // a relation, or what else only the store can read
		return []string{at}
	}
	return all
}

func quoted(s string) string {
	b, _ := json.Marshal(s) // a string; it cannot fail
	return string(b)
}

// Of so many native answers topdown is asked for one as well.
const oneIn = 4096

// doubted reports whether this answer is that one.
func (e *Engine) doubted() bool { return rand.Uint32N(e.again) == 0 } //nolint:gosec // no secret
