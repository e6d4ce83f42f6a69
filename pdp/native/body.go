package native

import (
	"fmt"

	"github.com/open-policy-agent/opa/v1/ast"
)

// body compiles expressions in the order in which the compiler has put them.
func (s *scope) body(b ast.Body) ([]stage, error) {
	stages := make([]stage, 0, len(b))
	for i, expr := range b {
		var st stage
		var err error
		if i+1 < len(b) {
			st, err = s.join(b[i:])
		}
		if st == nil && err == nil {
			st, err = s.expr(expr)
		}
		if err != nil {
			return nil, err
		}
		if st != nil {
			stages = append(stages, st)
		}
	}
	return stages, nil
}

func (s *scope) expr(e *ast.Expr) (stage, error) {
	switch {
	case len(e.With) > 0:
		return nil, unsupported("with", e.Location)
	case e.Negated:
		return s.not(e)
	}
	switch t := e.Terms.(type) {
	case *ast.Term:
		return s.statement(t)
	case []*ast.Term:
		if e.IsEquality() {
			return s.unify(t[1], t[2], e.Location)
		}
		return s.call(t, e.Location)
	case *ast.Every:
		return s.every(t)
	}
	return nil, unsupported(fmt.Sprintf("an expression of type %T", e.Terms), e.Location)
}

// not goes through all that the expression has to offer, as topdown does.
func (s *scope) not(e *ast.Expr) (stage, error) {
	inner, err := s.inner().expr(e.ComplementNoWith())
	if err != nil {
		return nil, err
	}
	held := s.slot()
	run := inner(func(f *frame) bool { f.vars[held] = true; return false })
	return func(then rest) rest {
		return func(f *frame) bool {
			f.vars[held] = false
			run(f)
			if f.vars[held] == true {
				return false
			}
			return then(f)
		}
	}, nil
}

// statement is an expression that holds unless it is undefined or false.
func (s *scope) statement(t *ast.Term) (stage, error) {
	if !s.known(t) {
		ref, ok := t.Value.(ast.Ref)
		if !ok {
			return nil, unsupported("an expression with variables that are not bound yet", t.Location)
		}
		each, err := s.each(ref, t.Location)
		if err != nil {
			return nil, err
		}
		return func(then rest) rest {
			return each(func(f *frame, v any) bool { return v != false && then(f) })
		}, nil
	}
	v, err := s.value(t)
	if err != nil {
		return nil, err
	}
	return func(then rest) rest {
		return func(f *frame) bool {
			if x := v(f); x == undefined || x == false {
				return false
			}
			return then(f)
		}
	}, nil
}

// unify compiles `a = b`, of which one side at least is known.
func (s *scope) unify(a, b *ast.Term, loc *ast.Location) (stage, error) {
	knownA, knownB := s.known(a), s.known(b)
	switch {
	case knownA && knownB:
		x, err := s.value(a)
		if err != nil {
			return nil, err
		}
		y, err := s.value(b)
		if err != nil {
			return nil, err
		}
		return func(then rest) rest {
			return func(f *frame) bool {
				v, w := x(f), y(f) // both, for either may fail
				return v != undefined && w != undefined && equal(v, w) && then(f)
			}
		}, nil
	case knownB:
		return s.assign(a, b, loc)
	case knownA:
		return s.assign(b, a, loc)
	}
	// Neither is known: one goes through its values, and the other is a pattern for them.
	for _, pair := range [][2]*ast.Term{{a, b}, {b, a}} {
		ref, isRef := pair[1].Value.(ast.Ref)
		_, alsoRef := pair[0].Value.(ast.Ref)
		if isRef && !alsoRef {
			return s.through(ref, pair[0], loc)
		}
	}
	return nil, unsupported("an equation of which neither side is known", loc)
}

// assign compiles `pattern = known`.
func (s *scope) assign(pattern, known *ast.Term, loc *ast.Location) (stage, error) {
	if ref, ok := pattern.Value.(ast.Ref); ok { // of which some variable is not bound
		if readsRules(s.builder, known) {
			return nil, unsupported("an iteration over what a rule says", loc)
		}
		return s.through(ref, known, loc)
	}
	v, err := s.value(known)
	if err != nil {
		return nil, err
	}
	is, err := s.match(pattern)
	if err != nil {
		return nil, err
	}
	return func(then rest) rest {
		return func(f *frame) bool {
			x := v(f)
			return x != undefined && is(f, x) && then(f)
		}
	}, nil
}

