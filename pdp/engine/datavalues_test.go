package engine_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"pgregory.net/rapid"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// However often and in whatever order topdown asks for parts of data, in one evaluation or in the next, what it is given is what the
// store says: of data that is OPA's values or not, and where large objects stand apart.
func TestWhatIsKeptOfDataIsWhatTheStoreSays(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c", "0", "1", "system"}
	var value func(depth int) *rapid.Generator[any]
	value = func(depth int) *rapid.Generator[any] {
		of := []*rapid.Generator[any]{rapid.SampledFrom([]any{"a", "", nil, true, false, json.Number("1")})}
		if depth > 0 {
			of = append(of,
				rapid.Map(rapid.SliceOfN(value(depth-1), 0, 3), func(v []any) any { return v }),
				rapid.Map(rapid.MapOfN(rapid.SampledFrom(names), value(depth-1), 0, 4), func(v map[string]any) any { return v }))
		}
		return rapid.OneOf(of...)
	}
	data := rapid.MapOfN(rapid.SampledFrom(names), value(3), 0, 4)
	step := rapid.Map(rapid.IntRange(0, len(names)+5), func(i int) *ast.Term {
		if i < len(names) {
			return &ast.Term{Value: ast.String(names[i])}
		}
		return &ast.Term{Value: []ast.Number{"0", "1", "-0", "1.0", "01", "7"}[i-len(names)]}
	})
	ref := rapid.Map(rapid.SliceOfN(step, 0, 4), func(names []*ast.Term) ast.Ref { return append(ast.Ref{ast.DefaultRootDocument}, names...) })
	rapid.Check(t, func(rt *rapid.T) {
		kept, read, err := engine.DataValues(t.Context(), data.Draw(rt, "data"), rapid.SampledFrom([]int{2, 100}).Draw(rt, "large"), rapid.Bool().Draw(rt, "opa"))
		if err != nil {
			rt.Fatal(err)
		}
		for range rapid.IntRange(1, 60).Draw(rt, "reads") {
			r := ref.Draw(rt, "ref")
			want, wantErr := read(r)
			if len(r) == 1 && wantErr == nil { // topdown takes what is OPA's own out of that
				continue
			}
			got := kept.Get(r)
			switch {
			case got == nil && wantErr == nil:
				kept.Put(r, want)
				for _, t := range r[1:] {
					t.Value = ast.String("changed") // whose they are
				}
			case got != nil && (wantErr != nil || got.Compare(want) != 0):
				rt.Fatal(fmt.Errorf("%v is %v, want %v (%w)", r, got, want, wantErr))
			}
			if rapid.IntRange(0, 19).Draw(rt, "end") == 0 {
				engine.Forget(kept)
			}
		}
	})
}
