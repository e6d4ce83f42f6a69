package author

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/gatehouse-auth/gatehouse/pdp/ruleid"
)

// Explanation says why something was decided.
type Explanation struct {
	Title    string   `json:"title"`
	Asked    string   `json:"asked"`
	Allow    bool     `json:"allow"`
	Reasons  []string `json:"reasons,omitempty"`
	Rules    []string `json:"rules,omitempty"` // of a denial, as its record names them
	Error    string   `json:"error,omitempty"` // no decision was made
	Held     []Held   `json:"held"`
	Failed   []Held   `json:"failed"`          // with what they failed on
	Near     []Near   `json:"near,omitempty"`  // the least changes that would turn the decision
	Could    []string `json:"could,omitempty"` // who could, in words; for denials
	Searched int      `json:"searched"`        // changed requests that were decided
}

// Held is a rule that held or did not.
type Held struct {
	ID     string   `json:"id"`
	File   string   `json:"file"`
	Line   int      `json:"line"`                // of the rule, or of the condition that failed
	Title  string   `json:"title,omitempty"`     // of its METADATA
	Failed string   `json:"failed_on,omitempty"` // the condition
	With   []string `json:"with,omitempty"`      // name = value
	Near   bool     `json:"near,omitempty"`      // it holds once the first of the nearest changes is made
}

// Explain decides q and says why.
func (p *Policy) Explain(ctx context.Context, q Question) (Explanation, error) {
	compiled, err := p.program(ctx)
	if err != nil {
		return Explanation{}, err
	}
	names := p.names()
	d, held, failed, err := trace(ctx, compiled, names, q)
	if err != nil {
		return Explanation{}, err
	}
	e := Explanation{Title: q.Title, Asked: q.String(), Allow: d.Allow, Reasons: d.Reasons, Rules: d.Rules, Held: held, Failed: failed}
	if d.Err != nil {
		e.Error = oneLine(d.Err)
	}
	s, err := p.search(compiled, q)
	if err != nil {
		return Explanation{}, err
	}
	e.Near, e.Searched = s.nearest(ctx, d)
	if len(e.Near) > 0 {
		_, then, _, err := trace(ctx, compiled, names, e.Near[0].question)
		if err != nil {
			return Explanation{}, err
		}
		for i, f := range e.Failed {
			e.Failed[i].Near = slices.ContainsFunc(then, func(h Held) bool { return h.ID == f.ID })
		}
	}
	if !d.Allow {
		e.Could = s.could(e.Near)
	}
	return e, nil
}

// named is a rule as people know it.
type named struct{ id, file, title string }

// position finds a compiled rule's source.
type position struct {
	file     string
	row, col int
}

func positionOf(l *ast.Location) position { return position{l.File, l.Row, l.Col} }

func (p *Policy) names() map[position]named {
	all := map[position]named{}
	for name, m := range p.Modules {
		ids := ruleid.Of(m)
		for i, r := range m.Rules {
			n := named{id: ids[i], file: p.place(name)}
			for _, a := range r.Annotations {
				n.title = cmp.Or(n.title, a.Title)
			}
			all[positionOf(r.Location)] = n
		}
	}
	return all
}