// through compiles `pattern = ref`, where ref has variables that are not bound.
func (s *scope) through(ref ast.Ref, pattern *ast.Term, loc *ast.Location) (stage, error) {
	each, err := s.each(ref, loc)
	if err != nil {
		return nil, err
	}
	is, err := s.match(pattern)
	if err != nil {
		return nil, err
	}
	return func(then rest) rest {
		return each(func(f *frame, v any) bool { return is(f, v) && then(f) })
	}, nil
}

// every holds when its body does for each member; there is no need to look behind the first for which it does not.
func (s *scope) every(e *ast.Every) (stage, error) {
	domain, err := s.value(e.Domain)
	if err != nil {
		return nil, err
	}
	in := s.inner()
	key, item := in.slot(), in.slot()
	if e.Key != nil {
		if name, ok := e.Key.Value.(ast.Var); ok {
			in.slots[name] = key
		}
	}
	name, ok := e.Value.Value.(ast.Var)
	if !ok {
		return nil, unsupported("every with a pattern", e.Location)
	}
	in.slots[name] = item
	stages, err := in.body(e.Body)
	if err != nil {
		return nil, err
	}
	held := s.slot()
	run := chain(stages, func(f *frame) bool { f.vars[held] = true; return true })
	return func(then rest) rest {
		return func(f *frame) bool {
			v := domain(f)
			switch v.(type) {
			case []any, map[string]any, *set:
			default:
				return false
			}
			failed := iterate(f, v, func(k, x any) bool {
				f.vars[key], f.vars[item], f.vars[held] = k, x, false
				run(f)
				return f.vars[held] != true
			})
			return !failed && then(f)
		}
	}, nil
}

// call compiles a call of a function or a builtin, with or without a term for its result.
func (s *scope) call(terms []*ast.Term, loc *ast.Location) (stage, error) {
	op, ok := terms[0].Value.(ast.Ref)
	if !ok {
		return nil, unsupported("a call of what is no name", loc)
	}
	work, arity, err := s.function(op, terms[1:], loc)
	if err != nil {
		return nil, err
	}
	switch len(terms) - 1 - arity {
	case 0:
		return func(then rest) rest {
			return func(f *frame) bool {
				if v := work(f); v == undefined || v == false {
					return false
				}
				return then(f)
			}
		}, nil
	case 1:
		is, err := s.match(terms[len(terms)-1])
		if err != nil {
			return nil, err
		}
		return func(then rest) rest {
			return func(f *frame) bool {
				v := work(f)
				return v != undefined && is(f, v) && then(f)
			}
		}, nil
	}
	return nil, unsupported("a call with another number of operands", loc)
}

// function compiles the call itself.
func (s *scope) function(op ast.Ref, operands []*ast.Term, loc *ast.Location) (value, int, error) {
	args := func(n int) ([]value, error) {
		if len(operands) < n {
			return nil, unsupported("a call with too few operands", loc)
		}
		all := make([]value, n)
		for i := range all {
			var err error
			if all[i], err = s.value(operands[i]); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	if !op.HasPrefix(ast.DefaultRootRef) {
		return builtin(s, op.String(), operands, loc, args)
	}
	at, err := s.resolve(op, loc)
	if err != nil {
		return nil, 0, err
	}
	if at.rules == nil || at.used != len(op) || at.rules.arity == 0 {
		return nil, 0, unsupported("a call of what is no function", loc)
	}
	r := at.rules
	given, err := args(r.arity)
	if err != nil {
		return nil, 0, err
	}
	return func(f *frame) any {
		var few [4]any
		values := few[:0]
		ok := true
		for _, arg := range given {
			v := arg(f)
			ok = ok && v != undefined
			values = append(values, v)
		}
		if !ok {
			return undefined
		}
		for i, v := range values {
			f.vars[r.args[i]] = v
		}
		return r.work(f)
	}, r.arity, nil
}
