// Package native compiles Rego rules to Go closures.
//
// What it takes are rules as OPA's compiler leaves them: complete rules with else and default, functions, sets that rules add to,
// comprehensions, every, not; unification of what is known with patterns of variables, arrays and objects; references into the
// input, the data, other rules and local values, and iteration over these; and the builtins of builtin.go, the common ones in Go
// and others by OPA's own implementation. Anything else (with, partial objects, rules that lie within data, unification of two
// sides that are both unknown, …) is not compiled, and Compile says what it was.
//
// Why an answer can be trusted. OPA's compiler orders a body so that each expression has what it needs, so what is bound where is
// known before anything runs. A rule sees nothing but its input and data, and no rule can reach itself, so that evaluation is a
// walk through nested loops, and the value of a rule is worked out once and kept. The one thing that the walk's extent can change
// is which errors are met, as builtins fail and complete rules conflict. A program here goes through at least what topdown goes
// through: it leaves out only what topdown does as well (behind the first solution of a rule whose values are all the same
// constant, and of every), and what cannot fail. And whatever fails here, or is of a form that is not known here, is not answered
// at all: Eval answers ErrAskTopdown. So there is no error text and no rule about errors that must be the same in two places.
//
// Besides, the engine compares the answers of a program with those of topdown before it puts it in force, and FuzzProgram does with
// generated policies.
package native

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

// ErrAskTopdown says that a program has no answer to this question, whatever the reason.
var ErrAskTopdown = errors.New("native: not answered")

var errNotHere = errors.New("has no counterpart")

// Input is what a question is about.
type Input interface {
	// At answers what stands at a path of object members, as encoding/json decodes it with UseNumber; false if there is nothing.
	At(path []string) (any, bool)
}

// JSON is an Input that was decoded from JSON.
type JSON struct{ Value any }

// At implements Input.
func (j JSON) At(path []string) (any, bool) {
	v := j.Value
	for _, name := range path {
		object, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = object[name]; !ok {
			return nil, false
		}
	}
	return v, true
}

// Nothing is the Input of a question that has none.
type Nothing struct{}

// At implements Input.
func (Nothing) At([]string) (any, bool) { return nil, false }

// Program answers one reference. It is safe for concurrent use.
type Program struct {
	root   value
	inputs [][]string
	reads  []Reader // by input
	slots  int
	docs   int
	fixed  map[uintptr]int // constant objects by their address, which they keep: places in constants
	plain  []any           // constants, as they are answered
	frames sync.Pool
}

// Reader answers what stands at one path of inputs, as Input.At does.
type Reader func(Input) (any, bool)

// ReadBy has the parts of inputs read by what is made once for each path, instead of by Input.At; before the program is asked.
func (p *Program) ReadBy(made func(path []string) Reader) {
	for i, path := range p.inputs {
		p.reads[i] = made(path)
	}
}

// Answer is the value of a program's reference for an input.
type Answer struct {
	Value    any // as encoding/json would decode it, sets as sorted arrays; it may share parts with data and input
	Defined  bool
	Constant int // which of Program.Constants it is; -1 for none of them
}

// Constants are the objects that are written in rules and that the program can answer.
func (p *Program) Constants() []any { return p.plain }

// Compile makes a program of the rules, or data, at ref. The compiler has compiled its modules; data is what the rules see, as
// encoding/json decodes it with UseNumber, and is used as it is: nothing may change it. A Relation or a Source may stand for an object in it;
// what else it holds is not compiled. The error says what is not.
func Compile(c *ast.Compiler, data map[string]any, ref ast.Ref) (*Program, error) {
	p := &Program{}
	b := &builder{compiler: c, data: data, program: p, inputs: map[string]int{}, rules: map[string]*rules{}}
	root, err := (&scope{builder: b, slots: map[ast.Var]int{}}).value(ast.NewTerm(ref))
	if err != nil {
		return nil, err
	}
	if p.slots > maxSlots {
		return nil, fmt.Errorf("%d variables are too many", p.slots)
	}
	p.root = root
	p.fixed = map[uintptr]int{}
	for _, m := range b.objects {
		p.fixed[reflect.ValueOf(m).Pointer()] = len(p.plain)
		p.plain = append(p.plain, plain(m))
	}
	return p, nil
}

