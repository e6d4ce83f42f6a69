package engine_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"testing/fstest"

	"github.com/gatehouse-auth/gatehouse/pdp/engine"
)

// What one file holds is decoded once, and what another file adds beside it is never in it.
func TestDataThatHasNotChangedIsNotDecodedAgain(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{
		"gatehouse/authz.rego": {Data: []byte("package gatehouse.authz\n\ndefault decision := {\"allow\": false}\n")},
		"d/a.json":             {Data: []byte(`{"x": {"a": 1, "deep": {"a": 1}}, "large": {"ann": ["clerk"]}}`)},
		"d/b.yaml":             {Data: []byte("x: {b: 2, deep: {b: 2}}\n")},
	}
	e := open(t, engine.Options{Policies: files})
	large := e.DataAt("d", "large")
	for _, c := range []struct{ b, want string }{
		{"x: {b: 2, deep: {b: 2}}\n", `{"a":1,"b":2,"deep":{"a":1,"b":2}}`},
		{"x: {b: 3, deep: {c: 3}}\n", `{"a":1,"b":3,"deep":{"a":1,"c":3}}`},
		{"y: 1\n", `{"a":1,"deep":{"a":1}}`},
	} {
		files["d/b.yaml"] = &fstest.MapFile{Data: []byte(c.b)}
		if err := e.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		doc, err := e.Document(t.Context(), question("d/x", nil))
		if got := asJSON(t, doc.Value); err != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.b, got, err, c.want)
		}
		if now := e.DataAt("d", "large"); reflect.ValueOf(now).Pointer() != reflect.ValueOf(large).Pointer() {
			t.Error("what has not changed was decoded again")
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
