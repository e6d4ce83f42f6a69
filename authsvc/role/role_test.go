package role_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gatehouse-auth/gatehouse/authsvc/role"
)

func noon() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func in(tenant string) *string { return &tenant }

func TestWhatIsHeldIsHeldWithAllThatItInherits(t *testing.T) {
	t.Parallel()
	g := role.Graph{"a": {}, "b": {Inherits: []string{"a"}}, "c": {Inherits: []string{"a", "b"}}, "d": {}}
	end := noon().Add(time.Hour)
	held := role.Held{
		Bindings: []role.Binding{{Role: "c", Tenant: "acme", Until: &end}, {Role: "d"}, {Role: "a", Tenant: "other"}},
		Account:  []string{"b", "unknown"},
	}
	everywhere := []role.Effective{{Role: "d", Via: "d"}, {Role: "a", Via: "b", FromAccount: true}, {Role: "b", Via: "b", FromAccount: true}, {Role: "unknown", Via: "unknown", FromAccount: true}}
	acme := []role.Effective{{Role: "a", Via: "c", Tenant: "acme", Until: &end}, {Role: "b", Via: "c", Tenant: "acme", Until: &end}, {Role: "c", Via: "c", Tenant: "acme", Until: &end}}
	other := []role.Effective{{Role: "a", Via: "a", Tenant: "other"}}
	for what, c := range map[string]struct {
		tenant *string
		at     time.Duration
		want   []role.Effective
	}{
		"in a tenant":                 {in("acme"), time.Hour - 1, slices.Concat(acme, everywhere)},
		"in that tenant, at its end":  {in("acme"), time.Hour, everywhere},
		"in a tenant of nobody":       {in("none"), 0, everywhere},
		"without a tenant":            {in(""), 0, everywhere},
		"in whatever tenant there is": {nil, 0, slices.Concat(acme, everywhere[:1], other, everywhere[1:])},
	} {
		if diff := cmp.Diff(c.want, g.Effective(held, c.tenant, noon().Add(c.at))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

// A graph that every change was checked in never has a circle, and loses none that would not have made one.
func TestNoOrderOfChangesMakesACircle(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same each time
	for range 200 {
		g := role.Graph{}
		for i := range 8 {
			g[fmt.Sprint(i)] = role.Node{}
		}
		for range 40 {
			r := role.Role{Name: fmt.Sprint(random.IntN(8))}
			for range random.IntN(3) {
				r.Inherits = append(r.Inherits, fmt.Sprint(random.IntN(9)))
			}
			with := role.Graph{}
			for name, n := range g {
				with[name] = n
			}
			with[r.Name] = role.Node{Inherits: r.Inherits}
			want := error(nil)
			switch {
			case slices.Contains(r.Inherits, "8"):
				want = role.ErrParentUnknown
			case circular(with):
				want = role.ErrCycle
			}
			if err := g.Check(r); !errors.Is(err, want) {
				t.Fatalf("%v and %v: %v, want %v", g, r, err, want)
			}
			if want == nil {
				g = with
			}
		}
	}
}

// circular takes away, as long as there are any, roles that inherit nothing which is left.
func circular(g role.Graph) bool {
	left := map[string]bool{}
	for name := range g {
		left[name] = true
	}
	for again := true; again; {
		again = false
		for name := range left {
			if !slices.ContainsFunc(g[name].Inherits, func(p string) bool { return left[p] }) {
				delete(left, name)
				again = true
			}
		}
	}
	return len(left) > 0
}

func TestInheritanceMayBeAsDeepAsThereAreRoles(t *testing.T) {
	t.Parallel()
	g := role.Graph{"r0": {}}
	for i := 1; i < role.MaxRoles; i++ {
		g[fmt.Sprint("r", i)] = role.Node{Inherits: []string{fmt.Sprint("r", i-1)}}
	}
	top := fmt.Sprint("r", role.MaxRoles-1)
	if n := len(g.Closure(top)); n != role.MaxRoles {
		t.Errorf("the highest holds %d", n)
	}
	if err := g.Check(role.Role{Name: "r0", Inherits: []string{top}}); !errors.Is(err, role.ErrCycle) {
		t.Errorf("the whole circle: %v", err)
	}
}

func TestASubjectsIDIsOneSegmentOfAPath(t *testing.T) {
	t.Parallel()
	for id, good := range map[string]bool{
		"0199a0de-7b1c-7000-8000-000000000000": true, "auth0|123": true, "spiffe://example.org/a": true, "ada@example.org": true, strings.Repeat("x", 200): true,
		"": false, ".": false, "..": false, "a b": false, "a\n": false, "ä": false, "a\x00": false, strings.Repeat("x", 201): false,
	} {
		if role.ValidSubject(id) != good {
			t.Errorf("%q: %v", id, !good)
		}
	}
}
