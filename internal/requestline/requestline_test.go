package requestline_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gatehouse-auth/gatehouse/internal/requestline"
)

// S54, S55: what two parsers could read differently is refused.
func TestWhatCanBeReadTwoWaysIsRefused(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"/", "/a", "/a/", "/a%20b", "/%C3%A4", "/..."} {
		if !requestline.Canonical(p) {
			t.Errorf("%q is refused", p)
		}
	}
	for _, p := range []string{"", "a", "//a", "/a//b", "/.", "/a/..", "/a/%2e%2e", "/a%2fb", "/a%5cb", `/a\b`, "/a;b", "/a%", "/a%2", "/a%zz", "/a%00", "/%ff", "/a%25", "/a\x00", "/a?b", "/a#b", "/a%3f", "/a\tb"} {
		if requestline.Canonical(p) {
			t.Errorf("%q passes", p)
		}
	}
	for target, want := range map[string]string{"/a?b?c": "/a|b?c", "/": "/|", "http://x/": "", "/a#b": "", "/a b": "", "/a\x7f": "", "": ""} {
		path, query, err := requestline.OriginForm(target)
		if got := path + "|" + query; (want == "") != (err != nil) || err == nil && got != want {
			t.Errorf("%q: %s, %v", target, got, err)
		}
	}
	for _, m := range []string{"", "get", "G ET", strings.Repeat("A", 33)} {
		if requestline.Method(m) {
			t.Errorf("method %q passes", m)
		}
	}
	for _, h := range []string{"", "a/b", "u@h", "a,b", "a b"} {
		if requestline.Host(h) {
			t.Errorf("host %q passes", h)
		}
	}
	if !requestline.Method("M-SEARCH") || !requestline.Host("[::1]:80") {
		t.Error("a good request is refused")
	}
}

func FuzzCanonical(f *testing.F) {
	f.Add("/a%20b/c")
	f.Add("/a/%2e%2e/b")
	f.Fuzz(func(t *testing.T, p string) {
		if !requestline.Canonical(p) {
			return
		}
		u, err := url.Parse(p)
		if err != nil || u.EscapedPath() == "" || strings.Count(u.Path, "/") != strings.Count(p, "/") || u.JoinPath().Path != u.Path {
			t.Fatalf("%q is read as %v, %v", p, u, err)
		}
	})
}
