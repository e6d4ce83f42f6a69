package lookup_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// S56: a panic while an object is asked for is a failure, for which the caller denies, and not the end of the program.
func TestAPanicWithinALookUpIsAnError(t *testing.T) {
	t.Parallel()
	s := open(t, orders(nil), func() time.Time { panic("clock") }, "http://127.0.0.1:1")
	found, err := s.Find(t.Context(), "order", "17")
	if err == nil || found != nil || !strings.Contains(err.Error(), "panic") {
		t.Errorf("found %v, %v", found, err)
	}
}

func TestLookUpsAreCountedByHowTheyWent(t *testing.T) {
	t.Parallel()
	api := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/orders/17":
			fmt.Fprint(w, `{"owner":"alice"}`)
		case "/orders/18":
			http.NotFound(w, r)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	})
	c, counts := &clock{}, &lookup.Counts{}
	s := open(t, orders(nil), c.now, api)
	s.CountIn(counts)
	for _, of := range [][2]string{{"order", "17"}, {"order", "17"}, {"order", "17"}, {"order", "18"}, {"order", "19"}, {"order", "../17"}, {"sent by a caller", "17"}} {
		_, _ = s.Find(t.Context(), of[0], of[1]) // some fail, which is counted
	}
	want := map[lookup.Count]uint64{
		{Kind: "order", Result: lookup.Found}: 1, {Kind: "order", Result: lookup.Remembered}: 2,
		{Kind: "order", Result: lookup.Missing}: 1, {Kind: "order", Result: lookup.Failed}: 2,
	}
	if got := counts.All(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
