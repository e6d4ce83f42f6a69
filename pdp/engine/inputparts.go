package engine

import (
	"errors"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// inputParts are the parts of the input that rules can look at, and the objects above these. Topdown is shown objects that know
// nothing but those, each of them made OPA's value when it is first looked at: to make an object of OPA's takes an allocation for
// each member and four more, and most rules come to look at few.
type inputParts struct {
	all  []inputPart // the root is the first
	pool sync.Pool   // of *shownInput
}

type inputPart struct {
	path  []string
	read  native.Reader  // of what is looked at itself
	below map[string]int // names → places in all; nil for what is looked at itself
}

// inputReads answers the parts that the rules behind a reference can look at; nil for the input as a whole, and where a rule puts
// something in its place for another.
func inputReads(c *ast.Compiler, ref ast.Ref) (*inputParts, error) {
	if replacesInput(c) {
		return nil, nil //nolint:nilnil // all of it
	}
	refs, err := baseOf(c, ast.NewBody(ast.Equality.Expr(ast.NewTerm(answered), ast.NewTerm(ref))))
	if err != nil {
		return nil, err
	}
	p := &inputParts{all: []inputPart{{below: map[string]int{}}}}
	for _, ref := range refs {
		if ref.HasPrefix(ast.InputRootRef) {
			p.add(pathOf(ref))
		}
	}
	if p.all[0].below == nil {
		return nil, nil //nolint:nilnil // all of it
	}
	return p, nil
}

// add makes what stands at a path a part, unless it is in one.
func (p *inputParts) add(path []string) {
	at := 0
	for i, name := range path {
		if p.all[at].below == nil {
			return
		}
		next, ok := p.all[at].below[name]
		if !ok {
			next = len(p.all)
			p.all = append(p.all, inputPart{path: path[: i+1 : i+1], below: map[string]int{}})
			p.all[at].below[name] = next
		}
		at = next
	}
	p.all[at].below, p.all[at].read = nil, readerOf(path)
}

// replacesInput reports whether any rule has a with for input, which is put into OPA's own objects.
func replacesInput(c *ast.Compiler) (found bool) {
	for _, m := range c.Modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			for _, w := range e.With {
				ref, ok := w.Target.Value.(ast.Ref)
				found = found || !ok || ref[0].Equal(ast.InputRootDocument)
			}
			return found
		})
	}
	return found
}

// shownInput is an input as topdown sees it in one evaluation.
type shownInput struct {
	parts   *inputParts
	of      input
	objects []shownObject
	terms   []*ast.Term // by part; nil before it is looked at
	gone    []bool      // by part: there is none
	err     error       // the first that is no JSON
}

// shownObject is an object of which only members are ever looked at, never itself. What it embeds is empty.
type shownObject struct {
	ast.Object
	in   *shownInput
	part int
}

func (p *inputParts) show(in input) *shownInput {
	s, _ := p.pool.Get().(*shownInput)
	if s == nil {
		s = &shownInput{parts: p, objects: make([]shownObject, len(p.all)), terms: make([]*ast.Term, len(p.all)), gone: make([]bool, len(p.all))}
		for i := range p.all {
			if p.all[i].below != nil {
				s.objects[i] = shownObject{ast.NewObject(), s, i}
				s.terms[i] = ast.NewTerm(&s.objects[i])
			}
		}
	}
	s.of = in
	return s
}

// done gives it back. Nothing that was made of its parts is in what it keeps.
func (s *shownInput) done() {
	for i := range s.terms {
		if s.parts.all[i].below == nil {
			s.terms[i] = nil
		}
		s.gone[i] = false
	}
	s.of, s.err = nil, nil
	s.parts.pool.Put(s)
}

func (s *shownInput) root() *ast.Term { return s.terms[0] }

// part answers a part, nil if there is none.
func (s *shownInput) part(i int) *ast.Term {
	if s.terms[i] != nil || s.gone[i] {
		return s.terms[i]
	}
	v, ok := s.parts.all[i].read(s.of)
	if !ok {
		s.gone[i] = true
		return nil
	}
	t, err := valueOf(v)
	if err != nil {
		s.err = errors.Join(s.err, err)
		s.gone[i] = true
		return nil
	}
	s.terms[i] = t
	return t
}

// Get implements ast.Object.
func (o *shownObject) Get(key *ast.Term) *ast.Term {
	name, ok := key.Value.(ast.String)
	if !ok {
		return nil
	}
	i, ok := o.in.parts.all[o.part].below[string(name)]
	if !ok {
		return nil
	}
	return o.in.part(i)
}

// Find implements ast.Value.
func (o *shownObject) Find(path ast.Ref) (ast.Value, error) {
	if len(path) == 0 {
		return o, nil
	}
	t := o.Get(path[0])
	if t == nil {
		return nil, errNoPart
	}
	return t.Value.Find(path[1:])
}

var errNoPart = errors.New("not in the input")
