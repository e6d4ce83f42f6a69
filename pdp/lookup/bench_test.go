package lookup_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-auth/gatehouse/pdp/lookup"
)

// BenchmarkFiftyObjects: what the objects of one batch take of an API that needs 2 ms for an answer, however many objects are in it.
func BenchmarkFiftyObjects(b *testing.B) {
	api := serve(b, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * time.Millisecond)
		if id, one := strings.CutPrefix(r.URL.Path, "/orders/"); one {
			fmt.Fprintf(w, `{"owner":"of %s"}`, id)
			return
		}
		var items []string
		for id := range strings.SplitSeq(r.URL.Query().Get("ids"), ",") {
			items = append(items, fmt.Sprintf(`{"key":{"id":%q},"owner":"of %s"}`, id, id))
		}
		fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
	})
	var ids []string
	for i := range 50 {
		ids = append(ids, fmt.Sprint(i))
	}
	for _, c := range []struct {
		name     string
		document map[string]any
		together bool
	}{
		{"one after the other", orders(map[string]any{"ttl": nil}), false},
		{"side by side", orders(map[string]any{"ttl": nil}), true},
		{"in one request", several(map[string]any{"most": 100}), true},
	} {
		delete(c.document["order"].(map[string]any), "ttl")
		b.Run(c.name, func(b *testing.B) {
			s := open(b, c.document, time.Now, api)
			for b.Loop() {
				ctx := b.Context()
				if c.together {
					ctx = lookup.Together(ctx, of(ids...))
				}
				for _, id := range ids {
					if found, err := s.Find(ctx, "order", id); err != nil || found["owner"] != "of "+id {
						b.Fatal(found, err)
					}
				}
			}
		})
	}
}
