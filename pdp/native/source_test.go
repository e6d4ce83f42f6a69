package native_test

import (
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/gatehouse-auth/gatehouse/pdp/native"
)

// people is a Source: who is in it stands in the input.
type people struct{}

func (people) Of(in native.Input) any {
	v, ok := in.At([]string{"people"})
	if !ok {
		return people{} // nothing that could be looked up in
	}
	return v
}

// A Source is another object for each question, read by keys, gone through, and named by texts that are written out.
func TestASourceIsAnotherObjectInEachQuestion(t *testing.T) {
	t.Parallel()
	c, _ := compiled(t, `package p
answer contains "by key" if data.people[input.id].level == 3
answer contains "by name" if data.people.ann.level == 3
answer contains "gone through" if { some _, one in data.people; one.level == 3 }
answer contains "unknown" if not data.people[input.id]
`, `{}`)
	p, err := native.Compile(c, map[string]any{"people": people{}}, ast.MustParseRef("data.p.answer"))
	if err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{
		`{"id": "ann", "people": {"ann": {"level": 3}}}`:                        `["by key","by name","gone through"]`,
		`{"id": "ann", "people": {"bob": {"level": 3}}}`:                        `["gone through","unknown"]`,
		`{"id": "bob", "people": {"ann": {"level": 2}, "bob": {"level": 3}}}`:   `["by key","gone through"]`,
		`{"id": "carol", "people": {"ann": {"level": 3}, "bob": {"level": 3}}}`: `["by name","gone through","unknown"]`,
	} {
		got, defined, err := p.Eval(t.Context(), native.JSON{Value: input(t, in)}, time.Second)
		if text := written(t, got, defined, err); err != nil || !defined || text != want {
			t.Errorf("%s: %s, %v; want %s", in, text, err, want)
		}
	}
	if _, _, err := p.Eval(t.Context(), native.Nothing{}, time.Second); err == nil {
		t.Error("what no question can look up in is not topdown's")
	}
}
