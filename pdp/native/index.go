package native

import (
	"maps"

	"github.com/open-policy-agent/opa/v1/ast"
)

// condition is what must be equal to which text for a rule to hold: the places of an input's paths (or of an argument), and the
// texts. Only expressions count before which nothing can fail: a rule that is passed over would not have failed either.
type condition map[place]string

// place is something that rules compare: an argument, or a part of the input; and in it, if element is not negative, an element
// of an array of that length.
type place struct {
	input, argument int // one of them; the other is -1
	length, element int
}

// conditionOf reads the beginning of a rule's body.
func conditionOf(s *scope, r *rules, rule *ast.Rule) condition {
	c := condition{}
	for i, arg := range rule.Head.Args {
		if text, ok := arg.Value.(ast.String); ok {
			c[place{-1, r.args[i], 0, -1}] = string(text)
		}
	}
	for _, expr := range rule.Body {
		if !expr.IsEquality() || expr.Negated || len(expr.With) > 0 {
			break
		}
		a, b := expr.Operand(0), expr.Operand(1)
		if readsRules(s.builder, a) || readsRules(s.builder, b) {
			break
		}
		for _, pair := range [][2]*ast.Term{{a, b}, {b, a}} {
			ref, ok := pair[0].Value.(ast.Ref)
			if !ok || !ref[0].Equal(ast.InputRootDocument) {
				continue
			}
			path := pathOf(ref)
			if len(path) != len(ref)-1 {
				continue
			}
			at := s.inputAt(path)
			switch v := pair[1].Value.(type) {
			case ast.String:
				c[place{at, -1, 0, -1}] = string(v)
			case *ast.Array:
				for i := range v.Len() {
					if text, ok := v.Elem(i).Value.(ast.String); ok {
						c[place{at, -1, v.Len(), i}] = string(text)
					}
				}
			}
		}
	}
	return c
}

func pathOf(r ast.Ref) []string {
	var path []string
	for _, t := range r[1:] {
		name, ok := t.Value.(ast.String)
		if !ok {
			break
		}
		path = append(path, string(name))
	}
	return path
}

// fewRules are gone through one by one.
const fewRules = 4

// pickBy chooses the place by whose text most rules are told apart, and answers which rules are left to try, in their order.
func pickBy(b *builder, conditions []condition, all []*branch) func(*frame) []*branch {
	everything := func(*frame) []*branch { return all }
	if len(all) <= fewRules {
		return everything
	}
	texts := map[place]map[string]bool{}
	for _, c := range conditions {
		for at, text := range c {
			if texts[at] == nil {
				texts[at] = map[string]bool{}
			}
			texts[at][text] = true
		}
	}
	// How many rules are left to try on average, were each text as likely as any other.
	var best place
	counts := map[place]int{}
	least := float64(len(all))
	for at, known := range texts {
		with := 0
		for _, c := range conditions {
			if _, ok := c[at]; ok {
				with++
			}
		}
		counts[at] = with
		left := float64(len(all)-with) + float64(with)/float64(len(known))
		if left < least || left == least && less(at, best) {
			best, least = at, left
		}
	}
	if without := len(all) - counts[best]; least > float64(len(all))*3/4 || without*len(texts[best]) > 1<<16 {
		return everything
	}
	type left struct {
		rules      []*branch
		conditions []condition
	}
	byText := map[string]*left{}
	for text := range texts[best] {
		byText[text] = &left{}
	}
	var always []*branch
	for i, c := range conditions {
		text, told := c[best]
		if told {
			delete(c, best) // it is known from here on
			byText[text].rules, byText[text].conditions = append(byText[text].rules, all[i]), append(byText[text].conditions, c)
			continue
		}
		always = append(always, all[i])
		for _, l := range byText {
			l.rules, l.conditions = append(l.rules, all[i]), append(l.conditions, maps.Clone(c))
		}
	}
	next := map[string]func(*frame) []*branch{}
	for text, l := range byText {
		next[text] = pickBy(b, l.conditions, l.rules)
	}
	return func(f *frame) []*branch {
		var v any
		if best.argument >= 0 {
			v = f.vars[best.argument]
		} else {
			v = f.inputValue(best.input)
		}
		if best.element >= 0 {
			items, ok := v.([]any)
			if !ok || len(items) != best.length {
				return always // these do not look at this array, or at one of another length
			}
			v = items[best.element]
		}
		text, ok := v.(string)
		if !ok {
			return always
		}
		if pick := next[text]; pick != nil {
			return pick(f)
		}
		return always
	}
}

func less(a, b place) bool {
	if a.input != b.input {
		return a.input < b.input
	}
	if a.argument != b.argument {
		return a.argument < b.argument
	}
	if a.length != b.length {
		return a.length < b.length
	}
	return a.element < b.element
}