// maxSlots bounds the variables of a program; each takes 16 bytes in every evaluation under way.
const maxSlots = 1 << 16

// Eval answers the value for an input, as Ask does.
func (p *Program) Eval(ctx context.Context, in Input, limit time.Duration) (v any, defined bool, err error) {
	a, err := p.Ask(ctx, in, limit)
	return a.Value, a.Defined, err
}

// Ask answers for an input. The error is ErrAskTopdown, or a *Stopped of that of the context once it has ended; of
// context.DeadlineExceeded after limit.
func (p *Program) Ask(ctx context.Context, in Input, limit time.Duration) (a Answer, err error) {
	f, _ := p.frames.Get().(*frame)
	if f == nil {
		f = &frame{program: p, vars: make([]any, p.slots), inputs: make([]any, len(p.inputs)), docs: make([]any, p.docs)}
	}
	for i := range f.inputs {
		f.inputs[i] = unasked
	}
	for i := range f.docs {
		f.docs[i] = unasked
	}
	f.ctx, f.in, f.steps, f.limit, f.until = ctx, in, 0, limit, time.Time{}
	defer func() {
		switch stopped := recover().(type) {
		case nil:
			f.in, f.ctx = nil, nil
			p.frames.Put(f)
		case late:
			err = stopped.err
		case bail:
			err = fmt.Errorf("%w: %s", ErrAskTopdown, stopped.why)
		default: // topdown knows better
			err = fmt.Errorf("%w: panic: %v", ErrAskTopdown, stopped)
		}
	}()
	v := p.root(f)
	if v == undefined {
		return Answer{Constant: -1}, nil
	}
	if m, ok := v.(map[string]any); ok {
		if i, ok := p.fixed[reflect.ValueOf(m).Pointer()]; ok {
			return Answer{p.plain[i], true, i}, nil
		}
	}
	return Answer{plain(v), true, -1}, nil
}

// unasked is what a frame holds of a rule or input that nothing has asked for yet.
var unasked any = &struct{ _ uint16 }{}

// frame is the state of one evaluation.
type frame struct {
	program *Program

	vars   []any // by slot; which are set is known from where in a rule one is
	inputs []any // values of Program.inputs
	docs   []any // values of rules
	in     Input
	ctx    context.Context //nolint:containedctx // a frame is one evaluation
	steps  int

	limit time.Duration
	until time.Time // zero before the first look at the clock
}

// Stopped is the error of an evaluation that its context or its limit has ended. After is how long it had been in loops.
type Stopped struct {
	Err   error
	After time.Duration
}

func (s *Stopped) Error() string { return s.Err.Error() }

func (s *Stopped) Unwrap() error { return s.Err }

// late is panicked with when the context has ended.
type late struct{ err *Stopped }

// step counts a turn of a loop; what has no loops needs no clock.
func (f *frame) step() {
	if f.steps++; f.steps&0x3ff == 0 {
		f.look()
	}
}

func (f *frame) look() {
	now := time.Now()
	switch err := f.ctx.Err(); {
	case err != nil && f.until.IsZero():
		panic(late{&Stopped{Err: err}})
	case err != nil:
		panic(late{&Stopped{err, now.Sub(f.until) + f.limit}})
	case f.until.IsZero():
		f.until = now.Add(f.limit)
	case now.After(f.until):
		panic(late{&Stopped{context.DeadlineExceeded, now.Sub(f.until) + f.limit}})
	}
}

// value works out the one value of a term, or undefined.
type value func(*frame) any

// rest is what follows: it answers true to say that no more solutions are wanted.
type rest func(*frame) (enough bool)

// stage makes an expression from what follows it.
type stage func(rest) rest

// chain puts stages before what follows them.
func chain(stages []stage, then rest) rest {
	for i := len(stages) - 1; i >= 0; i-- {
		then = stages[i](then)
	}
	return then
}
