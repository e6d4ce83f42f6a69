package native

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// rules are all rules of one name.
type rules struct {
	arity int
	args  []int // slots of the arguments
	doc   int   // place of the value in frames, for what has no arguments
	work  value // works the value out
}

// value answers what was worked out before, or works it out.
func (r *rules) value(f *frame) any {
	v := f.docs[r.doc]
	if v == unasked {
		v = r.work(f)
		f.docs[r.doc] = v
	}
	return v
}

// rulesAt compiles the rules at ref, once.
func (b *builder) rulesAt(ref ast.Ref, all []*ast.Rule) (*rules, error) {
	name := ref.String()
	if r, ok := b.rules[name]; ok {
		return r, nil
	}
	r := &rules{arity: len(all[0].Head.Args), doc: b.program.docs}
	b.program.docs++
	b.rules[name] = r // no rule reaches itself: the compiler has seen to that
	for range r.arity {
		r.args = append(r.args, b.slot())
	}
	sets := all[0].Head.RuleKind() == ast.MultiValue
	for _, rule := range all {
		switch {
		case !rule.Ref().Equal(ref):
			return nil, unsupported("a rule for one member of an object", rule.Loc())
		case len(rule.Head.Args) != r.arity, (rule.Head.RuleKind() == ast.MultiValue) != sets:
			return nil, unsupported("rules of one name and two kinds", rule.Loc())
		}
	}
	var err error
	if sets {
		r.work, err = b.setOf(all)
	} else {
		r.work, err = b.complete(r, all)
	}
	return r, err
}

// setOf compiles `p contains x` rules.
func (b *builder) setOf(all []*ast.Rule) (value, error) {
	at := b.slot()
	runs := make([]rest, 0, len(all))
	for _, rule := range all {
		if rule.Else != nil || rule.Head.Key == nil {
			return nil, unsupported("a set with an else", rule.Loc())
		}
		s := &scope{builder: b, slots: map[ast.Var]int{}}
		stages, err := s.body(rule.Body)
		if err != nil {
			return nil, err
		}
		key, err := s.value(rule.Head.Key)
		if err != nil {
			return nil, err
		}
		runs = append(runs, chain(stages, func(f *frame) bool {
			v := key(f)
			if v == undefined {
				giveUp("a member of a set that is undefined")
			}
			all, _ := f.vars[at].(*collected)
			all.items = append(all.items, v)
			return false
		}))
	}
	return func(f *frame) any {
		all := &collected{}
		f.vars[at] = all
		for _, run := range runs {
			run(f)
		}
		return newSet(all.items)
	}, nil
}

// branch is a rule, or one of its else branches.
type branch struct {
	run  rest
	next *branch // else
}

// complete compiles rules with one value, functions among them.
func (b *builder) complete(r *rules, all []*ast.Rule) (value, error) {
	out := b.slot() // the value so far
	first := agree(all)
	var branches []*branch
	var conditions []condition
	var otherwise *branch
	for _, rule := range all {
		made, cond, err := b.branchOf(r, rule, out, first)
		if err != nil {
			return nil, err
		}
		if rule.Default {
			otherwise = made
			continue
		}
		branches, conditions = append(branches, made), append(conditions, cond)
	}
	pick := pickBy(b, conditions, branches)
	return func(f *frame) any {
		f.vars[out] = undefined
		for _, br := range pick(f) {
			before := f.vars[out]
			for ; br != nil; br = br.next {
				// An else counts when this rule had no solution, whatever other rules have.
				f.vars[out] = undefined
				br.run(f)
				if f.vars[out] != undefined {
					break
				}
			}
			switch now := f.vars[out]; {
			case now == undefined:
				f.vars[out] = before
			case before != undefined:
				if !equal(before, now) {
					giveUp("a conflict")
				}
				f.vars[out] = before // of 1 and 1.0 the first
			case first:
				return now
			}
		}
		if f.vars[out] == undefined && otherwise != nil {
			otherwise.run(f)
		}
		return f.vars[out]
	}, nil
}

// agree reports whether all rules have the same constant for a value, so that the first that holds is enough: topdown stops there.
func agree(all []*ast.Rule) bool {
	var value ast.Value
	for _, rule := range all {
		if rule.Default {
			continue
		}
		if rule.Else != nil || rule.Head.Value == nil || !ast.IsConstant(rule.Head.Value.Value) || value != nil && value.Compare(rule.Head.Value.Value) != 0 {
			return false
		}
		value = rule.Head.Value.Value
	}
	return true
}

// branchOf compiles one rule and its else branches.
func (b *builder) branchOf(r *rules, rule *ast.Rule, out int, first bool) (*branch, condition, error) {
	s := &scope{builder: b, slots: map[ast.Var]int{}}
	var stages []stage
	for i, arg := range rule.Head.Args {
		is, err := s.match(arg)
		if err != nil {
			return nil, nil, err
		}
		at := r.args[i]
		stages = append(stages, func(then rest) rest {
			return func(f *frame) bool { return is(f, f.vars[at]) && then(f) }
		})
	}
	body, err := s.body(rule.Body)
	if err != nil {
		return nil, nil, err
	}
	result := constant(true)
	if rule.Head.Value != nil {
		if result, err = s.value(rule.Head.Value); err != nil {
			return nil, nil, err
		}
	}
	made := &branch{run: chain(append(stages, body...), func(f *frame) bool {
		v := result(f)
		if v == undefined {
			giveUp("a rule whose value is undefined")
		}
		switch old := f.vars[out]; {
		case old == undefined:
			f.vars[out] = v
		case !equal(old, v):
			giveUp("a conflict")
		}
		return first
	})}
	if rule.Else != nil {
		if made.next, _, err = b.branchOf(r, rule.Else, out, first); err != nil {
			return nil, nil, err
		}
		return made, nil, nil // an else can hold where its rule's condition does not
	}
	return made, conditionOf(s, r, rule), nil
}
