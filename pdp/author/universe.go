package author

import (
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// mostRequests is how many requests are made up; a policy whose cases give more is compared on the first so many.
const mostRequests = 50_000

// asked is a request to compare two policies by.
type asked struct {
	Question
	when  string // the condition, in words; "" for those of a log
	times int    // how often a log has it
	who   string // in place of the roles of the subject; may be ""
}

// universe is every who × what × condition that the cases and data of some policies speak of, beside the cases as they stand.
// A property that equals one of the subject's own (its id, department or tenant) is so for every subject.
type universe struct {
	subjects, asks, conditions []map[string]any
	seen                       map[string]bool
	requests                   []asked
}

// ownWord stands for what is the subject's own.
type ownWord struct {
	word string
	path []string
}

var own = []ownWord{
	{"{who.id}", []string{"subject", "id"}},
	{"{who.department}", []string{"subject", "attributes", "department"}},
	{"{who.tenant}", []string{"subject", "tenant"}},
}

func universeOf(policies ...*Policy) (*universe, error) {
	u := &universe{seen: map[string]bool{}}
	for _, p := range policies {
		for i := range p.Cases {
			q, err := AsQuestion(p.Cases[i])
			if err != nil {
				return nil, err
			}
			u.dissect(q)
			u.add(q)
		}
	}
	for _, p := range policies {
		u.roles(p)
	}
	for _, s := range u.subjects {
		for _, a := range u.asks {
			for _, c := range u.conditions {
				if !known(c) || !collection(a) {
					u.add(assemble(s, a, c))
				}
			}
		}
	}
	return u, nil
}

// once reports whether v is new in its set.
func (u *universe) once(set string, v any) bool {
	b, err := json.Marshal(v) // with sorted keys
	key := set + string(b)
	if err != nil || u.seen[key] {
		return false
	}
	u.seen[key] = true
	return true
}

func (u *universe) add(q Question) {
	if len(u.requests) < mostRequests && u.once("request", q.input) {
		u.requests = append(u.requests, asked{Question: q, when: describe(conditionOf(q))})
	}
}

// conditionOf is what a request says beside who asks what.
func conditionOf(q Question) map[string]any {
	properties, _ := q.at([]string{"resource", "properties"})
	plain, _ := properties.(map[string]any)
	return map[string]any{"properties": symbolic(q, plain), "context": q.input["context"]}
}

// dissect takes a request apart into who, what and condition.
func (u *universe) dissect(q Question) {
	subject, _ := q.input["subject"].(map[string]any)
	resource, _ := q.input["resource"].(map[string]any)
	what := map[string]any{"action": q.input["action"], "resource": put(resource, []string{"properties"}, nil, true)}
	condition := conditionOf(q)
	if u.once("subject", put(subject, []string{"id"}, nil, true)) { // conditions go by the subject's id, whatever that is
		u.subjects = append(u.subjects, subject)
	}
	if u.once("what", what) {
		u.asks = append(u.asks, what)
	}
	if u.once("condition", condition) {
		u.conditions = append(u.conditions, condition)
	}
}

// known reports whether something is known of the object in a condition; of a collection nothing ever is.
func known(condition map[string]any) bool {
	properties, _ := condition["properties"].(map[string]any)
	return len(properties) > 0
}

func collection(what map[string]any) bool {
	resource, _ := what["resource"].(map[string]any)
	id, _ := resource["id"].(string)
	return strings.HasPrefix(id, "/")
}

func symbolic(q Question, properties map[string]any) map[string]any {
	c := make(map[string]any, len(properties))
	for name, v := range properties {
		c[name] = v
		for _, o := range own {
			if mine, ok := q.at(o.path); ok && isWord(mine) && mine == v {
				c[name] = o.word
				break
			}
		}
	}
	return c
}

// assemble is the opposite of dissect. What a subject does not have, its objects do not have either.
func assemble(subject, what, condition map[string]any) Question {
	q := Question{input: map[string]any{"subject": subject, "action": what["action"], "context": condition["context"]}}
	symbols, _ := condition["properties"].(map[string]any)
	properties := make(map[string]any, len(symbols))
	for name, v := range symbols {
		o := slices.IndexFunc(own, func(o ownWord) bool { return o.word == v })
		if o >= 0 {
			var ok bool
			if v, ok = q.at(own[o].path); !ok || !isWord(v) {
				continue
			}
		}
		properties[name] = v
	}
	resource, _ := what["resource"].(map[string]any)
	q.input["resource"] = put(resource, []string{"properties"}, properties, false)
	return q
}

// roles adds what the tables of roles.yaml speak of and no case does: a subject for each role, and each action of each resource.
func (u *universe) roles(p *Policy) {
	tables, _ := p.Data["gatehouse"].(map[string]any)
	inherits, _ := tables["inherits"].(map[string]any)
	for _, role := range sorted(inherits) {
		if slices.ContainsFunc(u.subjects, func(s map[string]any) bool {
			return slices.Equal(Question{input: map[string]any{"subject": s}}.roles(), []string{role})
		}) {
			continue
		}
		subject := map[string]any{"type": "user", "id": "a " + role, "roles": []any{role}, "groups": []any{}, "tenant": "",
			"attributes": map[string]any{"department": "somewhere"}, "properties": map[string]any{}}
		if u.once("subject", subject) {
			u.subjects = append(u.subjects, subject)
		}
	}
	grants, _ := tables["grants"].(map[string]any)
	shapes, _ := tables["actions"].(map[string]any)
	for _, kind := range sorted(grants) {
		for _, shape := range sorted(shapes) {
			methods, _ := shapes[shape].(map[string]any)
			for _, method := range sorted(methods) {
				c := Case{Who: Who{ID: "x"}, Type: kind, Asks: method + " /" + kind + "s", Decision: "deny"}
				if shape == "object" {
					c.Asks += "/17"
				}
				if c.Complete() != nil {
					continue
				}
				if q, err := AsQuestion(c); err == nil {
					resource, _ := q.input["resource"].(map[string]any)
					what := map[string]any{"action": q.input["action"], "resource": put(resource, []string{"properties"}, nil, true)}
					if u.once("what", what) {
						u.asks = append(u.asks, what)
					}
				}
			}
		}
	}
}

const nothingElse = "nothing else is known"

// describe is a condition in words: what is known of the object, then when and whence.
func describe(condition map[string]any) string {
	var words []string
	properties, _ := condition["properties"].(map[string]any)
	for _, name := range sorted(properties) {
		words = append(words, fmt.Sprintf("%s %v", name, properties[name]))
	}
	context, _ := condition["context"].(map[string]any)
	usual := map[string]any{"time": "2026-03-03T10:00:00Z", "ip": "10.1.2.3"}
	names := sorted(context)
	sort.SliceStable(names, func(i, j int) bool { return names[i] == "time" && names[j] != "time" })
	for _, name := range names {
		if context[name] == usual[name] {
			continue
		}
		switch name {
		case "time":
			words = append(words, fmt.Sprintf("at %v", context[name]))
		case "ip":
			words = append(words, fmt.Sprintf("from %v", context[name]))
		default:
			words = append(words, fmt.Sprintf("%s %v", name, context[name]))
		}
	}
	if len(words) == 0 {
		return nothingElse
	}
	return strings.Join(words, ", ")
}
