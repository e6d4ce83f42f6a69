package engine

import (
	"encoding/json"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// probesOf makes inputs to compare forms by: at the places that the rules look at, what the rules and the data hold for these
// places, and now and then something else or nothing. They are the same for the same policies.
func probesOf(c *ast.Compiler, data map[string]any, n int) []any {
	g := &generator{data: data, paths: map[string][]string{}, pools: map[string][]any{}, random: rand.New(rand.NewPCG(1, 2))} //nolint:gosec // the same each time
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		for _, rule := range c.Modules[name].Rules {
			for ; rule != nil; rule = rule.Else {
				g.read(rule)
			}
		}
	}
	g.names = slices.Sorted(maps.Keys(g.paths))
	all := make([]any, n)
	for i := range all {
		all[i] = g.input()
	}
	return all
}

// generator knows which parts of the input rules look at, and what would interest them there.
type generator struct {
	data   map[string]any
	paths  map[string][]string
	names  []string
	pools  map[string][]any
	common []any // constants that belong to no place
	random *rand.Rand
}

// enough bounds what is kept for one place.
const enough = 400

func (g *generator) add(place string, v any) {
	if pool := g.pools[place]; len(pool) < enough {
		g.pools[place] = append(pool, v)
	}
}

// read goes through a rule's expressions. A local variable stands for the place in the input that it was taken from.
func (g *generator) read(rule *ast.Rule) {
	stands := map[ast.Var]string{}
	placeOf := func(t *ast.Term) (string, bool) {
		switch v := t.Value.(type) {
		case ast.Ref:
			if v.HasPrefix(ast.InputRootRef) {
				path := pathOf(v)
				name := strings.Join(path, "\x00")
				g.paths[name] = path
				return name, true
			}
		case ast.Var:
			place, ok := stands[v]
			return place, ok
		}
		return "", false
	}
	ast.WalkExprs(rule, func(e *ast.Expr) bool {
		terms, ok := e.Terms.([]*ast.Term)
		if !ok {
			return false
		}
		for i, t := range terms[1:] {
			place, ok := placeOf(t)
			if !ok {
				continue
			}
			for j, other := range terms[1:] {
				if v, isVar := other.Value.(ast.Var); isVar && e.IsEquality() {
					stands[v] = place
				}
				if i != j {
					g.interest(place, other.Value)
				}
			}
		}
		return false
	})
	ast.WalkTerms(rule, func(t *ast.Term) bool {
		if _, ok := placeOf(t); ok {
			return false
		}
		switch v := t.Value.(type) {
		case ast.String, ast.Number, ast.Boolean:
			if plain, err := ast.JSON(v); err == nil && len(g.common) < enough {
				g.common = append(g.common, plain)
			}
		case ast.Ref:
			if !v.HasPrefix(ast.DefaultRootRef) {
				return false
			}
			for i, key := range v {
				if place, ok := placeOf(key); ok && i > 0 {
					g.keys(place, v[:i])
				}
			}
		}
		return false
	})
}

// interest keeps a constant for a place, and each of those that a collection holds.
func (g *generator) interest(place string, v ast.Value) {
	switch v := v.(type) {
	case ast.String, ast.Number, ast.Boolean, ast.Null:
		if plain, err := ast.JSON(v); err == nil {
			g.add(place, plain)
			if s, ok := plain.(string); ok {
				g.add(place, s+"x")
				if strings.Contains(s, "*") { // a pattern, perhaps
					g.add(place, strings.ReplaceAll(s, "*", "x"))
				}
			}
		}
	case *ast.Array:
		items := make([]any, v.Len())
		for i := range items {
			item := v.Elem(i).Value
			g.interest(place, item)
			if plain, err := ast.JSON(item); err == nil && ast.IsConstant(item) {
				items[i] = plain
			} else {
				items[i] = "x"
			}
		}
		g.add(place, items)
	case ast.Set:
		for _, t := range v.Slice() {
			g.interest(place, t.Value)
		}
	}
}

// keys keeps names of the data that a place is looked up in; behind variables, of the first of each.
func (g *generator) keys(place string, ref ast.Ref) {
	var v any = g.data
	for _, t := range ref[1:] {
		m, ok := v.(map[string]any)
		if !ok {
			return
		}
		name, isString := t.Value.(ast.String)
		if isString {
			v = m[string(name)]
			continue
		}
		for _, first := range some(m, 1) {
			v = m[first]
		}
	}
	m, _ := v.(map[string]any)
	for _, name := range some(m, 50) {
		g.add(place, name)
	}
}

// some answers a few names of an object, the same each time.
func some(m map[string]any, n int) []string {
	if len(m) > 4*enough {
		var any []string
		for name := range m {
			if any = append(any, name); len(any) == n {
				break
			}
		}
		return any
	}
	all := slices.Sorted(maps.Keys(m))
	if len(all) > n {
		step := len(all) / n
		for i := range n {
			all[i] = all[i*step]
		}
		all = all[:n]
	}
	return all
}

var oddities = []any{nil, false, true, json.Number("0"), json.Number("1.0"), "", "x", []any{}, []any{"x", json.Number("1")}, map[string]any{}, map[string]any{"x": "y"}}

// value makes something for a place.
func (g *generator) value(place string) any {
	pick := func(from []any) any { return from[g.random.IntN(len(from))] }
	pool := g.pools[place]
	switch r := g.random.Float64(); {
	case r < 0.8 && len(pool) > 0:
		return pick(pool)
	case r < 0.85 && len(g.common) > 0:
		return []any{pick(g.common), pick(g.common)}
	case r < 0.93 && len(g.common) > 0:
		return pick(g.common)
	}
	return pick(oddities)
}

// input puts values at the places, the shorter ones first, so that an object can have more below it.
func (g *generator) input() any {
	root := map[string]any{}
	for _, name := range g.names {
		path := g.paths[name]
		if len(path) == 0 || g.random.Float64() < 0.04 {
			continue
		}
		at := root
		for _, step := range path[:len(path)-1] {
			next, _ := at[step].(map[string]any)
			if next = maps.Clone(next); next == nil { // what a pool holds stays as it is
				next = map[string]any{}
			}
			at[step] = next
			at = next
		}
		at[path[len(path)-1]] = g.value(name)
	}
	return root
}
