package author_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/author"
)

func priced(t *testing.T, files fstest.MapFS) author.Prices {
	t.Helper()
	prices, err := read(t, files).Price(t.Context(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	return prices
}

func priceOf(t *testing.T, all author.Prices, id string) author.Price {
	t.Helper()
	i := slices.IndexFunc(all.Rules, func(p author.Price) bool { return p.ID == id })
	if i < 0 {
		t.Fatalf("%s is not among %+v", id, all.Rules)
	}
	return all.Rules[i]
}

func TestRulesHaveAPrice(t *testing.T) {
	t.Parallel()
	all := priced(t, folder("gatehouse/more.rego", "package gatehouse.more\n\nf(x) := x + 1\n\nfound if {\n\tsome b in data.elsewhere\n\tb == input.subject.id\n}\n"))
	if all.Requests != 2 || all.Floor.P50 <= 0 || all.Decision.P50 <= 0 || all.Decision.P99 < all.Decision.P50 || len(all.Rules) != 2 {
		t.Errorf("prices %+v", all)
	}
	found := priceOf(t, all, "gatehouse.more.found")
	if found.File != "p/gatehouse/more.rego" || found.Line != 5 || len(found.Advice) != 1 || !strings.Contains(found.Advice[0], "data.elsewhere is searched through") {
		t.Errorf("price %+v", found)
	}
}

func TestWhatTheIndexLeavesOutIsCounted(t *testing.T) {
	t.Parallel()
	var indexed, not strings.Builder
	for i := range 10 {
		fmt.Fprintf(&indexed, "indexed contains %d if input.action.name == \"A%d\"\n\n", i, i)
		fmt.Fprintf(&not, "plain contains %d if count(input.action.name) == %d\n\n", i, i)
	}
	all := priced(t, folder("gatehouse/more.rego", "package gatehouse.more\n\n"+indexed.String()+not.String()))
	if p := priceOf(t, all, "gatehouse.more.indexed"); p.Rules != 10 || p.Tried != 0 || !p.Indexed || p.Advice != nil {
		t.Errorf("indexed: %+v", p)
	}
	if p := priceOf(t, all, "gatehouse.more.plain"); p.Rules != 10 || p.Tried != 10 || p.Indexed || len(p.Advice) != 1 {
		t.Errorf("not indexed: %+v", p)
	}
}
