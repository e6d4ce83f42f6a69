package author

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/dependencies"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// Near is a set of changes of the request, as few as can be, that turns the decision.
type Near struct {
	Changes []string `json:"changes"`
	Reasons []string `json:"reasons,omitempty"` // that it would have then

	question Question
	tries    []try
}

// try is one change of one property.
type try struct {
	path []string
	to   any
	drop bool
	add  bool   // one more in a list
	wild bool   // a word of the data that nobody has been seen to have
	like string // the other property that has this value
}

// mostTries is how many questions are decided to find a neighbour.
const mostTries = 10_000

// search looks around a request.
type search struct {
	on    *program
	q     Question
	paths [][]string // properties that the decision looks at and that can be otherwise: not what is asked, but who, when and what is known
	tries []try
}

func (p *Policy) search(on *program, q Question) (*search, error) {
	refs, err := dependencies.Base(on.compiler, ast.MustParseBody("decision = "+engine.Entrypoint))
	if err != nil {
		return nil, err
	}
	s := &search{on: on, q: q}
	var words []any
	for _, ref := range refs {
		if ref.HasPrefix(ast.DefaultRootRef) {
			words = append(words, wordsAt(p.Data, ref)...)
		}
		for _, path := range inputPaths(ref) {
			free := path[0] == "subject" || path[0] == "context" || (path[0] == "resource" && len(path) > 2 && path[1] == "properties")
			if len(path) > 1 && free {
				s.paths = append(s.paths, path)
			}
		}
	}
	slices.SortFunc(s.paths, func(a, b []string) int { return slices.Compare(a, b) })
	s.paths = slices.CompactFunc(s.paths, slices.Equal[[]string])
	var seen []Question
	for i := range p.Cases {
		if c, err := AsQuestion(p.Cases[i]); err == nil {
			seen = append(seen, c)
		}
	}
	for _, path := range s.paths {
		s.tries = append(s.tries, s.triesAt(path, seen, words)...)
	}
	return s, nil
}

// triesAt are the values that a property could have: those of others in the request, those of the cases, those in the data.
func (s *search) triesAt(path []string, seen []Question, words []any) []try {
	have, there := s.q.at(path)
	if _, object := have.(map[string]any); object {
		return nil
	}
	var all []try
	offer := func(t try) {
		t.path = path
		if !t.drop && !t.add && there && reflect.DeepEqual(t.to, have) {
			return
		}
		if !slices.ContainsFunc(all, func(o try) bool { return o.drop == t.drop && o.add == t.add && reflect.DeepEqual(o.to, t.to) }) {
			all = append(all, t)
		}
	}
	for _, other := range s.paths {
		if path[0] == "context" || other[0] == "context" || path[len(path)-1] == "type" {
			continue // nobody's name is an address
		}
		if v, ok := s.q.at(other); ok && isWord(v) && !slices.Equal(other, path) {
			offer(try{to: v, like: strings.Join(other, ".")})
		}
	}
	list, isList := have.([]any)
	values := []any{}
	for _, c := range seen {
		if v, ok := c.at(path); ok {
			if items, ok := v.([]any); ok {
				isList, values = true, append(values, items...)
			} else {
				values = append(values, v)
			}
		}
	}
	if isList {
		all = nil // a list is not like a word
		for _, v := range append(values, words...) {
			if isWord(v) && !slices.Contains(list, v) {
				offer(try{to: v, add: true})
			}
		}
		return all
	}
	for _, v := range values {
		if isScalar(v) {
			offer(try{to: v})
		}
	}
	if there {
		offer(try{drop: true})
	}
	for _, v := range words {
		offer(try{to: v, wild: true})
	}
	return all
}

func isWord(v any) bool {
	s, ok := v.(string)
	return ok && s != ""
}

func isScalar(v any) bool {
	switch v.(type) {
	case map[string]any, []any:
		return false
	}
	return true
}

