package golden_test

import (
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/golden"
)

func TestATimeThatCannotBeReadIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ text, want string }{
		"c.yaml":        {"a:\n  asks: GET /x/1\n  decision: deny\n  at: 10:00\n", `c.yaml:4: at: "10:00" is no time, such as 2026-03-03T10:00:00Z`},
		"m.matrix.yaml": {"m:\n  who: {a: {id: a}}\n  when:\n    early: {at: noon}\n  decisions: {GET /x/1: {a: [deny]}}\n", `m.matrix.yaml:4: at: "noon" is no time, such as 2026-03-03T10:00:00Z`},
	} {
		if _, err := golden.Parse(name, []byte(c.text)); err == nil || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	if _, err := golden.Parse("c.yaml", []byte("a:\n  asks: GET /x/1\n  decision: deny\n  at: 2026-03-03T10:00:00Z\n  known: {at: noon}\n")); err != nil {
		t.Error(err)
	}
}
