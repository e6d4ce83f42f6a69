package authzen_test

import (
	"slices"
	"testing"

	"github.com/gatehouse-auth/gatehouse/pdp/authzen"
)

func TestAPointerIsReadAsTheRFCSays(t *testing.T) {
	t.Parallel()
	for pointer, want := range map[string][]string{
		"": nil, "/": {""}, "/a/b": {"a", "b"}, "/a~1b": {"a/b"}, "/a~0b": {"a~b"}, "/~01": {"~1"}, "/a//b": {"a", "", "b"}, "/~0~1": {"~/"},
	} {
		if got, err := authzen.ParsePointer(pointer); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v", pointer, got, err)
		}
	}
	for _, bad := range []string{"a", "a/b", "/~", "/~2", "/a~", "/~0~", "#/a"} {
		if got, err := authzen.ParsePointer(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func TestAPointerFindsWhatTheJSONFormHolds(t *testing.T) {
	t.Parallel()
	r := authzen.Request{
		Subject: authzen.Subject{Type: "user", Properties: map[string]any{"roles": []string{"a", "b"}, "list": []any{map[string]any{"x": 1}}}},
		Action:  authzen.Action{Name: "GET"}, Resource: authzen.Resource{Properties: map[string]any{}},
	}
	for pointer, found := range map[string]bool{
		"": true, "/subject": true, "/subject/id": true, "/subject/properties/roles/1": true, "/subject/properties/list/0/x": true, "/action/name": true, "/resource": true,
		"/action/properties": false, "/resource/properties": false, "/context": false, "/subject/properties/roles/2": false, "/subject/properties/roles/01": false,
		"/subject/properties/roles/-1": false, "/subject/properties/roles/-": false, "/subject/properties/list/x": false, "/subject/id/x": false, "/nowhere": false,
	} {
		tokens, err := authzen.ParsePointer(pointer)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := r.At(tokens); ok != found {
			t.Errorf("%q: found %v", pointer, ok)
		}
	}
}

func FuzzPointer(f *testing.F) {
	f.Add("/subject/properties/roles/0")
	f.Add("/~1~0~")
	r := authzen.Request{Subject: authzen.Subject{Properties: map[string]any{"roles": []string{"a"}}}}
	f.Fuzz(func(_ *testing.T, pointer string) {
		if tokens, err := authzen.ParsePointer(pointer); err == nil {
			r.At(tokens)
		}
	})
}