// wordsAt are the words in that part of the data which a rule looks at; of a network, its first address.
func wordsAt(data map[string]any, ref ast.Ref) (all []any) {
	var v any = data
	for _, t := range ref[1:] {
		name, ok := t.Value.(ast.String)
		m, isMap := v.(map[string]any)
		if !ok || !isMap {
			break
		}
		v = m[string(name)]
	}
	const enough = 500
	var walk func(any)
	walk = func(v any) {
		if len(all) >= enough {
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for _, k := range sorted(v) {
				all = append(all, k)
				walk(v[k])
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case string:
			if network, err := netip.ParsePrefix(v); err == nil {
				all = append(all, network.Addr().Next().String())
				return
			}
			all = append(all, v)
		}
	}
	walk(v)
	return all
}

func (t try) on(q Question) Question {
	if !t.add {
		return q.with(t.path, t.to, t.drop)
	}
	have, _ := q.at(t.path)
	list, _ := have.([]any)
	return q.with(t.path, append(slices.Clone(list), t.to), false)
}

// describe is the change in words.
func (t try) describe(q Question) string {
	name, was := strings.Join(t.path, "."), "undefined"
	if v, ok := q.at(t.path); ok {
		was = short(stringer(v))
	}
	switch {
	case t.drop:
		return fmt.Sprintf("%s were undefined, not %s", name, was)
	case t.add:
		return fmt.Sprintf("%s held %s too", name, short(stringer(t.to)))
	case t.like != "":
		return fmt.Sprintf("%s were %s, as %s is, not %s", name, short(stringer(t.to)), t.like, was)
	}
	return fmt.Sprintf("%s were %s, not %s", name, short(stringer(t.to)), was)
}

// nearest are the least changes that turn d: single ones, or else pairs. For each set of properties, the first is enough.
func (s *search) nearest(ctx context.Context, d Decision) (found []Near, searched int) {
	turned := func(tries ...try) bool {
		q := s.q
		for _, t := range tries {
			q = t.on(q)
		}
		input, err := q.value()
		if err != nil {
			return false
		}
		searched++
		then := s.on.decide(ctx, input)
		if then.Err != nil || then.Allow == d.Allow {
			return false
		}
		n := Near{Reasons: then.Reasons, question: q, tries: tries}
		for _, t := range tries {
			n.Changes = append(n.Changes, t.describe(s.q))
		}
		found = append(found, n)
		return true
	}
	done := map[string]bool{}
	for _, t := range s.tries {
		key := strings.Join(t.path, ".")
		if (!done[key] || t.add) && ctx.Err() == nil { // each role that would do is told
			done[key] = turned(t) || done[key]
		}
	}
	if len(found) > 0 {
		return found, searched
	}
	likely := slices.DeleteFunc(slices.Clone(s.tries), func(t try) bool { return t.wild })
	for i, a := range likely {
		for _, b := range likely[i+1:] {
			key := strings.Join(a.path, ".") + " " + strings.Join(b.path, ".")
			if slices.Equal(a.path, b.path) || done[key] {
				continue
			}
			if searched >= mostTries || ctx.Err() != nil {
				return found, searched
			}
			done[key] = turned(a, b)
		}
	}
	return found, searched
}

// could says who would be allowed, from the changes that are of the subject alone.
func (s *search) could(near []Near) (all []string) {
	for _, n := range near {
		if slices.ContainsFunc(n.tries, func(t try) bool { return t.path[0] != "subject" }) {
			continue
		}
		words := make([]string, len(n.tries))
		for i, t := range n.tries {
			name := strings.Join(t.path[1:], ".")
			switch {
			case t.drop:
				words[i] = "without " + name
			case t.add:
				words[i] = fmt.Sprintf("with %s among %s", short(stringer(t.to)), name)
			default:
				words[i] = fmt.Sprintf("whose %s is %s", name, short(stringer(t.to)))
			}
		}
		all = append(all, "somebody "+strings.Join(words, " and "))
	}
	return all
}
