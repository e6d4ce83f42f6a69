package guard

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Whatever a client sends, the ids that are found are fit to be asked about, or the request is refused; and what encoding/json reads
// there are no others.
func FuzzIDs(f *testing.F) {
	f.Add([]byte(`{"ids":["1",2]}`), "ids=1,2&x=3", "/ids")
	f.Add([]byte(`{"items":[{"id":"a"},{"id":-7}]}`), "ids=%31&ids=", "/items/*/id")
	f.Add([]byte(`[[["\ud800"]],{"a":{"a":1e3}}]`), "ids[]=1;", "/0/0")
	f.Fuzz(func(t *testing.T, body []byte, query, pointer string) {
		want := IDs{Pointer: pointer, Parameter: "ids", Most: 4}
		check := func(found []string, err error) {
			if err == nil && len(found) > want.Most {
				t.Errorf("%q are more than %d", found, want.Most)
			}
		}
		found, err := idsOf(body, pointer, want.Most)
		check(found, err)
		if err == nil && pointer == "/ids" {
			var plain struct{ IDs any }
			if json.Unmarshal(body, &plain) != nil {
				t.Fatalf("%q: encoding/json reads no object", body)
			}
			list, many := plain.IDs.([]any)
			if !many {
				list = []any{plain.IDs}
			}
			if len(list) != len(found) {
				t.Errorf("%q: %v read as %q", body, list, found)
			}
			for i, v := range list {
				if n, ok := v.(float64); ok {
					v = fmt.Sprintf("%.0f", n)
				}
				if i < len(found) && v != found[i] {
					t.Errorf("%q: %v read as %q", body, v, found[i])
				}
			}
		}
		found, err = inQuery(query, want)
		check(found, err)
		fit := slices.DeleteFunc(found, func(id string) bool { return !fitID(id) })
		for _, id := range fit {
			if id == "" || strings.ContainsAny(id, "/\\%\x00\r\n") || id[0] == ' ' {
				t.Errorf("%q passes", id)
			}
		}
	})
}