// trace decides q with every rule tried, and sorts them by whether they held.
func trace(ctx context.Context, on *program, names map[position]named, q Question) (d Decision, held, failed []Held, err error) {
	input, err := q.value()
	if err != nil {
		return d, nil, nil, err
	}
	events := topdown.NewBufferTracer()
	d = on.explained(ctx, input, rego.EvalQueryTracer(events), rego.EvalRuleIndexing(false), rego.EvalEarlyExit(false))
	type attempt struct {
		rule  *ast.Rule
		fails []*topdown.Event // on the furthest line
	}
	byQuery, did, misses := map[uint64]*attempt{}, map[position]*Held{}, map[position]*attempt{}
	for _, e := range *events {
		switch node := e.Node.(type) {
		case *ast.Rule:
			if e.Op == topdown.EnterOp {
				byQuery[e.QueryID] = &attempt{rule: node}
			}
			if e.Op != topdown.ExitOp {
				continue
			}
			at := positionOf(node.Location)
			if did[at] == nil {
				n, ok := names[at]
				if !ok {
					continue
				}
				did[at] = &Held{ID: n.id, File: n.file, Line: at.row, Title: n.title}
			}
			did[at].With = merge(did[at].With, locals(e))
		case *ast.Expr:
			a := byQuery[e.QueryID]
			if e.Op != topdown.FailOp || a == nil || e.Location == nil {
				continue
			}
			at := positionOf(a.rule.Location)
			switch before := misses[at]; {
			case before == nil || before.fails[0].Location.Row < e.Location.Row:
				misses[at] = &attempt{a.rule, []*topdown.Event{e}}
			case before.fails[0].Location.Row == e.Location.Row:
				before.fails = append(before.fails, e)
			}
		}
	}
	for _, h := range did {
		held = append(held, *h)
	}
	for at, a := range misses {
		n, ok := names[at]
		if !ok || did[at] != nil {
			continue
		}
		expr, _ := a.fails[0].Node.(*ast.Expr)
		h := Held{ID: n.id, File: n.file, Line: expr.Location.Row, Title: n.title, Failed: source(expr)}
		for _, e := range a.fails {
			h.With = merge(h.With, locals(e))
		}
		h.With = merge(h.With, inputsOf(expr, q))
		failed = append(failed, h)
	}
	order := func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.ID, b.ID))
	}
	slices.SortFunc(held, order)
	slices.SortFunc(failed, order)
	return d, held, failed, nil
}

func merge(into, more []string) []string {
	for _, m := range more {
		if !slices.Contains(into, m) {
			into = append(into, m)
		}
	}
	return into
}

// locals are the scalars that the author's own variables stood for.
func locals(e *topdown.Event) []string {
	var all []string
	if e.Locals == nil {
		return nil
	}
	e.Locals.Iter(func(k, v ast.Value) bool {
		name, ok := k.(ast.Var)
		if !ok || !ast.IsScalar(v) {
			return false
		}
		if m, ok := e.LocalMetadata[name]; ok {
			name = m.Name
		}
		if !name.IsGenerated() && !name.IsWildcard() {
			all = append(all, string(name)+" = "+short(v))
		}
		return false
	})
	slices.Sort(all)
	return all
}

// inputsOf are the values of the request that a condition speaks of.
func inputsOf(e *ast.Expr, q Question) []string {
	var all []string
	for _, path := range inputPaths(sourceExpr(e)) {
		text := "undefined"
		if v, ok := q.at(path); ok {
			text = short(stringer(v))
		}
		all = append(all, "input."+strings.Join(path, ".")+" = "+text)
	}
	return all
}

// sourceExpr is a condition as it was before the compiler rewrote it, where that can be told from its text.
func sourceExpr(e *ast.Expr) *ast.Expr {
	if e == nil || e.Location == nil {
		return e
	}
	body, err := ast.ParseBodyWithOpts(string(e.Location.Text), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil || len(body) != 1 {
		return e
	}
	return body[0]
}

// inputPaths are the references into input, as far as they are known before evaluation.
func inputPaths(x any) (all [][]string) {
	ast.WalkRefs(x, func(r ast.Ref) bool {
		if !r.HasPrefix(ast.InputRootRef) {
			return false
		}
		var path []string
		for _, t := range r[1:] {
			s, ok := t.Value.(ast.String)
			if !ok {
				break
			}
			path = append(path, string(s))
		}
		if len(path) > 0 && !slices.ContainsFunc(all, func(p []string) bool { return slices.Equal(p, path) }) {
			all = append(all, path)
		}
		return false
	})
	return all
}
