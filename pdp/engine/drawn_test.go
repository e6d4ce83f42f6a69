package engine_test

import (
	"encoding/json"
	"fmt"
	"strings"

	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

// drawn makes policies that look at all that there is to look at, and requests that hold all kinds of things there.
type drawn struct {
	path, condition, word *rapid.Generator[string]
	members               *rapid.Generator[map[string]any]
}

func anyPolicies() drawn {
	paths := []string{
		"input.subject.id", "input.subject.roles", "input.subject.tenant", "input.subject.attributes.x", "input.subject.properties.x", "input.subject.attributes",
		"input.action.name", "input.action.properties.x", "input.resource.type", "input.resource.id", "input.resource.route", "input.resource.params.id",
		"input.resource.properties.owner", "input.resource.properties", "input.resource", "input.context.ip", "input.context.time", "input.context.x", "input.context", "input.subject", "input",
	}
	conditions := []string{
		`%s == "a"`, `not %s == "a"`, `"a" in %s`, `%s == %s`, `count(%s) > 1`, `some v in %s; v == "b"`, `some k, _ in %s; k == "x"`,
		`object.get(%s, "x", "a") == "b"`, `walk(%s, [_, "b"])`, `v := %s; v.x == "a"`, `every v in %s { v != "b" }`, `is_number(%s)`, `%s[_] == "b"`,
	}
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		of := []*rapid.Generator[any]{
			rapid.SampledFrom([]any{"a", "b", "", nil, true, false, 1.0, json.Number("1"), []string{"a", "b"}, []string{}, "10.0.0.1", strings.Repeat("a", 300)}),
		}
		if depth > 0 {
			of = append(of,
				rapid.Map(rapid.SliceOfN(value(depth-1), 0, 2), func(v []any) any { return v }),
				rapid.Map(rapid.MapOfN(rapid.SampledFrom([]string{"x", "id", "owner"}), value(depth-1), 0, 2), func(v map[string]any) any { return v }))
		}
		return rapid.OneOf(of...)
	}
	members := rapid.MapOfN(rapid.SampledFrom([]string{"x", "roles", "tenant", "attributes", "route", "params", "owner", "ip", "time"}), value(2), 0, 4)
	word := rapid.SampledFrom([]string{"a", "b", ""})
	return drawn{rapid.SampledFrom(paths), rapid.SampledFrom(conditions), word, members}
}

// body is one to three rules.
func (d drawn) body(rt *rapid.T) string {
	var body strings.Builder
	fmt.Fprintf(&body, "decision := {\"allow\": count(met) > %d, \"reasons\": sort(met)} if count(met) > 0\n", rapid.IntRange(0, 1).Draw(rt, "enough"))
	for i := range rapid.IntRange(1, 3).Draw(rt, "rules") {
		fmt.Fprintf(&body, "met contains \"r%d\" if {\n\tinput.subject.type == \"user\"\n", i)
		for range rapid.IntRange(1, 3).Draw(rt, "conditions") {
			c := d.condition.Draw(rt, "condition")
			refs := make([]any, strings.Count(c, "%s"))
			for j := range refs {
				refs[j] = d.path.Draw(rt, "path")
			}
			fmt.Fprintf(&body, "\t%s\n", fmt.Sprintf(c, refs...))
		}
		body.WriteString("}\n")
	}
	return body.String()
}

// because are the rules that a denial by one of the policies is by.
func because(res authzen.Response) []string {
	switch all := res.Context.Reasons; {
	case res.Decision || all == nil:
		return nil
	case all[0] == "no_rule":
		return []string{"gatehouse.authz.decision#default"}
	default:
		ids := []string{"gatehouse.authz.decision"}
		for _, r := range all {
			ids = append(ids, fmt.Sprintf("gatehouse.authz.met[%q]", r))
		}
		return ids
	}
}

func (d drawn) request(rt *rapid.T) authzen.Request {
	return authzen.Request{
		Subject:  authzen.Subject{Type: "user", ID: d.word.Draw(rt, "subject"), Properties: d.members.Draw(rt, "subject properties")},
		Action:   authzen.Action{Name: d.word.Draw(rt, "action"), Properties: d.members.Draw(rt, "action properties")},
		Resource: authzen.Resource{Type: d.word.Draw(rt, "type"), ID: d.word.Draw(rt, "id"), Properties: d.members.Draw(rt, "resource properties")},
		Context:  d.members.Draw(rt, "context"),
	}
}
