package directory_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/directory"
)

func TestATableAnswersAsItsObjectWould(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		leaf := rapid.OneOf(rapid.Just(any(nil)), rapid.Map(rapid.String(), func(s string) any { return s }), rapid.Map(rapid.Bool(), func(b bool) any { return b }),
			rapid.Map(rapid.Int(), func(n int) any { return json.Number(fmt.Sprint(n)) }))
		value := rapid.OneOf(leaf, rapid.Map(rapid.SliceOfN(leaf, 0, 3), func(l []any) any { return l }), rapid.Map(rapid.MapOfN(rapid.String(), leaf, 0, 3), func(m map[string]any) any { return m }))
		object := rapid.MapOf(rapid.String(), value).Draw(t, "object")
		table, err := directory.NewTable(object)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range object {
			if got, ok := table.Member(name); !ok || !cmp.Equal(got, want) {
				t.Errorf("%q is %v, want %v", name, got, want)
			}
		}
		other := rapid.String().Draw(t, "other")
		if _, there := object[other]; !there {
			if got, ok := table.Member(other); ok {
				t.Errorf("%q is %v", other, got)
			}
		}
		some := table.Some(3)
		for _, name := range some {
			if _, there := object[name]; !there {
				t.Errorf("%q is made up", name)
			}
		}
		if table.Len() != len(object) || table.Distinct() > len(object) || len(some) > 3 || len(some) == 0 && len(object) > 0 {
			t.Errorf("%d members, %d of them different, want %d; some are %q", table.Len(), table.Distinct(), len(object), some)
		}
	})
	if b, err := json.Marshal(map[string]any{"x": new(directory.Table)}); err == nil {
		t.Errorf("written whole: %s", b)
	}
}
